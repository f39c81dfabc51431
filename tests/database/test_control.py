"""What a person does: pause, resume, retry, and look at the status."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from tests.database.project import TASK, Project, report
from tests.database.rows import Row
from tests.database.without_triggers import store

BUSY = {"service": "ittybit", "status": 503, "message": "later"}


def retry(database: Project, job: uuid.UUID) -> bool:
    return bool(database.value("select ittybit.retry(%s)", job))


def status(database: Project) -> dict[str, str]:
    return {row["what"]: row["value"] for row in database.sql("select * from ittybit.status")}


def test_a_pause_stops_starts_at_once_while_recording_and_checks_go_on(waiting: Project) -> None:
    waiting.put("started.mp4")
    waiting.started("started.mp4", "runs/1")
    waiting.messages()
    for _ in range(2):
        waiting.sql("select ittybit.pause()")
    waiting.put("meanwhile.mp4")
    assert (waiting.messages(), waiting.job("meanwhile.mp4")["state"]) == ([], "queued")
    waiting.make_due()
    assert [job["step"] for job in waiting.claim()] == ["check"]

    for _ in range(2):
        waiting.sql("select ittybit.resume()")
    assert waiting.work() == 4
    waiting.put("afterwards.mp4")
    assert len(waiting.messages()) == 1


def test_resuming_after_the_daily_ceiling_counts_from_zero(database: Project) -> None:
    database.rule()
    database.settings(starts_per_day=2)
    database.put(*(f"{number}.mp4" for number in range(5)))

    def start_all() -> int:
        leases = database.claim()
        database.reports(*(report(one, "started", ittybit_id=f"runs/{one['job']}") for one in leases))
        return len(leases)

    assert (start_all(), start_all()) == (2, 0)
    assert status(database)["starting"].startswith("TRIPPED at ")
    # Neither a higher ceiling nor another day ends that.
    database.settings(starts_per_day=100)
    database.sql("update ittybit.starts set hour = hour - interval '30 hours'")
    assert start_all() == 0

    database.sql("update ittybit.starts set hour = hour + interval '30 hours'")
    database.settings(starts_per_day=2)
    database.sql("select ittybit.resume()")
    assert status(database)["starts in 24 hours"] == "0 of 2"
    assert status(database)["starts this hour"] == "2 of 1000"
    assert start_all() == 2
    assert status(database)["starting"].startswith("TRIPPED at ")


def test_resuming_does_not_reset_the_hourly_ceiling(waiting: Project) -> None:
    waiting.settings(starts_per_hour=1)
    waiting.sql("insert into ittybit.starts values (date_trunc('hour', now()), 1, 1)")
    waiting.sql("select ittybit.resume()")
    assert waiting.work() == 0


@pytest.mark.parametrize("state", ["failed", "skipped", "succeeded"])
def test_a_finished_job_can_be_retried(database: Project, state: str) -> None:
    database.rule(task=TASK)
    database.put("a.mp4")
    [lease] = database.claim("push-back")
    fields = {"ittybit_id": "tasks/1", "outputs": ["s3://results/a.mp4"]} if state == "succeeded" else {"error": BUSY}
    database.report(lease, state, reason="corrupt", **fields)
    job = database.job()["id"]
    database.sql("update ittybit.jobs set searched = '{}'")  # as after the adoption of a copy
    assert retry(database, job)

    again = database.job()
    assert (again["state"], again["generation"], again["attempt"]) == ("queued", 2, 1)
    cleared = (
        "ittybit_id",
        "outputs",
        "reason",
        "error",
        "in_doubt_since",
        "searched",
        "claimed_at",
        "finished_at",
        "failing_since",
    )
    assert [again[column] for column in cleared] == [None] * len(cleared)
    [second] = database.claim("push-back")
    assert (second["attempt"], second["step"], second["mark"]) == (2, "start", f"{job}.2")
    assert second["mark"] != lease["mark"]
    # Reports of the former generation no longer count.
    assert database.report(lease, "started", ittybit_id="tasks/1")["refused"] == "of another generation"
    assert "refused" not in database.report(second, "started", ittybit_id="tasks/2")
    assert database.outputs() == [("results", "a.mp4")]
    assert retry(database, job) is False


@pytest.mark.parametrize("state", ["queued", "started"])
def test_a_retry_leaves_waiting_and_running_jobs_alone(database: Project, lease: Row, state: str) -> None:
    if state == "started":
        database.report(lease, "started", ittybit_id="runs/1")
    before = database.job()
    assert retry(database, before["id"]) is False
    assert database.job() == before


def test_retrying_an_unknown_job_or_one_without_a_destination_is_refused(database: Project) -> None:
    with pytest.raises(psycopg.errors.NoDataFound, match="there is no job"):
        retry(database, uuid.uuid4())
    database.rule(task=TASK | {"destination": "s3://results/{owner_id}/{stem}.mp4"})
    database.put("a.mp4")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no place for its result"):
        retry(database, database.job()["id"])
    assert database.states() == [("a.mp4", "skipped", "no_destination")]


def test_retrying_a_job_whose_result_would_be_its_source_is_refused(database: Project) -> None:
    database.rule(task=TASK | {"destination": "s3://uploads/{dir}{stem}.mp4"})
    database.put("a.mp4")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no place for its result"):
        retry(database, database.job()["id"])


def test_retrying_the_job_of_a_deleted_object_skips_it_as_gone(database: Project, lease: Row) -> None:
    database.report(lease, "failed", error=BUSY)
    database.delete("a.mp4")
    assert retry(database, database.job()["id"])
    assert database.claim() == []
    assert database.states() == [("a.mp4", "skipped", "gone")]


def test_all_failed_jobs_of_a_rule_can_be_retried_at_once(database: Project) -> None:
    database.rule()
    database.rule("other", automation_id="other")
    database.put("1.mp4", "2.mp4", "3.mp4")
    database.sql("update ittybit.jobs set state = 'failed', due_at = null where name <> '3.mp4'")
    assert database.value("select ittybit.retry_failed('clips')") == 2
    assert database.value("select ittybit.retry_failed('clips')") == 0
    assert sorted((job["rule"], job["state"], job["generation"]) for job in database.jobs()) == [
        *(("clips", "queued", generation) for generation in (1, 2, 2)),
        *(("other", state, 1) for state in ("failed", "failed", "queued")),
    ]


def test_retrying_many_jobs_leaves_out_locked_ones(database: Project) -> None:
    database.rule()
    database.put("1.mp4", "2.mp4")
    database.sql("update ittybit.jobs set state = 'failed', due_at = null, finished_at = now()")
    with database.connect("postgres") as other, other.transaction():
        other.execute("select from ittybit.jobs where name = '1.mp4' for update")
        assert database.value("select ittybit.retry_failed('clips')") == 1
    assert database.value("select ittybit.retry_failed('clips')") == 1


def test_failed_jobs_without_a_destination_do_not_stop_the_retry_of_others(database: Project) -> None:
    database.rule(task=TASK)
    database.put("1.mp4", "2.mp4")
    database.sql("update ittybit.jobs set state = 'failed', due_at = null, finished_at = now()")
    database.sql(
        """update ittybit.jobs set action = jsonb_set(action, '{task,destination}', 'null') where name = '1.mp4'"""
    )
    assert database.value("select ittybit.retry_failed('clips')") == 1
    assert sorted(database.states()) == [("1.mp4", "failed", None), ("2.mp4", "queued", None)]


STARTING = {
    "yes": ["select"],
    "PAUSED: select ittybit.resume() to go on": [
        "select ittybit.pause()",
        "update ittybit.settings set tripped_at = now()",
    ],
    "TRIPPED at 2026-01-02 03:04:05+00 by starts_per_day: select ittybit.resume() to go on": [
        "update ittybit.settings set tripped_at = '2026-01-02 03:04:05Z'"
    ],
    "waiting for the next hour: starts_per_hour is reached": ["update ittybit.settings set starts_per_hour = 0"],
    "waiting until earlier starts are a day old: starts_per_day is reached": [
        "update ittybit.settings set starts_per_day = 0"
    ],
    "NOT SET UP: the functions have no addresses": [
        "update ittybit.functions set url = null",
        "delete from ittybit.rules",
    ],
    "NOT SET UP: on-upload has no address": ["update ittybit.functions set url = null"],
    "NOT SET UP: push-back has no address": [
        "update ittybit.functions set url = null where name = 'push-back'",
        """update ittybit.rules set automation_id = null, task = '{"kind": "video", "destination": "s3://results/{name}"}'""",
    ],
    "NOT SET UP: on-upload has no address, push-back has no address": [
        "update ittybit.functions set url = null",
        """insert into ittybit.rules (name, bucket_id, run) values ('r', 'b', '{"tasks": [{"kind": "video"}]}')""",
    ],
    "on-upload was woken at 2026-01-02 03:04:05+00 and has claimed nothing since; the last answer: none": [
        "update ittybit.functions set awaited_since = '2026-01-02 03:04:05Z' where name = 'on-upload'"
    ],
}


@pytest.mark.parametrize(("says", "statements"), STARTING.items(), ids=STARTING)
def test_the_status_says_whether_anything_starts_and_what_to_do(
    database: Project, says: str, statements: list[str]
) -> None:
    database.rule()
    for statement in statements:
        database.sql(statement)
    assert status(database)["starting"] == says


def test_the_status_counts_jobs_and_starts_and_names_holds(database: Project) -> None:
    at_rest = {
        "starting": "yes",
        "starts this hour": "0 of 1000",
        "starts in 24 hours": "0 of 5000",
        "held": "nothing",
        "waiting": "0, the oldest since -",
        "waiting from a backfill": "0",
        "at ittybit": "0",
        "claimed by a function": "0",
        "starts in doubt": "0",
        "lost more than once": "0",
        "results to delete": "0",
        "failed": "0",
    }
    assert status(database) == at_rest
    store(database, "old/1.mp4", "old/2.mp4", age=3600)
    database.rule()
    database.put("started.mp4", "doubtful.mp4", "failed.mp4", "done.mp4", "lost.mp4")
    leases = {one["name"]: one for one in database.claim()}
    database.report(leases["started.mp4"], "started", ittybit_id="runs/1")
    database.report(leases["doubtful.mp4"], "retry", in_doubt=True)
    database.report(leases["failed.mp4"], "failed")
    database.report(leases["done.mp4"], "succeeded", ittybit_id="runs/2")
    database.sql("update ittybit.jobs set lost = 2 where name = 'lost.mp4'")
    database.put("waiting.mp4")
    database.sql("select ittybit.backfill('clips', run => true)")
    database.sql("select ittybit.backfill_page()")
    database.sql(
        "insert into ittybit.holds (scope, since, probe_at, error)"
        """ values ('all', '2026-01-02 03:04:05Z', now(), '{"message": "no credit"}')"""
    )
    oldest = database.value("select created_at::text from ittybit.jobs where name = 'waiting.mp4'")
    assert status(database) == at_rest | {
        "starts this hour": "2 of 1000",
        "starts in 24 hours": "2 of 5000",
        "held": "all since 2026-01-02 03:04:05+00: no credit",
        "waiting": f"1, the oldest since {oldest}",
        "waiting from a backfill": "2",
        "at ittybit": "1",
        "claimed by a function": "1",
        "starts in doubt": "1",
        "lost more than once": "1",
        "failed": "1",
    }


def test_deleting_a_rule_deletes_its_hold(database: Project) -> None:
    database.rule()
    database.sql("insert into ittybit.holds (scope, probe_at) values ('rule:clips', now()), ('all', now())")
    database.sql("delete from ittybit.rules")
    assert [row["scope"] for row in database.sql("select scope from ittybit.holds")] == ["all"]
