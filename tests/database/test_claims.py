"""Claims: one caller wins an attempt, ever, and learns what to do; every other one learns why not."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import pytest

from tests.database.project import TASK, Project
from tests.database.rows import Row

OVER = "insert into ittybit.starts values (date_trunc('hour', now()), 1000, 1000)"


@pytest.fixture
def sent(database: Project) -> Project:
    """A project with one job, clips/a.mp4, sent as attempt 1."""
    database.rule()
    database.put("clips/a.mp4")
    return database


def refused(reason: str) -> Row:
    return {"claimed": False, "reason": reason}


def test_a_start_is_told_everything_it_needs(sent: Project) -> None:
    job = sent.job()
    answer = sent.claim(job["id"], 1)
    assert sent.value("select %s::timestamptz between now() - interval '5 s' and clock_timestamp()", answer.pop("now"))
    assert answer == {
        "claimed": True,
        "step": "start",
        "otherwise": None,
        "mark": f"{job['id']}.1",
        "look_since": None,
        "bucket": "uploads",
        "name": "clips/a.mp4",
        "public": False,
        "automation_id": "auto_1",
        "task": None,
    }
    assert sent.counted_starts() == 1


def test_a_task_is_told_with_its_destination_filled_in(database: Project) -> None:
    database.rule(bucket_id="published", task=TASK)
    database.put("clips/a.mov", bucket="published")
    answer = database.claim(database.job()["id"], 1)
    assert answer["task"] == TASK | {"destination": "s3://results/clips/a.mp4"}
    assert (answer["public"], answer["automation_id"]) == (True, None)


def test_a_started_job_is_checked_and_counts_as_no_start(sent: Project) -> None:
    job = sent.started("clips/a.mp4", "run_1")
    sent.make_due()
    sent.settings(paused=True)
    assert sent.send() == 1
    assert sent.claim(job["id"], 2) == {"claimed": True, "step": "check", "ittybit_id": "run_1"}
    assert sent.claim(job["id"], 2) == refused("lost")
    assert sent.counted_starts() == 1


def test_of_ten_claims_at_once_one_wins(sent: Project) -> None:
    answers = sent.claims_at_once([(sent.job()["id"], 1)] * 10)
    assert sorted(answer["claimed"] for answer in answers) == [False] * 9 + [True]
    assert [answer["reason"] for answer in answers if not answer["claimed"]] == ["lost"] * 9
    assert sent.counted_starts() == 1


def test_only_the_attempt_that_was_sent_last_can_win(sent: Project) -> None:
    job = sent.job()["id"]
    assert sent.claim(job, 2) == refused("lost")
    sent.make_due()
    assert sent.send() == 1
    assert sent.claim(job, 1) == refused("lost")
    assert sent.claim(job, 2)["claimed"]


def test_a_won_claim_begins_the_lease_anew(sent: Project) -> None:
    sent.sql("update ittybit.jobs set due_at = now() + interval '1 second'")
    assert sent.claim(sent.job()["id"], 1)["claimed"]
    assert sent.value("select due_at > clock_timestamp() + interval '50 seconds' from ittybit.jobs")


def test_a_job_that_is_not_in_the_ledger_is_unknown(database: Project) -> None:
    assert database.claim(uuid.uuid4(), 1) == refused("unknown")


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        ("delete from ittybit.rules", "rule_deleted"),
        ("delete from storage.objects", "gone"),
        ("update storage.objects set name = 'b.mp4'", "gone"),
        ("update storage.objects set version = 'newer'", "superseded"),
    ],
)
def test_what_ends_a_waiting_job_is_seen_by_the_claim_as_well(sent: Project, happened: str, reason: str) -> None:
    # The triggers missed it.
    sent.superuser.execute(
        f"set session_replication_role = replica; {happened}; reset session_replication_role".encode()
    )
    job = sent.job()
    assert sent.claim(job["id"], 1) == refused(reason)
    assert sent.states() == [("clips/a.mp4", "skipped", reason)]
    assert sent.job()["due_at"] is None
    assert sent.counted_starts() == 0


@pytest.mark.parametrize("state", ["succeeded", "failed", "skipped"])
def test_a_finished_job_has_nothing_to_do(sent: Project, state: str) -> None:
    sent.sql("update ittybit.jobs set state = %s", state)
    assert sent.claim(sent.job()["id"], 1) == refused(state)
    assert sent.job()["due_at"] is None


WAITS = {
    "disabled": "update ittybit.rules set enabled = false",
    "paused": "update ittybit.settings set paused = true",
    "held": "insert into ittybit.holds (scope, probe_at) values ('rule:clips', now() + interval '5 minutes')",
    "ceiling": OVER,
}


@pytest.mark.parametrize(("reason", "statement"), WAITS.items(), ids=WAITS)
def test_what_makes_a_job_wait_uses_up_the_attempt_and_nothing_else(sent: Project, reason: str, statement: str) -> None:
    sent.sql(statement)
    job = sent.job()
    assert sent.claim(job["id"], 1) == refused(reason)
    waiting = sent.job()
    assert (waiting["state"], waiting["attempt"], waiting["doubt_since"]) == ("queued", 1, None)
    assert sent.value("select due_at <= now() from ittybit.jobs")
    assert sent.send() == 0

    # Delivered again after all is well, the same message must not win beside the next attempt.
    sent.sql("update ittybit.rules set enabled = true")
    sent.sql("delete from ittybit.holds")
    sent.sql("delete from ittybit.starts")
    sent.settings(paused=False)
    assert sent.claim(job["id"], 1) == refused("lost")
    assert sent.send() == 1
    assert sent.claim(job["id"], 2)["claimed"]


@pytest.mark.parametrize(
    "statement", ["update ittybit.settings set tripped_at = now()", "delete from ittybit.settings"]
)
def test_nothing_starts_when_tripped_or_without_settings(sent: Project, statement: str) -> None:
    sent.sql(statement)
    assert sent.claim(sent.job()["id"], 1) == refused("ceiling")


def test_the_probe_of_a_hold_may_start(database: Project) -> None:
    database.rule()
    database.put("1.mp4", "2.mp4")
    probe, other = (job["id"] for job in database.jobs())
    database.sql("insert into ittybit.holds (scope, probe_at, probe) values ('all', now(), %s)", probe)
    assert database.claim(other, 1) == refused("held")
    assert database.claim(probe, 1)["claimed"]


def test_claims_at_once_do_not_pass_a_ceiling(database: Project) -> None:
    database.rule()
    database.settings(starts_per_hour=3)
    database.put(*(f"{number}.mp4" for number in range(8)))
    answers = database.claims_at_once([(job["id"], 1) for job in database.jobs()])
    assert sum(answer["claimed"] for answer in answers) == 3
    assert database.counted_starts() == 3


def test_reaching_the_days_ceiling_trips_until_a_person_resumes(database: Project) -> None:
    database.rule()
    database.settings(starts_per_day=2)
    database.put("1.mp4", "2.mp4", "3.mp4")
    tripped = "select tripped_at is not null from ittybit.settings"
    first, second, third = (job["id"] for job in database.jobs())
    assert database.claim(first, 1)["claimed"]
    assert not database.value(tripped)
    assert database.claim(second, 1)["claimed"]
    assert database.value(tripped)
    # A day later.
    database.sql("update ittybit.starts set hour = hour - interval '25 hours'")
    assert database.claim(third, 1) == refused("ceiling")
    assert database.send() == 0
    database.settings(tripped_at=None)
    assert database.send() == 1
    assert database.claim(third, 2)["claimed"]


def test_a_lost_start_is_looked_for_since_it_was_claimed(sent: Project) -> None:
    job = sent.job()["id"]
    assert sent.claim(job, 1)["look_since"] is None
    since = sent.job()["doubt_since"]
    for attempt in (2, 3):
        sent.make_due()
        assert sent.send() == 1
        assert datetime.fromisoformat(sent.claim(job, attempt)["look_since"]) == since


@pytest.mark.parametrize(("in_doubt", "looked_for"), [(True, True), (False, False)])
def test_a_report_keeps_or_ends_the_doubt(sent: Project, in_doubt: bool, looked_for: bool) -> None:
    job = sent.job()["id"]
    sent.claim(job, 1)
    sent.report(job, 1, "retry", in_doubt=in_doubt)
    sent.make_due()
    sent.send()
    assert (sent.claim(job, 2)["look_since"] is not None) == looked_for


@pytest.mark.parametrize("task", [TASK | {"destination": "s3://results/one.mp4"}, TASK], ids=["fixed", "overwrite"])
def test_of_two_tasks_for_one_output_the_second_waits_for_the_first(database: Project, task: dict[str, Any]) -> None:
    database.rule(task=task)
    database.put("a.mp4")
    first = database.started("a.mp4", "task_1")
    database.put("a.mp4")
    second = next(job["id"] for job in database.jobs() if job["id"] != first["id"])
    assert database.claim(second, 1) == refused("output_busy")
    assert database.value(
        "select due_at - now() between interval '14 s' and interval '15 s' from ittybit.jobs where id = %s", second
    )
    database.report(first["id"], 1, "succeeded", ittybit_id="task_1")
    database.make_due()
    assert database.send() == 1
    assert database.claim(second, 2)["claimed"]


def test_of_claims_at_once_for_one_output_one_starts(database: Project) -> None:
    database.rule(task=TASK | {"destination": "s3://results/one.mp4"})
    database.put(*(f"{number}.mp4" for number in range(6)))
    answers = database.claims_at_once([(job["id"], 1) for job in database.jobs()])
    assert sum(answer["claimed"] for answer in answers) == 1
    assert {answer.get("reason") for answer in answers} == {None, "output_busy"}
