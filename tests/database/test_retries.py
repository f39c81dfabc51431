"""When a job is due next, and when it ends. The tests move time by shifting rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.project import TASK, Project, report
from tests.database.rows import Row

BUSY = {"service": "ittybit", "status": 503, "kind": "unavailable", "message": "later"}
SILENCE = {"service": "ittybit", "status": None, "kind": "timeout", "message": "no answer"}
RUN = {"ittybit_id": "runs/1"}


@pytest.mark.parametrize("failures", [0, 1, 4, 8, 50])
def test_retries_back_off_within_bounds(database: Project, lease: Row, failures: int) -> None:
    database.sql("update ittybit.jobs set failures = %s", failures)
    database.report(lease, "retry", error=BUSY)
    middle = min(15 * 2**failures, 3600)
    assert 0.8 * middle - 1 <= database.seconds_left() <= 1.2 * middle
    assert database.job()["failures"] == failures + 1


def test_retries_of_many_jobs_are_spread(database: Project) -> None:
    database.rule()
    database.put(*(f"{number}.mp4" for number in range(20)))
    database.reports(*(report(lease, "retry") for lease in database.claim()))
    spread = "select extract(epoch from max(due_at - now()) - min(due_at - now())) from ittybit.jobs"
    assert database.value(spread) > 1


@pytest.mark.parametrize(("asked", "least", "most"), [(100, 99, 100), (1, 11, 18), (-5, 11, 18), (10**9, 86399, 86400)])
def test_a_retry_waits_as_long_as_the_service_asks_but_a_day_at_most(
    database: Project, lease: Row, asked: int, least: int, most: int
) -> None:
    database.report(lease, "retry", error=BUSY, retry_after=asked)
    assert least <= database.seconds_left() <= most


def fail_for_three_days(database: Project, lease: Row) -> None:
    database.report(lease, "retry", error=BUSY)
    database.sql("update ittybit.jobs set failing_since = now() - interval '3 days 1 minute'")


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (BUSY, "failed", "gave_up"),
        (SILENCE, "queued", None),
        *((BUSY | {"status": status}, "queued", None) for status in (401, 402, 403)),
    ],
    ids=lambda value: str(value.get("status")) if isinstance(value, dict) else None,
)
def test_only_a_jobs_own_answered_failures_end_it_after_three_days(
    database: Project, lease: Row, error: Row, state: str, reason: str | None
) -> None:
    fail_for_three_days(database, lease)
    database.report(database.next_lease(), "retry", error=error)
    job = database.job()
    assert (job["state"], job["reason"], job["error"]) == (state, reason, error)


def test_a_job_that_nobody_tried_for_an_hour_has_three_days_again(database: Project, lease: Row) -> None:
    fail_for_three_days(database, lease)
    database.sql("update ittybit.jobs set due_at = now() - interval '61 minutes'")
    [again] = database.claim()
    database.report(again, "retry", error=BUSY)
    assert (database.job()["state"], database.job()["failures"]) == ("queued", 2)


@pytest.mark.parametrize("outcome", ["hold", "retry"])
def test_an_error_about_the_account_ends_the_three_days(database: Project, lease: Row, outcome: str) -> None:
    fail_for_three_days(database, lease)
    database.report(database.next_lease(), outcome, error=BUSY | {"status": 402})
    database.sql("delete from ittybit.holds where true")
    database.report(database.next_lease(), "retry", error=BUSY)
    assert database.job()["state"] == "queued"


def test_a_timeout_does_not_begin_the_three_days(database: Project, lease: Row) -> None:
    database.report(lease, "retry", error=SILENCE)
    assert database.job()["failing_since"] is None


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
def test_a_hold_has_the_scope_of_the_refusal(
    database: Project, action: dict[str, Any], status: int | None, scope: str
) -> None:
    database.rule(**action)
    database.put("a.mp4")
    database.report(database.next_lease(), "hold", error={"status": status, "message": "no"})
    [hold] = database.sql("select scope, error, probe_at - now() as wait from ittybit.holds")
    assert (hold["scope"], hold["error"]["message"]) == (scope, "no")
    assert 290 < hold["wait"].total_seconds() <= 300
    assert (database.job()["failures"], database.job()["in_doubt_since"]) == (0, None)
    assert database.seconds_left() <= 0
    assert database.wake() == 0


def test_a_held_queue_continues_by_itself_once_a_probe_has_started(waiting: Project) -> None:
    waiting.reports(*(report(lease, "hold", error={"status": 402}) for lease in waiting.claim()))
    since = waiting.value("select since from ittybit.holds")
    for refuses in (True, False):
        waiting.pass_time(301)
        assert waiting.wake() == len(waiting.messages()) == 1
        [probe] = waiting.claim()
        if refuses:
            waiting.report(probe, "hold", error={"status": 402})
            assert waiting.value("select since from ittybit.holds") == since
        else:
            waiting.report(probe, "started", **RUN)
    assert waiting.sql("select from ittybit.holds") == []
    assert len(waiting.claim()) == 2


@pytest.mark.parametrize(("age", "wait"), [(2, 5), (40, 5), (120, 12), (300, 30), (10800, 60)])
def test_checks_become_less_frequent_with_the_age_of_a_run(database: Project, lease: Row, age: int, wait: int) -> None:
    database.report(lease, "started", **RUN)
    assert 4 < database.seconds_left() <= 5
    database.sql("update ittybit.jobs set started_at = now() - %s * interval '1 s'", age)
    database.report(database.next_lease(), "started", **RUN)
    assert database.seconds_left() == pytest.approx(wait, abs=1)


def test_a_run_whose_result_is_there_is_checked_again_after_a_second(database: Project) -> None:
    database.rule(task=TASK)
    database.put("a.mov")
    database.started("a.mov", "tasks/1")
    database.put("a.mp4", bucket="results", operation="storage.s3.upload")
    # The result made the check due at once.
    assert database.seconds_left() <= 0
    database.report(database.claim("push-back")[0], "started", ittybit_id="tasks/1")
    assert 0 < database.seconds_left() <= 1


@pytest.mark.parametrize(
    ("progress", "state", "reason"),
    [(None, "failed", "no_progress"), (40, "failed", "no_progress"), (41, "started", None)],
)
def test_a_run_without_progress_for_a_day_fails(
    database: Project, lease: Row, progress: float | None, state: str, reason: str | None
) -> None:
    database.report(lease, "started", progress=40, **RUN)
    database.sql("update ittybit.jobs set progressed_at = now() - interval '24 hours 1 minute'")
    database.report(database.next_lease(), "started", progress=progress, **RUN)
    assert (database.job()["state"], database.job()["reason"]) == (state, reason)


def test_a_run_stays_started_while_ittybit_does_not_answer(database: Project, lease: Row) -> None:
    database.report(lease, "started", **RUN)
    database.sql("update ittybit.jobs set progressed_at = now() - interval '30 days'")
    database.report(database.next_lease(), "retry", error=SILENCE)
    assert database.job()["state"] == "started"
