"""Starts in doubt: claimed and never reported, or reported so. They are looked for whatever has happened since."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import pytest

from tests.database.project import TASK, Project
from tests.database.rows import Row
from tests.database.unseen import triggers_off

OVER = "insert into ittybit.starts values (date_trunc('hour', now()) - interval '2 hours', 0, 5000)"
BUSY = {"service": "ittybit", "status": 503, "message": "later"}
# What ends a start that is not in doubt, and what makes one wait.
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
    "ceiling": OVER,
}


@pytest.fixture(params=["unreported", "reported"])
def doubtful(request: pytest.FixtureRequest, database: Project) -> Project:
    """A project whose only job, clips/a.mp4, may have been started by attempt 1."""
    database.rule(path="clips/*", task=TASK)
    database.put("clips/a.mp4")
    job = database.job()["id"]
    assert database.claim(job, 1)["claimed"]
    if request.param == "reported":
        assert database.report(job, 1, "retry", in_doubt=True, error=BUSY)["applied"]
    database.messages()
    return database


def do(database: Project, statement: str, *, seen: bool = True) -> None:
    """Run a statement that storage or a person would, the triggers seeing it or not."""
    if seen:
        with database.superuser.transaction():
            database.superuser.execute("select set_config('storage.allow_delete_query', 'true', true)")
            database.superuser.execute(statement.encode())
    else:
        with triggers_off(database):
            database.superuser.execute(statement.encode())


def doubtful_job(database: Project) -> Row:
    """Return the first job: an overwrite may have made another one."""
    return database.jobs()[0]


def next_claim(database: Project) -> tuple[Row, int]:
    """Let the doubtful job's wait end, have it sent and claim it."""
    job = doubtful_job(database)
    database.sql("update ittybit.jobs set due_at = now() where id = %s", job["id"])
    database.send()
    sent = [message["body"] for message in database.messages() if message["body"]["job"] == str(job["id"])]
    assert sent == [{"job": str(job["id"]), "attempt": job["attempt"] + 1}]
    return database.claim(job["id"], job["attempt"] + 1), job["attempt"] + 1


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "missed"])
@pytest.mark.parametrize(("reason", "statement"), ENDS.items(), ids=ENDS)
def test_what_would_end_a_start_does_not_end_one_in_doubt_until_it_was_looked_for(
    doubtful: Project, reason: str, statement: str, seen: bool
) -> None:
    job = doubtful_job(doubtful)
    do(doubtful, statement, seen=seen)
    assert doubtful_job(doubtful)["state"] == "queued"
    answer, attempt = next_claim(doubtful)
    assert (answer["claimed"], answer["step"]) == (True, "start")
    assert datetime.fromisoformat(answer["look_since"]) == job["doubt_since"]
    ended = {"moved": "gone"}.get(reason, reason)
    assert answer["otherwise"] == {"outcome": "skipped", "reason": ended}

    doubtful.report(job["id"], attempt, **answer["otherwise"])
    after = doubtful_job(doubtful)
    assert (after["state"], after["reason"], after["due_at"], after["doubt_since"]) == ("skipped", ended, None, None)
    assert doubtful.counted_starts() == 0


@pytest.mark.parametrize(("reason", "statement"), WAITS.items(), ids=WAITS)
def test_what_holds_a_start_back_does_not_keep_one_in_doubt_from_being_looked_for(
    doubtful: Project, reason: str, statement: str
) -> None:
    do(doubtful, statement)
    counted = doubtful.counted_starts()
    answer, attempt = next_claim(doubtful)
    assert answer["look_since"] is not None
    assert answer["otherwise"] == {"outcome": "retry", "reason": reason}
    assert doubtful.counted_starts() == counted == 1

    doubtful.report(doubtful.job()["id"], attempt, **answer["otherwise"])
    job = doubtful.job()
    assert (job["state"], job["reason"], job["doubt_since"]) == ("queued", reason, None)
    assert doubtful.counted_starts() == 0
    # From here on it waits like any other.
    doubtful.make_due()
    assert doubtful.send() == 0


@pytest.mark.parametrize("statement", [*ENDS.values(), *WAITS.values()], ids=[*ENDS, *WAITS])
def test_what_was_started_all_the_same_is_followed(doubtful: Project, statement: str) -> None:
    do(doubtful, statement)
    _, attempt = next_claim(doubtful)
    job = doubtful_job(doubtful)["id"]
    assert doubtful.report(job, attempt, "started", ittybit_id="task_1")["applied"]
    started = doubtful_job(doubtful)
    assert (started["state"], started["reason"], started["doubt_since"]) == ("started", None, None)
    assert ("results", "clips/a.mp4") in doubtful.outputs()
    assert doubtful.counted_starts() == 1


def test_a_start_in_doubt_counts_once_however_often_it_is_looked_for(doubtful: Project) -> None:
    job = doubtful.job()["id"]
    for _ in range(3):
        _, attempt = next_claim(doubtful)
        doubtful.report(job, attempt, "retry", in_doubt=True, error=BUSY)
        assert doubtful.counted_starts() == 1
    _, attempt = next_claim(doubtful)
    doubtful.report(job, attempt, "started", ittybit_id="task_1")
    assert doubtful.counted_starts() == 1


def test_a_start_that_did_not_happen_is_given_back_to_the_hour_that_it_was_counted_in(doubtful: Project) -> None:
    doubtful.sql("update ittybit.starts set hour = hour - interval '3 hours'")
    doubtful.sql("update ittybit.jobs set doubt_since = doubt_since - interval '3 hours'")
    doubtful.sql("insert into ittybit.starts values (date_trunc('hour', now()), 7, 7)")
    _, attempt = next_claim(doubtful)
    doubtful.report(doubtful.job()["id"], attempt, "skipped", reason="gone")
    counts = doubtful.sql("select claimed, towards_day from ittybit.starts order by hour")
    assert counts == [{"claimed": 0, "towards_day": 0}, {"claimed": 7, "towards_day": 7}]


@pytest.mark.parametrize(("in_doubt", "least", "most"), [(True, 290, 300), (False, -10, 0)])
def test_what_ittybit_refuses_to_say_is_not_asked_at_every_tick(
    doubtful: Project, in_doubt: bool, least: int, most: int
) -> None:
    _, attempt = next_claim(doubtful)
    doubtful.report(doubtful.job()["id"], attempt, "hold", error={"status": 401}, in_doubt=in_doubt)
    assert least <= doubtful.seconds_left() <= most
    assert (doubtful.job()["doubt_since"] is not None) == in_doubt
    assert doubtful.send() == 0


def test_what_cannot_be_found_out_is_started_once_more_and_never_twice(doubtful: Project) -> None:
    job = doubtful.job()["id"]
    _, attempt = next_claim(doubtful)
    assert doubtful.report(job, attempt, "undecided", error={"message": "too many"}) == {
        "applied": True,
        "state": "queued",
    }
    assert (doubtful.job()["restart"], doubtful.job()["error"]) == ("due", {"message": "too many"})
    assert "could not be found out: it is started once more" in because(doubtful)

    answer, attempt = next_claim(doubtful)
    assert (answer["step"], answer["look_since"], answer["otherwise"]) == ("start", None, None)
    assert (doubtful.job()["restart"], doubtful.counted_starts()) == ("done", 2)

    # The restart comes into doubt as well: it is looked for, and that is the end of it.
    doubtful.report(job, attempt, "retry", in_doubt=True)
    answer, attempt = next_claim(doubtful)
    assert answer["look_since"] is not None
    assert doubtful.report(job, attempt, "undecided") == {"applied": True, "state": "failed"}
    assert (doubtful.job()["reason"], doubtful.job()["due_at"]) == ("undecided", None)
    assert because(doubtful) == "started again after a start whose outcome could not be found out"
    # It may still be written.
    assert doubtful.outputs() == [("results", "clips/a.mp4")]


def because(database: Project) -> str:
    [row] = database.sql("select because from ittybit.explain('uploads', 'clips/a.mp4')")
    return str(row["because"])


@pytest.mark.parametrize(("reason", "statement"), WAITS.items(), ids=WAITS)
def test_a_restart_waits_like_any_start_and_is_not_used_up_by_it(
    doubtful: Project, reason: str, statement: str
) -> None:
    _, attempt = next_claim(doubtful)
    job = doubtful.job()["id"]
    doubtful.report(job, attempt, "undecided")
    doubtful.make_due()
    assert doubtful.send() == 1
    do(doubtful, statement)
    assert doubtful.claim(job, attempt + 1) == {"claimed": False, "reason": reason}
    assert doubtful.send() == 0
    assert (doubtful.job()["restart"], doubtful.job()["state"]) == ("due", "queued")


@pytest.mark.parametrize("reason", ["gone", "superseded", "rule_deleted"])
def test_a_restart_is_ended_like_any_start(doubtful: Project, reason: str) -> None:
    _, attempt = next_claim(doubtful)
    doubtful.report(doubtful.job()["id"], attempt, "undecided")
    do(doubtful, ENDS[reason])
    assert (doubtful_job(doubtful)["state"], doubtful_job(doubtful)["reason"]) == ("skipped", reason)


@pytest.mark.parametrize("restart", [False, True])
def test_a_rename_within_reach_carries_a_start_in_doubt(doubtful: Project, restart: bool) -> None:
    job = doubtful.job()["id"]
    if restart:
        _, attempt = next_claim(doubtful)
        doubtful.report(job, attempt, "undecided")
    doubtful.move("clips/a.mp4", "clips/b.mp4")
    assert [(row["id"], row["name"], row["state"]) for row in doubtful.jobs()] == [(job, "clips/b.mp4", "queued")]
    answer, _ = next_claim(doubtful)
    assert (answer["name"], answer["otherwise"], answer["look_since"] is None) == ("clips/b.mp4", None, restart)


@pytest.mark.parametrize(
    "said",
    [
        {"outcome": "skipped", "reason": "gone"},
        {"outcome": "failed", "reason": "rejected", "error": {"service": "storage", "status": 400}},
        {"outcome": "undecided"},
        {"outcome": "hold", "error": {"service": "ittybit", "status": 402}},
    ],
    ids=lambda said: said["outcome"],
)
def test_what_an_attempt_says_of_a_former_name_is_not_said_of_the_new_one(
    doubtful: Project, said: dict[str, Any]
) -> None:
    job = doubtful.job()["id"]
    _, attempt = next_claim(doubtful)
    doubtful.move("clips/a.mp4", "clips/b.mp4")
    before = doubtful.job()
    assert not doubtful.report(job, attempt, **said)["applied"]
    assert doubtful.job() == before
    answer, attempt = next_claim(doubtful)
    assert (answer["name"], answer["otherwise"]) == ("clips/b.mp4", None)
    assert doubtful.report(job, attempt, "started", ittybit_id="task_1")["applied"]
    assert doubtful.counted_starts() == 1


def test_an_attempt_that_was_not_claimed_before_a_rename_speaks_for_the_new_name(doubtful: Project) -> None:
    job = doubtful.job()
    doubtful.make_due()
    doubtful.send()
    doubtful.move("clips/a.mp4", "clips/b.mp4")
    answer = doubtful.claim(job["id"], job["attempt"] + 1)
    assert (answer["claimed"], answer["name"]) == (True, "clips/b.mp4")
    doubtful.delete("clips/b.mp4")
    doubtful.report(job["id"], job["attempt"] + 1, "skipped", reason="gone")
    assert doubtful.states() == [("clips/b.mp4", "skipped", "gone")]


def test_the_same_bytes_again_carry_a_start_in_doubt(database: Project) -> None:
    database.rule()
    database.put("a.mp4", etag="same")
    job = database.job()["id"]
    database.claim(job, 1)
    version = database.put("a.mp4", etag="same")
    assert [(row["id"], row["version"], row["state"]) for row in database.jobs()] == [(job, version, "queued")]


def test_a_late_start_beats_skipped_and_reserves_its_output_again(doubtful: Project) -> None:
    job = doubtful.job()["id"]
    doubtful.delete("clips/a.mp4")
    answer, attempt = next_claim(doubtful)
    doubtful.report(job, attempt, **answer["otherwise"])
    assert (doubtful.job()["state"], doubtful.outputs()) == ("skipped", [])
    assert doubtful.report(job, 1, "started", ittybit_id="task_1")["applied"]
    started = doubtful.job()
    assert (started["state"], started["ittybit_id"], started["finished_at"]) == ("started", "task_1", None)
    assert doubtful.outputs() == [("results", "clips/a.mp4")]
    # From the result's side: it starts nothing.
    doubtful.rule("everything", bucket_id="results", accept_s3=True)
    doubtful.put("clips/a.mp4", bucket="results", operation="storage.s3.upload")
    assert doubtful.value("select reason from ittybit.jobs where rule = 'everything'") == "output"


def test_two_starts_after_all_are_both_named_to_the_end(doubtful: Project) -> None:
    job = doubtful.job()["id"]
    _, attempt = next_claim(doubtful)
    doubtful.report(job, attempt, "started", ittybit_id="task_2")
    assert not doubtful.report(job, 1, "started", ittybit_id="task_1")["applied"]
    for outcome in ("started", "succeeded"):
        doubtful.report(job, attempt, outcome, ittybit_id="task_2", progress=50)
        assert doubtful.job()["reason"] == "also started as task_1"
    assert doubtful.job()["ittybit_id"] == "task_2"


@pytest.mark.parametrize("outcome", ["retry", "hold", "undecided", "skipped", "failed"])
def test_a_report_said_twice_counts_once(claimed: Project, outcome: str) -> None:
    claimed.sql("update ittybit.starts set claimed = 5, towards_day = 5")
    job = claimed.job()["id"]
    fields: dict[str, Any] = {"error": BUSY}
    assert claimed.report(job, 1, outcome, **fields)["applied"]
    before = claimed.job()
    assert not claimed.report(job, 1, outcome, **fields)["applied"]
    assert claimed.job() == before
    assert before["failures"] == (1 if outcome == "retry" else 0)
    assert claimed.counted_starts() == (5 if outcome == "undecided" else 4)


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": "started", "ittybit_id": "task_1"},
        {"outcome": "succeeded", "ittybit_id": "task_1"},
        {"outcome": "failed", "ittybit_id": "task_1"},
        {"outcome": "failed"},
        {"outcome": "skipped"},
        {"outcome": "retry"},
        {"outcome": "hold", "error": {"status": 402}},
        {"outcome": "undecided"},
    ],
    ids=lambda fields: " ".join(str(value) for value in fields.values()),
)
def test_what_a_former_generation_says_is_not_of_this_one(doubtful: Project, fields: dict[str, Any]) -> None:
    job = doubtful.job()["id"]
    doubtful.report(job, 1, "failed", ittybit_id="task_0")
    assert doubtful.value("select ittybit.retry(%s)", job)
    before = doubtful.job()
    for attempt in range(1, before["attempt"] + 1):
        assert doubtful.report(job, attempt, **fields) == {"applied": False, "state": "queued"}
        assert doubtful.claim(job, attempt) == {"claimed": False, "reason": "lost"}
    assert doubtful.job() == before
    assert doubtful.sql("select from ittybit.holds") == []


def test_the_marks_of_two_rules_two_contents_and_two_generations_differ(database: Project) -> None:
    database.rule("one")
    database.rule("two")
    database.put("a.mp4")
    database.put("a.mp4")
    marks = []
    for job in database.jobs():
        if job["state"] == "queued":
            marks.append(database.claim(job["id"], 1)["mark"])
            database.report(job["id"], 1, "failed")
            database.sql("select ittybit.retry(%s)", job["id"])
            assert database.send() == 1
            marks.append(database.claim(job["id"], 3)["mark"])
    assert [mark.partition(".")[2] for mark in marks] == ["1", "2", "1", "2"]
    assert len(set(marks)) == 4
    assert len({uuid.UUID(mark.partition(".")[0]) for mark in marks}) == 2
