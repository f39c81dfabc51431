"""A check's finding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["ok", "warning", "failure", "skipped"]


class Finding(BaseModel):
    """One line of the doctor's output.

    Attributes:
        check: its name, as in ``ittybit.doctor()``.
        verdict: ``warning``: it works, but not for ever or not as expected; ``failure``: it does not work; ``skipped``:
            it could not be checked, for a reason that another line gives.
        saw: what the check found, without secrets.
        remedy: what to do about it; None if it is ok.
    """

    model_config = ConfigDict(frozen=True)

    check: str
    verdict: Verdict
    saw: str
    remedy: str | None = None


def ok(check: str, saw: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, verdict="ok", saw=saw)


def warning(check: str, saw: str, remedy: str) -> Finding:
    """It works, but not for ever or not as expected."""
    return Finding(check=check, verdict="warning", saw=saw, remedy=remedy)


def failure(check: str, saw: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check=check, verdict="failure", saw=saw, remedy=remedy)


def skipped(check: str, reason: str, remedy: str | None = None) -> Finding:
    """It could not be checked."""
    return Finding(check=check, verdict="skipped", saw=reason, remedy=remedy)


def exit_status(findings: Iterable[Finding]) -> int:
    """The exit status by the worst finding: 0 ok, 1 warning, 2 failure. A skipped check's cause is another finding."""
    worth = {"ok": 0, "skipped": 0, "warning": 1, "failure": 2}
    return max((worth[finding.verdict] for finding in findings), default=0)
