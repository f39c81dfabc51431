"""Starts in doubt: claimed and never reported, or reported as in doubt. The next attempt always looks for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.database.project import TASK, Project, report
from tests.database.rows import Row
from tests.database.without_triggers import triggers_off

BUSY = {"service": "ittybit", "status": 503, "message": "later"}
# What a function reports when its search found nothing.
NOT_STARTED: dict[str, Any] = {"outcome": "retry", "reason": "not_started"}
NAME = "clips/a.mp4"
OUTPUT = [("results", NAME)]
# Events that end a start that is not in doubt, and events that make it wait.
ENDS = {
    "gone": "delete from storage.objects",
    "superseded": "update storage.objects set version = 'newer', metadata = metadata || '{\"eTag\": \"newer\"}'",
    "moved": "update storage.objects set name = 'elsewhere/a.mp4', version = 'moved'",
    "rule_deleted": "delete from ittybit.rules",
}
WAITS = {
    "disabled": "update ittybit.rules set enabled = false",
    "paused": "select ittybit.pause()",
    "held": "insert into ittybit.holds (scope, probe_at) values ('all', now() + interval '1 hour')",
    "ceiling": "insert into ittybit.starts values (date_trunc('hour', now()) - interval '2 hours', 0, 5000)",
}


@pytest.fixture(params=["unreported", "reported"])
def doubtful(request: pytest.FixtureRequest, database: Project) -> Project:
    """A project whose only job, clips/a.mp4, may have been started by attempt 1."""
    database.rule(path="clips/*", task=TASK)
    database.put(NAME)
    [lease] = database.claim("push-back")
    if request.param == "reported":
        database.report(lease, "retry", in_doubt=True, error=BUSY)
    return database


def do(database: Project, statement: str, *, seen: bool = True) -> None:
    """Run a statement of Storage or of a person, with the triggers or without them."""
    if seen:
        with database.superuser.transaction():
            database.superuser.execute("select set_config('storage.allow_delete_query', 'true', true)")
            database.superuser.execute(statement.encode())
    else:
        with triggers_off(database):
            database.superuser.execute(statement.encode())


def first(database: Project) -> Row:
    """Return the first job: an overwrite may have made another one."""
    return database.jobs()[0]


def look(database: Project) -> Row:
    """Make the first job due, and claim it. Its last lease, if it was never reported, ended long ago."""
    ended = "update ittybit.jobs set due_at = now(), claimed_at = claimed_at - interval '1 hour' where id = %s"
    database.sql(ended, first(database)["id"])
    [lease] = database.claim("push-back", 1)
    assert lease["job"] == str(first(database)["id"])
    return lease


def restart(database: Project) -> None:
    """Report that the search could not decide whether it was started."""
    database.report(look(database), "undecided")


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "missed"])
@pytest.mark.parametrize(("reason", "statement"), ENDS.items(), ids=ENDS)
def test_a_start_in_doubt_ends_only_after_it_was_looked_for(
    doubtful: Project, reason: str, statement: str, seen: bool
) -> None:
    since = first(doubtful)["in_doubt_since"]
    do(doubtful, statement, seen=seen)
    assert first(doubtful)["state"] == "queued"
    lease = look(doubtful)
    assert (lease["step"], datetime.fromisoformat(lease["since"])) == ("search", since)

    doubtful.report(lease, **NOT_STARTED)
    doubtful.claim("push-back")
    after = first(doubtful)
    ended = {"moved": "gone"}.get(reason, reason)
    assert (after["state"], after["reason"], after["due_at"], after["in_doubt_since"]) == ("skipped", ended, None, None)
    assert doubtful.counted_starts() == 0
    assert doubtful.sql("select from ittybit.outputs where job = %s", after["id"]) == []


@pytest.mark.parametrize("statement", WAITS.values(), ids=WAITS)
def test_a_start_in_doubt_is_looked_for_while_starts_are_kept_back(doubtful: Project, statement: str) -> None:
    do(doubtful, statement)
    lease = look(doubtful)
    assert lease["step"] == "search"
    doubtful.report(lease, **NOT_STARTED)
    # From here on it waits like any other job, and does not count as a start.
    assert doubtful.job()["in_doubt_since"] is None
    assert (doubtful.work("push-back"), doubtful.claim("push-back"), doubtful.counted_starts()) == (0, [], 0)


@pytest.mark.parametrize("statement", [*ENDS.values(), *WAITS.values()], ids=[*ENDS, *WAITS])
def test_a_start_that_is_found_counts_as_the_jobs_start(doubtful: Project, statement: str) -> None:
    do(doubtful, statement)
    assert "refused" not in doubtful.report(look(doubtful), "started", ittybit_id="tasks/1")
    started = first(doubtful)
    assert (started["state"], started["reason"], started["in_doubt_since"]) == ("started", None, None)
    assert OUTPUT[0] in doubtful.outputs()
    assert doubtful.counted_starts() == 1


def test_a_start_in_doubt_counts_only_once_towards_the_ceiling(doubtful: Project) -> None:
    doubtful.settings(starts_per_hour=2)
    left = "select ittybit.starts_left()"
    for _ in range(3):
        lease = look(doubtful)
        assert doubtful.value(left) == 1
        doubtful.report(lease, "retry", in_doubt=True, error=BUSY)
    doubtful.report(look(doubtful), "started", ittybit_id="tasks/1")
    assert (doubtful.value(left), doubtful.counted_starts()) == (1, 1)


@pytest.mark.parametrize(("in_doubt", "least", "most"), [(True, 290, 300), (False, -10, 0)])
def test_a_search_that_ittybit_refuses_is_not_repeated_at_every_tick(
    doubtful: Project, in_doubt: bool, least: int, most: int
) -> None:
    doubtful.report(look(doubtful), "hold", error={"status": 401}, in_doubt=in_doubt)
    assert least <= doubtful.seconds_left() <= most
    assert (doubtful.job()["in_doubt_since"] is not None) == in_doubt
    assert doubtful.work("push-back") == 0


@pytest.mark.parametrize("in_doubt", [True, False])
def test_a_start_that_may_still_take_effect_is_looked_for_after_a_minute(
    database: Project, lease: Row, in_doubt: bool
) -> None:
    database.report(lease, "retry", in_doubt=in_doubt)
    assert (database.seconds_left() > 59) == in_doubt
    assert database.next_lease()["step"] == ("search" if in_doubt else "start")


def test_a_start_that_did_not_happen_is_due_at_once_as_if_nothing_had_been(doubtful: Project) -> None:
    lease = look(doubtful)
    failures = first(doubtful)["failures"]
    doubtful.report(lease, **NOT_STARTED)
    job = first(doubtful)
    assert (job["state"], job["in_doubt_since"], job["failures"]) == ("queued", None, failures)
    again = doubtful.claim("push-back", 1)
    assert [(one["step"], one["mark"]) for one in again] == [("start", lease["mark"])]


def test_the_next_attempt_gets_how_far_the_search_came(doubtful: Project) -> None:
    far = {"down_to": "task_1", "oldest": "2026-01-01T00:00:00Z"}
    assert look(doubtful)["searched"] == {}
    doubtful.report(look(doubtful), "retry", reason="searching", in_doubt=True, searched=far)
    assert look(doubtful)["searched"] == far
    # An attempt that dies, and one that fails before it searches, change nothing.
    lease = look(doubtful)
    assert lease["searched"] == far
    doubtful.report(lease, "hold", error={"status": 401}, in_doubt=True)
    lease = look(doubtful)
    assert lease["searched"] == far
    assert doubtful.report(lease, "retry", in_doubt=True, searched=5)["refused"]
    doubtful.report(lease, **NOT_STARTED)
    assert doubtful.job()["searched"] is None


def test_a_start_that_certainly_failed_reserves_no_output(doubtful: Project) -> None:
    assert doubtful.outputs() == OUTPUT
    doubtful.report(look(doubtful), "retry", error=BUSY)
    assert doubtful.outputs() == []
    # A person may put something there, and it is an upload.
    doubtful.rule("everything", bucket_id="results")
    doubtful.put(NAME, bucket="results")
    assert [job["state"] for job in doubtful.jobs()] == ["queued", "queued"]


def test_a_start_that_stays_in_doubt_is_repeated_only_once(doubtful: Project) -> None:
    doubtful.report(look(doubtful), "undecided", error={"message": "too many"})
    job = doubtful.job()
    assert (job["state"], job["undecided"], job["error"]) == ("queued", True, {"message": "too many"})
    assert doubtful.counted_starts() == 1
    assert "could not tell whether it had started: it is started once more" in because(doubtful)

    lease = look(doubtful)
    assert lease["step"] == "start"

    # The restart is in doubt too. It is looked for, and then the job fails.
    doubtful.report(lease, "retry", in_doubt=True)
    lease = look(doubtful)
    assert lease["step"] == "search"
    doubtful.report(lease, "undecided")
    assert doubtful.states() == [(NAME, "failed", "undecided")]
    assert (doubtful.job()["due_at"], doubtful.counted_starts()) == (None, 2)
    assert because(doubtful) == "started once more, because the search could not tell whether it had started"
    # The result may still arrive.
    assert doubtful.outputs() == OUTPUT


def because(database: Project) -> str:
    [row] = database.sql("select because from ittybit.explain('uploads', 'clips/a.mp4')")
    return str(row["because"])


@pytest.mark.parametrize("statement", WAITS.values(), ids=WAITS)
def test_a_restart_waits_like_any_start_without_being_used_up(doubtful: Project, statement: str) -> None:
    restart(doubtful)
    do(doubtful, statement)
    assert doubtful.claim("push-back") == []
    assert (doubtful.job()["undecided"], doubtful.job()["state"]) == (True, "queued")


@pytest.mark.parametrize("reason", ["gone", "superseded", "rule_deleted"])
def test_a_restart_is_skipped_like_any_start(doubtful: Project, reason: str) -> None:
    restart(doubtful)
    do(doubtful, ENDS[reason])
    assert (first(doubtful)["state"], first(doubtful)["reason"]) == ("skipped", reason)


@pytest.mark.parametrize("is_restart", [False, True])
def test_a_renamed_object_keeps_its_start_in_doubt(doubtful: Project, is_restart: bool) -> None:
    if is_restart:
        restart(doubtful)
    job = doubtful.job()["id"]
    doubtful.move(NAME, "clips/b.mp4")
    assert [(row["id"], row["name"], row["state"]) for row in doubtful.jobs()] == [(job, "clips/b.mp4", "queued")]
    assert look(doubtful)["step"] == ("start" if is_restart else "search")


def test_a_renamed_object_is_not_skipped_as_gone(doubtful: Project) -> None:
    doubtful.report(look(doubtful), **NOT_STARTED)
    lease = look(doubtful)
    doubtful.move(NAME, "clips/b.mp4")
    doubtful.report(lease, "skipped", reason="gone")
    assert doubtful.states() == [("clips/b.mp4", "queued", None)]
    assert look(doubtful)["name"] == "clips/b.mp4"


def test_uploading_the_same_bytes_again_keeps_a_start_in_doubt(database: Project) -> None:
    database.rule()
    database.put("a.mp4", etag="same")
    [lease] = database.claim()
    version = database.put("a.mp4", etag="same")
    job = database.job()
    assert (str(job["id"]), job["version"], job["state"]) == (lease["job"], version, "queued")


def test_a_late_report_of_a_start_reopens_a_skipped_job_and_reserves_its_output(database: Project) -> None:
    database.rule(task=TASK)
    database.put(NAME)
    [lease] = database.claim("push-back")
    database.delete(NAME)
    database.make_due()
    [search] = database.claim("push-back")
    database.report(search, **NOT_STARTED)
    assert database.claim("push-back") == []
    assert (database.job()["state"], database.outputs()) == ("skipped", [])
    assert "refused" not in database.report(lease, "started", ittybit_id="tasks/1")
    assert (database.job()["state"], database.outputs()) == ("started", OUTPUT)
    # The result starts nothing.
    database.rule("everything", bucket_id="results", accept_s3=True)
    database.put(NAME, bucket="results", operation="storage.s3.upload")
    assert len(database.jobs()) == 1


def test_when_two_starts_have_happened_both_are_named_and_counted(doubtful: Project) -> None:
    lease = look(doubtful)
    doubtful.report(lease, "started", ittybit_id="tasks/2")
    answer = doubtful.report(lease, "started", ittybit_id="tasks/1")
    assert answer["refused"] == "started as tasks/2"
    for outcome in ("started", "succeeded"):
        doubtful.report(doubtful.next_lease(), outcome, ittybit_id="tasks/2", progress=50)
        assert doubtful.job()["reason"] == "also started as tasks/1"
    assert (doubtful.job()["ittybit_id"], doubtful.counted_starts()) == ("tasks/2", 2)


REPORTS: list[dict[str, Any]] = [
    {"outcome": "started", "ittybit_id": "tasks/1"},
    {"outcome": "succeeded", "ittybit_id": "tasks/1"},
    {"outcome": "failed", "ittybit_id": "tasks/1"},
    {"outcome": "failed"},
    {"outcome": "skipped"},
    {"outcome": "retry"},
    {"outcome": "hold", "error": {"status": 402}},
    {"outcome": "undecided"},
]


@pytest.mark.parametrize("fields", REPORTS, ids=lambda fields: " ".join(map(str, fields.values())))
def test_a_report_of_a_former_generation_does_not_count(doubtful: Project, fields: dict[str, Any]) -> None:
    old = look(doubtful)
    doubtful.report(old, "failed", ittybit_id="tasks/0")
    assert doubtful.value("select ittybit.retry(%s)", old["job"])
    [new] = doubtful.claim("push-back")
    assert (new["generation"], new["attempt"], new["step"]) == (2, old["attempt"] + 1, "start")
    before = doubtful.job()
    for attempt in (old["attempt"], new["attempt"]):
        answer = doubtful.report(old | {"attempt": attempt}, **fields)
        assert answer == {"job": old["job"], "refused": "of another generation"}
    assert (doubtful.job(), doubtful.sql("select from ittybit.holds")) == (before, [])


def test_marks_differ_between_rules_contents_and_generations(database: Project) -> None:
    database.rule("one")
    database.rule("two")
    database.put("a.mp4")
    leases = database.claim()
    database.reports(*(report(lease, "failed") for lease in leases))
    database.sql("select ittybit.retry(id) from ittybit.jobs")
    leases += database.claim()
    database.put("a.mp4")
    leases += database.claim()
    assert len({lease["mark"] for lease in leases}) == len(leases) == 6
