"""When a job is sent next, and when it is not any more. Time is moved by shifting rows."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database.project import TASK, Project

BUSY = {"service": "ittybit", "status": 503, "kind": "unavailable", "message": "later"}
SILENCE = {"service": "ittybit", "status": None, "kind": "timeout", "message": "no answer"}


def report(database: Project, outcome: str, *, attempt: int = 1, **fields: Any) -> bool:
    """Report on the only job and return whether it counted."""
    answer = database.report(database.job()["id"], attempt, outcome, **fields)
    assert answer["state"] == database.job()["state"]
    return bool(answer["applied"])


@pytest.mark.parametrize("failures", [0, 1, 4, 8, 50])
def test_retries_back_off_within_bounds(claimed: Project, failures: int) -> None:
    claimed.sql("update ittybit.jobs set failures = %s", failures)
    report(claimed, "retry", error=BUSY)
    middle = min(15 * 2**failures, 3600)
    assert 0.8 * middle - 1 <= claimed.seconds_left() <= 1.2 * middle
    assert claimed.job()["failures"] == failures + 1


def test_retries_of_many_jobs_are_spread(database: Project) -> None:
    database.rule()
    database.put(*(f"{number}.mp4" for number in range(20)))
    for job in database.jobs():
        database.report(job["id"], 1, "retry")
    spread = "select extract(epoch from max(due_at - now()) - min(due_at - now())) from ittybit.jobs"
    assert database.value(spread) > 1


@pytest.mark.parametrize(("asked", "least", "most"), [(100, 99, 100), (1, 11, 18), (-5, 11, 18), (10**9, 86399, 86400)])
def test_a_retry_is_never_earlier_than_the_service_said(claimed: Project, asked: int, least: int, most: int) -> None:
    report(claimed, "retry", error=BUSY, retry_after=asked)
    assert least <= claimed.seconds_left() <= most


def test_after_three_days_of_answered_failures_a_job_gives_up(claimed: Project) -> None:
    report(claimed, "retry", error=BUSY)
    claimed.sql("update ittybit.jobs set failing_since = now() - interval '3 days 1 minute'")
    report(claimed, "retry", attempt=claimed.next_attempt(), error=BUSY)
    job = claimed.job()
    assert (job["state"], job["reason"], job["error"]) == ("failed", "gave_up", BUSY)


def test_silence_alone_never_ends_a_job(claimed: Project) -> None:
    report(claimed, "retry", error=SILENCE)
    assert claimed.job()["failing_since"] is None
    claimed.sql("update ittybit.jobs set failing_since = now() - interval '30 days'")
    report(claimed, "retry", attempt=claimed.next_attempt(), error=SILENCE)
    assert claimed.job()["state"] == "queued"


@pytest.mark.parametrize(
    ("action", "status", "scope"),
    [
        ({}, 402, "all"),
        ({}, 401, "function:on-upload"),
        ({"task": TASK}, 401, "function:push-back"),
        ({}, 403, "rule:clips"),
        ({}, None, "rule:clips"),
    ],
)
def test_a_hold_concerns_what_the_refusal_concerns(
    database: Project, action: dict[str, Any], status: int | None, scope: str
) -> None:
    database.rule(**action)
    database.put("a.mp4")
    database.claim(database.job()["id"], 1)
    report(database, "hold", error={"status": status, "message": "no"})
    [hold] = database.sql("select scope, error, probe, probe_at - now() as wait from ittybit.holds")
    assert (hold["scope"], hold["error"]["message"], hold["probe"]) == (scope, "no", None)
    assert 290 < hold["wait"].total_seconds() <= 300
    assert (database.job()["failures"], database.job()["doubt_since"]) == (0, None)
    assert database.seconds_left() <= 0
    assert database.send() == 0


def test_a_held_queue_goes_on_by_itself_once_a_probe_starts(database: Project) -> None:
    database.rule()
    database.put("1.mp4", "2.mp4", "3.mp4")
    for job in database.jobs():
        database.claim(job["id"], 1)
        database.report(job["id"], 1, "hold", error={"status": 402})
    since = database.value("select since from ittybit.holds")
    for attempt in (2, 3):
        database.sql("update ittybit.holds set probe_at = now()")
        database.messages()
        assert database.send() == 1
        [probe] = [message["body"] for message in database.messages()]
        assert database.claim(uuid.UUID(probe["job"]), probe["attempt"])["claimed"]
        if attempt == 2:
            database.report(uuid.UUID(probe["job"]), probe["attempt"], "hold", error={"status": 402})
            assert database.value("select since from ittybit.holds") == since
        else:
            database.report(uuid.UUID(probe["job"]), probe["attempt"], "started", ittybit_id="run_1")
    assert database.sql("select from ittybit.holds") == []
    assert database.send() == 2


@pytest.mark.parametrize("age", ["2 seconds", "40 seconds", "2 minutes", "3 hours"])
def test_checks_grow_rarer_with_age(claimed: Project, age: str) -> None:
    report(claimed, "started", ittybit_id="run_1")
    assert 4 < claimed.seconds_left() <= 5
    claimed.sql("update ittybit.jobs set started_at = now() - %s::interval", age)
    report(claimed, "started", attempt=claimed.next_attempt(), ittybit_id="run_1")
    [expected] = [float(claimed.value("select extract(epoch from %s::interval)", age))]
    assert claimed.seconds_left() == pytest.approx(min(max(expected, 5), 300), abs=1)


@pytest.mark.parametrize(
    ("progress", "state", "reason"),
    [(None, "failed", "no_progress"), (40, "failed", "no_progress"), (41, "started", None)],
)
def test_a_run_without_progress_for_a_day_fails(
    claimed: Project, progress: float | None, state: str, reason: str | None
) -> None:
    report(claimed, "started", ittybit_id="run_1", progress=40)
    claimed.sql("update ittybit.jobs set progressed_at = now() - interval '24 hours 1 minute'")
    claimed.report(claimed.job()["id"], claimed.next_attempt(), "started", ittybit_id="run_1", progress=progress)
    assert (claimed.job()["state"], claimed.job()["reason"]) == (state, reason)


def test_a_run_that_ittybit_does_not_answer_for_stays(claimed: Project) -> None:
    report(claimed, "started", ittybit_id="run_1")
    claimed.sql("update ittybit.jobs set progressed_at = now() - interval '30 days'")
    report(claimed, "retry", attempt=claimed.next_attempt(), error=SILENCE)
    assert claimed.job()["state"] == "started"
