"""Reports: what each outcome makes of a job in each state."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from tests.database.project import Project

BUSY = {"service": "ittybit", "status": 503, "kind": "unavailable", "message": "later"}


def report(database: Project, outcome: str, *, attempt: int = 1, **fields: Any) -> bool:
    """Report on the only job and return whether it counted."""
    answer = database.report(database.job()["id"], attempt, outcome, **fields)
    assert answer["state"] == database.job()["state"]
    return bool(answer["applied"])


def in_state(database: Project, state: str) -> None:
    """Bring the claimed job to a state."""
    ittybit_id = "run_1" if state in ("started", "succeeded", "broken") else None
    if state != "queued":
        report(database, "failed" if state == "broken" else state, ittybit_id=ittybit_id)


MINE, OTHER = {"ittybit_id": "run_1"}, {"ittybit_id": "run_2"}
# `failed` is a start that was refused; `broken` a run that failed.
TRANSITIONS = [
    ("queued", "started", MINE, "started"),
    ("queued", "succeeded", MINE, "succeeded"),
    ("queued", "failed", MINE, "failed"),
    ("queued", "failed", {}, "failed"),
    ("queued", "skipped", {}, "skipped"),
    ("queued", "retry", {}, "queued"),
    ("queued", "hold", {}, "queued"),
    ("started", "started", MINE, "started"),
    ("started", "succeeded", MINE, "succeeded"),
    ("started", "failed", MINE, "failed"),
    ("started", "retry", {}, "started"),
    ("started", "started", OTHER, None),
    ("started", "succeeded", OTHER, None),
    ("started", "failed", {}, None),
    ("started", "skipped", {}, None),
    ("started", "hold", {}, None),
    ("skipped", "started", MINE, "started"),
    ("skipped", "succeeded", MINE, "succeeded"),
    ("skipped", "skipped", {}, None),
    ("skipped", "retry", {}, None),
    ("failed", "started", MINE, "started"),
    ("failed", "failed", {}, None),
    ("failed", "hold", {}, None),
    ("succeeded", "started", MINE, None),
    ("succeeded", "failed", MINE, None),
    ("succeeded", "started", OTHER, None),
    ("succeeded", "retry", {}, None),
    ("broken", "started", MINE, None),
    ("broken", "succeeded", MINE, None),
    ("broken", "skipped", {}, None),
]


@pytest.mark.parametrize(("state", "outcome", "fields", "expected"), TRANSITIONS)
def test_an_outcome_moves_a_job_forward_or_not_at_all(
    claimed: Project, state: str, outcome: str, fields: dict[str, Any], expected: str | None
) -> None:
    in_state(claimed, state)
    before = claimed.job()
    applied = report(claimed, outcome, **fields)
    after = claimed.job()
    assert applied == (expected is not None)
    if fields == OTHER:
        # A second run there is all the same: the one known first is followed, the other is named.
        assert after == before | {"reason": "also started as run_2"}
    elif expected is None:
        assert after == before
    else:
        assert after["state"] == expected
        assert (after["due_at"] is None) == (expected in ("succeeded", "failed", "skipped"))
        assert (after["finished_at"] is None) == (expected in ("queued", "started"))


# What an attempt says without an id speaks for itself alone; what ittybit does is a fact.
@pytest.mark.parametrize(
    ("outcome", "fields", "state"),
    [
        ("retry", {"error": BUSY}, "queued"),
        ("hold", {"error": {"status": 402}}, "queued"),
        ("failed", {}, "queued"),
        ("skipped", {}, "queued"),
        ("started", MINE, "started"),
        ("succeeded", MINE, "succeeded"),
        ("failed", MINE, "failed"),
    ],
)
def test_a_report_of_an_older_attempt_counts_only_with_an_id(
    claimed: Project, outcome: str, fields: dict[str, Any], state: str
) -> None:
    claimed.next_attempt()
    before = claimed.job()
    applied = report(claimed, outcome, attempt=1, **fields)
    after = claimed.job()
    assert applied == (state != "queued")
    assert after["state"] == state
    if state == "started":
        assert after["due_at"] == before["due_at"]
    if state == "queued":
        assert after == before
        assert claimed.sql("select from ittybit.holds") == []


def test_a_late_start_brings_a_skipped_job_back(claimed: Project) -> None:
    report(claimed, "skipped", reason="gone")
    assert report(claimed, "started", ittybit_id="run_1")
    job = claimed.job()
    assert (job["state"], job["reason"], job["finished_at"], job["ittybit_id"]) == ("started", None, None, "run_1")
    assert 4 < claimed.seconds_left() <= 5


def test_a_start_is_not_undone_by_the_next_attempt(claimed: Project) -> None:
    claimed.next_attempt()
    report(claimed, "started", attempt=1, ittybit_id="run_1")
    assert not report(claimed, "skipped", attempt=2, reason="gone")
    assert not report(claimed, "failed", attempt=2)
    assert claimed.job()["state"] == "started"


def test_success_keeps_the_addresses_and_forgets_the_troubles(claimed: Project) -> None:
    report(claimed, "retry", error=BUSY)
    attempt = claimed.next_attempt()
    assert report(
        claimed, "succeeded", attempt=attempt, ittybit_id="run_1", outputs=["s3://results/a.mp4", "https://x.test/b"]
    )
    job = claimed.job()
    assert job["outputs"] == ["s3://results/a.mp4", "https://x.test/b"]
    assert (job["progress"], job["failures"], job["failing_since"], job["error"]) == (100, 0, None, None)
    assert job["doubt_since"] is None


def test_a_failure_keeps_the_reason_and_the_error(claimed: Project) -> None:
    report(claimed, "failed", ittybit_id="run_1", error=BUSY, reason="corrupt")
    job = claimed.job()
    assert (job["reason"], job["error"]) == ("corrupt", BUSY)


def test_a_failure_without_a_reason_is_ittybits(claimed: Project) -> None:
    report(claimed, "failed", ittybit_id="run_1")
    assert claimed.job()["reason"] == "ittybit_failed"


@pytest.mark.parametrize("outcome", ["retry", "hold", "skipped", "failed"])
def test_what_was_not_started_is_given_back_to_the_ceiling_once(claimed: Project, outcome: str) -> None:
    claimed.sql("update ittybit.starts set claimed = 5")
    for _ in range(2):
        report(claimed, outcome, error=BUSY)
    assert claimed.counted_starts() == 4


@pytest.mark.parametrize(
    ("outcome", "fields"), [("retry", {"in_doubt": True}), ("started", MINE), ("succeeded", MINE), ("failed", MINE)]
)
def test_what_was_or_may_have_been_started_counts(claimed: Project, outcome: str, fields: dict[str, Any]) -> None:
    report(claimed, outcome, **fields)
    assert claimed.counted_starts() == 1


@pytest.mark.parametrize("fields", [{"outcome": "done"}, {"outcome": "started"}, {"outcome": "succeeded"}])
def test_an_outcome_that_says_too_little_is_refused(claimed: Project, fields: dict[str, Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="unknown outcome"):
        claimed.report(claimed.job()["id"], 1, **fields)


def test_a_report_on_no_job_counts_for_nothing(database: Project) -> None:
    assert database.report(uuid.uuid4(), 1, "retry") == {"applied": False, "state": None}
