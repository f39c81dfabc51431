"""A check's finding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["ok", "warning", "failure", "skipped"]


class Finding(BaseModel):
    """One line of the doctor's.

    Attributes:
        check: its name, as in the database's half.
        verdict: ``warning`` works, but not for ever or not as somebody expects; ``failure`` does not work; ``skipped``
            could not be looked at, for a reason that another line gives.
        saw: what there is, without a secret.
        remedy: what to do about it; None where it is ok.
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
    """It works, but not for ever, or not as somebody expects."""
    return Finding(check=check, verdict="warning", saw=saw, remedy=remedy)


def failure(check: str, saw: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check=check, verdict="failure", saw=saw, remedy=remedy)


def skipped(check: str, reason: str, remedy: str | None = None) -> Finding:
    """It could not be looked at."""
    return Finding(check=check, verdict="skipped", saw=reason, remedy=remedy)


def exit_status(findings: Iterable[Finding]) -> int:
    """The process's status by the worst of them: 0 ok, 1 warning, 2 failure. A skipped one has its fault elsewhere."""
    worth = {"ok": 0, "skipped": 0, "warning": 1, "failure": 2}
    return max((worth[finding.verdict] for finding in findings), default=0)
