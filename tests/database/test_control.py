"""What a person does: pause, resume, try again; and how things stand."""

from __future__ import annotations

import uuid

import psycopg
import pytest

from tests.database.project import TASK, Project
from tests.database.unseen import store

BUSY = {"service": "ittybit", "status": 503, "message": "later"}


def retry(database: Project, job: uuid.UUID) -> bool:
    return bool(database.value("select ittybit.retry(%s)", job))


def status(database: Project) -> dict[str, str]:
    return {row["what"]: row["value"] for row in database.sql("select * from ittybit.status")}


def nudge(database: Project) -> bool:
    return bool(database.value("select nudge from ittybit.settings"))


def test_a_pause_holds_starts_and_calls_back_at_once_and_records_go_on(waiting: Project) -> None:
    waiting.put("sent.mp4")
    waiting.put("started.mp4")
    started = waiting.started("started.mp4", "run_1")
    waiting.messages()
    waiting.sql("select ittybit.pause()")
    assert not nudge(waiting)
    waiting.put("meanwhile.mp4")
    assert waiting.messages() == []
    assert waiting.job("meanwhile.mp4")["state"] == "queued"
    assert waiting.claim(waiting.job("sent.mp4")["id"], 1) == {"claimed": False, "reason": "paused"}
    waiting.make_due()
    assert waiting.send() == 1
    [check] = waiting.messages()
    assert check["body"]["job"] == str(started["id"])

    waiting.sql("select ittybit.resume()")
    assert waiting.send() == 5
    assert nudge(waiting)


def test_a_pause_twice_and_a_resume_twice_change_nothing(waiting: Project) -> None:
    for _ in range(2):
        waiting.sql("select ittybit.pause()")
    assert waiting.send() == 0
    for _ in range(2):
        waiting.sql("select ittybit.resume()")
    assert waiting.send() == 3


def test_after_a_day_that_tripped_resuming_counts_anew(database: Project) -> None:
    database.rule()
    database.settings(starts_per_day=2)
    database.put(*(f"{number}.mp4" for number in range(5)))
    jobs = [job["id"] for job in database.jobs()]
    assert [database.claim(job, 1)["claimed"] for job in jobs] == [True, True, False, False, False]
    assert status(database)["starting"].startswith("TRIPPED at ")
    # Neither another ceiling nor another day undoes it.
    database.settings(starts_per_day=100)
    database.sql("update ittybit.starts set hour = hour - interval '30 hours'")
    assert database.send() == 0

    database.sql("update ittybit.starts set hour = hour + interval '30 hours'")
    database.settings(starts_per_day=2)
    database.sql("select ittybit.resume()")
    assert status(database)["starts in 24 hours"] == "0 of 2"
    assert status(database)["starts this hour"] == "2 of 1000"
    assert database.send() == 2
    attempts = {job["id"]: job["attempt"] for job in database.jobs()}
    assert [database.claim(job, attempts[job])["claimed"] for job in jobs[2:] if attempts[job] == 2] == [True, True]
    assert status(database)["starting"].startswith("TRIPPED at ")


def test_a_resume_leaves_the_hours_ceiling_alone(waiting: Project) -> None:
    waiting.settings(starts_per_hour=1)
    waiting.sql("insert into ittybit.starts values (date_trunc('hour', now()), 1, 1)")
    waiting.sql("select ittybit.resume()")
    assert waiting.send() == 0


@pytest.mark.parametrize("state", ["failed", "skipped", "succeeded"])
def test_a_finished_job_can_be_asked_for_again(database: Project, state: str) -> None:
    database.rule(task=TASK)
    database.put("a.mp4")
    job = database.job()["id"]
    old_mark = database.claim(job, 1)["mark"]
    fields = {"ittybit_id": "task_1", "outputs": ["s3://results/a.mp4"]} if state == "succeeded" else {"error": BUSY}
    database.report(job, 1, state, **fields)
    database.messages()
    assert retry(database, job)

    again = database.job()
    assert (again["state"], again["generation"], again["attempt"], again["claimed"]) == ("queued", 2, 2, 2)
    forgotten = ("ittybit_id", "outputs", "reason", "error", "doubt_since", "restart", "finished_at", "failing_since")
    assert [again[column] for column in forgotten] == [None] * len(forgotten)
    assert database.outputs() == [("results", "a.mp4")]
    assert database.send() == 1
    [message] = database.messages()
    assert message["body"] == {"job": str(job), "attempt": 3}
    answer = database.claim(job, 3)
    assert (answer["claimed"], answer["look_since"], answer["mark"]) == (True, None, f"{job}.2")
    assert answer["mark"] != old_mark
    assert database.report(job, 3, "started", ittybit_id="task_2")["applied"]
    assert retry(database, job) is False


@pytest.mark.parametrize("state", ["queued", "started"])
def test_what_waits_or_runs_is_left_alone(claimed: Project, state: str) -> None:
    if state == "started":
        claimed.report(claimed.job()["id"], 1, "started", ittybit_id="run_1")
    before = claimed.job()
    assert retry(claimed, before["id"]) is False
    assert claimed.job() == before


def test_a_job_that_is_not_there_or_has_no_place_for_its_result_is_refused(database: Project) -> None:
    with pytest.raises(psycopg.errors.NoDataFound, match="there is no job"):
        retry(database, uuid.uuid4())
    database.rule(task=TASK | {"destination": "s3://results/{owner_id}/{stem}.mp4"})
    database.put("a.mp4")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no place for its result"):
        retry(database, database.job()["id"])
    assert database.states() == [("a.mp4", "skipped", "no_destination")]


def test_a_result_that_would_be_the_object_itself_is_refused_again(database: Project) -> None:
    database.rule(task=TASK | {"destination": "s3://uploads/{dir}{stem}.mp4"})
    database.put("a.mp4")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no place for its result"):
        retry(database, database.job()["id"])


def test_asking_again_for_what_is_gone_ends_as_gone(claimed: Project) -> None:
    job = claimed.job()["id"]
    claimed.report(job, 1, "failed", error=BUSY)
    claimed.delete("a.mp4")
    assert retry(claimed, job)
    assert claimed.send() == 1
    assert claimed.claim(job, 3) == {"claimed": False, "reason": "gone"}


def test_all_failed_jobs_of_a_rule_can_be_asked_for_again(database: Project) -> None:
    database.rule()
    database.rule("other", automation_id="other")
    database.put("1.mp4", "2.mp4", "3.mp4")
    for job in database.jobs():
        database.claim(job["id"], 1)
        if job["name"] != "3.mp4":
            database.report(job["id"], 1, "failed")
    assert database.value("select ittybit.retry_failed('clips')") == 2
    assert database.value("select ittybit.retry_failed('clips')") == 0
    assert sorted((job["rule"], job["state"], job["generation"]) for job in database.jobs()) == [
        ("clips", "queued", 1),
        ("clips", "queued", 2),
        ("clips", "queued", 2),
        ("other", "failed", 1),
        ("other", "failed", 1),
        ("other", "queued", 1),
    ]


def test_asking_again_for_many_leaves_what_somebody_else_holds(database: Project) -> None:
    database.rule()
    database.put("1.mp4", "2.mp4")
    database.sql("update ittybit.jobs set state = 'failed', due_at = null, finished_at = now()")
    with database.connect("postgres") as other, other.transaction():
        other.execute("select from ittybit.jobs where name = '1.mp4' for update")
        assert database.value("select ittybit.retry_failed('clips')") == 1
    assert database.value("select ittybit.retry_failed('clips')") == 1


def test_failed_jobs_whose_rule_cannot_place_them_do_not_keep_the_others_back(database: Project) -> None:
    database.rule(task=TASK)
    database.put("1.mp4", "2.mp4")
    database.sql("update ittybit.jobs set state = 'failed', due_at = null, finished_at = now()")
    database.sql("""update ittybit.jobs set task = task || '{"destination": null}' where name = '1.mp4'""")
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
    "waiting for starts of a day ago to count no more: starts_per_day is reached": [
        "update ittybit.settings set starts_per_day = 0"
    ],
    "NOT SET UP: the functions' addresses are missing": [
        "update ittybit.settings set on_upload_url = null, push_back_url = null"
    ],
    "NOT SET UP: on_upload_url is missing": ["update ittybit.settings set on_upload_url = null"],
    "NOT SET UP: push_back_url is missing": [
        "update ittybit.settings set push_back_url = null",
        "update ittybit.rules set automation_id = null,"
        """ task = '{"kind": "video", "destination": "s3://results/{name}"}'""",
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


def test_the_status_of_a_project_at_rest(database: Project) -> None:
    assert status(database) == {
        "starting": "yes",
        "starts this hour": "0 of 1000",
        "starts in 24 hours": "0 of 5000",
        "held": "nothing",
        "waiting": "0, the oldest since -",
        "waiting from a backfill": "0",
        "at ittybit": "0",
        "calls without an answer": "0 of 100",
        "starts in doubt": "0",
        "failed": "0",
    }


def test_the_status_counts_what_there_is(database: Project) -> None:
    store(database, "old/1.mp4", "old/2.mp4", age=3600)
    database.rule()
    database.sql("select ittybit.backfill('clips', run => true)")
    database.sql("select ittybit.backfill_page()")
    database.put("sent.mp4", "started.mp4", "doubtful.mp4", "failed.mp4", "done.mp4")
    database.started("started.mp4", "run_1")
    database.claim(database.job("doubtful.mp4")["id"], 1)
    database.claim(database.job("failed.mp4")["id"], 1)
    database.report(database.job("failed.mp4")["id"], 1, "failed")
    database.started("done.mp4", "run_2")
    database.report(database.job("done.mp4")["id"], 1, "succeeded", ittybit_id="run_2")
    database.sql(
        "insert into ittybit.holds (scope, since, probe_at, error)"
        """ values ('all', '2026-01-02 03:04:05Z', now(), '{"message": "no credit"}')"""
    )
    oldest = database.value("select created_at::text from ittybit.jobs where name = 'sent.mp4'")
    assert status(database) == {
        "starting": "yes",
        "starts this hour": "3 of 1000",
        "starts in 24 hours": "3 of 5000",
        "held": "all since 2026-01-02 03:04:05+00: no credit",
        "waiting": f"2, the oldest since {oldest}",
        "waiting from a backfill": "2",
        "at ittybit": "1",
        "calls without an answer": "1 of 100",
        "starts in doubt": "1",
        "failed": "1",
    }


def test_a_hold_of_a_rule_goes_with_the_rule(database: Project) -> None:
    database.rule()
    database.sql("insert into ittybit.holds (scope, probe_at) values ('rule:clips', now()), ('all', now())")
    database.sql("delete from ittybit.rules")
    assert [row["scope"] for row in database.sql("select scope from ittybit.holds")] == ["all"]
