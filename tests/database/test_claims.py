"""A claim leases due jobs in their order, each to one caller, and says what to do with them."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import psycopg
import pytest

from tests.database.cost import pages
from tests.database.project import PROJECT, RUN, TASK, Project, claim, report, upload
from tests.database.rows import Row, rows
from tests.database.without_triggers import triggers_off
from tests.waiting import until

# Each object's name begins with its kind.
OPEN = """
insert into storage.objects (bucket_id, name, version)
select 'uploads', kind || '/' || n, 'v' from unnest(%(kinds)s::text[]) as kind, generate_series(1, %(count)s) as n;
insert into ittybit.jobs (
  rule, bucket_id, name, version, action, function, state, ittybit_id, in_doubt_since, backfill, due_at
)
select
  'clips', 'uploads', kind || '/' || n, 'v', '{"automation_id": "auto_1"}', 'on-upload',
  case kind when 'check' then 'started' else 'queued' end,
  case kind when 'check' then 'runs/' || n end,
  case kind when 'doubt' then now() end,
  kind = 'backfill',
  now() + %(due_in)s * interval '1 s' + n * interval '1 ms'
from unnest(%(kinds)s::text[]) as kind, generate_series(1, %(count)s) as n;
"""
ONE_OUTPUT = TASK | {"destination": "s3://results/one.mp4"}


def open_jobs(database: Project, count: int, *kinds: str, due_in: int = -3600) -> None:
    """Make ``count`` open jobs of each kind."""
    with triggers_off(database), psycopg.ClientCursor(database.superuser) as cursor:
        cursor.execute(OPEN, {"count": count, "kinds": list(kinds), "due_in": due_in})
        cursor.execute("analyze ittybit.jobs")


def names(leases: list[Row]) -> list[str]:
    return [lease["name"] for lease in leases]


def overlapping_claims(database: Project, function: str, jobs: int) -> tuple[list[Row], list[Row]]:
    """Claim twice, the second time before the first claim is committed."""
    with database.connect("authenticator") as other:
        other.execute("set role service_role")
        waits = "select from pg_locks where locktype = 'advisory' and not granted"
        with ThreadPoolExecutor(1) as threads, other.transaction():
            first = claim(other, function, jobs)
            second = threads.submit(database.claim, function, jobs)
            until(lambda: second.done() or rows(database.superuser, waits))
        return first, second.result()


def test_a_claimed_start_has_everything_that_the_function_needs(lease: Row, database: Project) -> None:
    job = database.job()
    assert lease == {
        "job": str(job["id"]),
        "generation": 1,
        "attempt": 1,
        "step": "start",
        "mark": f"{job['id']}.1",
        "bucket": "uploads",
        "name": "a.mp4",
        "version": job["version"],
        "public": False,
        "action": {"automation_id": "auto_1"},
    }


def test_a_claimed_search_has_everything_that_the_function_needs(lease: Row, database: Project) -> None:
    job = database.job()
    search = database.next_lease()
    assert database.value("select %s::timestamptz between now() - interval '5 s' and clock_timestamp()", search["now"])
    assert datetime.fromisoformat(search["since"]) == job["in_doubt_since"]
    assert search | {"now": None, "since": None} == {
        "job": lease["job"],
        "generation": 1,
        "attempt": 2,
        "step": "search",
        "mark": lease["mark"],
        "since": None,
        "searched": {},
        "now": None,
        "action": {"automation_id": "auto_1"},
    }


def test_claiming_a_task_fills_in_its_destination_and_reserves_it(database: Project) -> None:
    database.rule(bucket_id="published", task=TASK)
    database.put("clips/a.mov", bucket="published")
    assert (database.claim(), database.outputs()) == ([], [])
    [lease] = database.claim("push-back")
    assert lease["action"] == {"task": TASK | {"destination": "s3://results/clips/a.mp4"}}
    assert lease["public"]
    assert database.outputs() == [("results", "clips/a.mp4")]


def test_claiming_a_run_fills_in_its_destinations_and_reserves_each(database: Project) -> None:
    database.rule(run=RUN)
    database.put("clips/a.mov")
    [lease] = database.claim("push-back")
    filled = json.dumps(RUN).replace("{dir}{stem}", "clips/a")
    assert lease["action"] == {"run": json.loads(filled)}
    assert database.outputs() == [("results", "clips/a.jpeg"), ("results", "clips/a.mp4")]


def test_a_started_job_is_checked_during_a_pause(lease: Row, database: Project) -> None:
    database.report(lease, "started", ittybit_id="runs/1")
    database.settings(paused=True)
    database.make_due()
    named = {"job": lease["job"], "generation": 1, "attempt": 2}
    assert database.claim() == [named | {"step": "check", "ittybit_id": "runs/1"}]
    assert database.claim() == []


@pytest.mark.parametrize(
    ("function", "jobs", "message"),
    [
        ("on_upload", 1, 'there is no function "on_upload"'),
        (None, 1, 'there is no function "<NULL>"'),
        ("on-upload", 0, "jobs must be 1 to 100, not 0"),
        ("on-upload", 101, "jobs must be 1 to 100, not 101"),
        ("on-upload", None, "jobs must be 1 to 100, not null"),
    ],
)
def test_a_claim_with_bad_arguments_is_refused_with_the_reason(
    waiting: Project, function: Any, jobs: Any, message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        waiting.claim(function, jobs)
    assert len(waiting.claim()) == 3


@pytest.mark.parametrize("project", ["https://another.test", PROJECT + "/", None])
def test_another_projects_claim_is_refused_and_changes_nothing(lease: Row, database: Project, project: Any) -> None:
    database.put("b.mp4")
    before = database.jobs(), database.sql("select * from ittybit.functions")
    with pytest.raises(psycopg.errors.RaiseException, match=f"was set up for {PROJECT}, and the function works for"):
        database.claim("on-upload", 1, report(lease, "started", ittybit_id="runs/1"), project=project)
    assert (database.jobs(), database.sql("select * from ittybit.functions")) == before


def test_the_first_claim_binds_the_ledger_to_its_project(database: Project) -> None:
    database.settings(project=None)
    database.claim(project="https://first.test")
    assert database.value("select project from ittybit.settings") == "https://first.test"
    for statement in ("select", "delete from ittybit.settings"):
        database.sql(statement)
        with pytest.raises(psycopg.errors.RaiseException, match="was set up for"):
            database.claim()


def test_simultaneous_claims_lease_each_job_once(database: Project) -> None:
    database.rule()
    database.put(*(f"{number:02}.mp4" for number in range(40)))
    claimed = database.claims_at_once(5, jobs=10)
    assert sorted(name for leases in claimed for name in names(leases)) == sorted(
        job["name"] for job in database.jobs()
    )
    assert {job["attempt"] for job in database.jobs()} == {1}


def test_overlapping_claims_lease_each_job_once(database: Project) -> None:
    database.rule()
    database.put(*(f"{number}.mp4" for number in range(6)))
    # The first claim after a wake-up updates the function's row, for which the next claim waits.
    [before] = database.claim(jobs=1)
    first, second = overlapping_claims(database, "on-upload", 3)
    assert sorted(names([before, *first, *second])) == [f"{number}.mp4" for number in range(6)]


def test_overlapping_claims_do_not_exceed_a_ceiling(database: Project) -> None:
    database.rule()
    database.settings(starts_per_hour=5)
    database.put(*(f"{number}.mp4" for number in range(16)))
    first, second = overlapping_claims(database, "on-upload", 3)
    assert (len(first), len(second)) == (3, 2)
    # A start in doubt counts. Once it is reported as started, it counts as that instead.
    database.reports(*(report(lease, "started", ittybit_id=f"runs/{lease['job']}") for lease in first + second))
    assert (database.claim(), database.counted_starts()) == ([], 5)


def test_the_daily_ceiling_stops_starts_until_a_person_resumes(waiting: Project) -> None:
    waiting.settings(starts_per_day=2)
    first, second = waiting.claim()
    tripped = "select tripped_at is not null from ittybit.settings"
    waiting.report(first, "started", ittybit_id="runs/1")
    assert not waiting.value(tripped)
    waiting.report(second, "started", ittybit_id="runs/2")
    assert waiting.value(tripped)
    # A day later.
    waiting.sql("update ittybit.starts set hour = hour - interval '25 hours'")
    assert (waiting.claim(), waiting.wake()) == ([], 0)
    waiting.settings(tripped_at=None)
    assert names(waiting.claim()) == ["3.mp4"]


def test_claims_take_doubts_then_uploads_then_backfills_and_keep_an_eighth_for_checks(database: Project) -> None:
    database.rule()
    database.settings(starts_per_hour=100_000)
    open_jobs(database, 4, "doubt")
    open_jobs(database, 30, "check", "live", "backfill")
    ids = "select name from ittybit.work('on-upload', %s) with ordinality as w (id, place) join ittybit.jobs using (id)"
    for most, expected in (
        (20, {"doubt": 4, "check": 2, "live": 14}),
        (44, {"doubt": 4, "check": 5, "live": 30, "backfill": 5}),
        (90, {"doubt": 4, "check": 26, "live": 30, "backfill": 30}),
    ):
        kinds = [row["name"].partition("/")[0] for row in database.sql(f"{ids} order by place", most)]
        # Each kind is together, except that the checks beyond the eighth come last, if there is room.
        assert Counter(kinds) == expected
        assert list(dict.fromkeys(kinds)) == list(expected)
    assert database.names(database.claim(jobs=5)) == [*(f"doubt/{n}" for n in range(1, 5)), "check/1"]


@pytest.mark.parametrize("step", ["start", "check"])
def test_the_lease_doubles_after_each_lost_one_until_a_report(lease: Row, database: Project, step: str) -> None:
    if step == "check":
        database.report(lease, "started", ittybit_id="runs/1")
        database.next_lease()
    leases = [database.seconds_left()]
    for _ in range(7):
        database.pass_time(3601)
        [lease] = database.claim()
        if step == "start":
            assert lease["step"] == "search"
            assert database.seconds_left() == pytest.approx(60, abs=2)
            database.report(lease, "retry", reason="not_started")
            [lease] = database.claim()
        leases.append(database.seconds_left())
    assert leases == pytest.approx([60, 120, 240, 480, 960, 1920, 3600, 3600], abs=2)
    assert (lease["step"], database.job()["lost"]) == (step, 7)
    database.report(lease, "retry")
    assert database.job()["lost"] == 0
    database.next_lease()
    assert database.seconds_left() == pytest.approx(60, abs=2)


@pytest.mark.usefixtures("lease")
def test_a_search_that_is_lost_is_repeated_every_minute(database: Project) -> None:
    for _ in range(4):
        database.pass_time(61)
        [search] = database.claim()
        assert (search["step"], database.job()["lost"]) == ("search", 1)
        assert database.seconds_left() == pytest.approx(60, abs=2)


def test_the_search_for_a_lost_start_goes_back_to_its_first_claim(lease: Row, database: Project) -> None:
    assert lease["step"] == "start"
    since = database.job()["in_doubt_since"]
    for _ in range(2):
        assert datetime.fromisoformat(database.next_lease()["since"]) == since


def test_a_claim_does_not_wait_for_locked_rows(waiting: Project) -> None:
    waiting.sql("insert into ittybit.holds (scope, probe_at) values ('all', now())")
    waiting.service.execute("set statement_timeout = '5s'")
    with waiting.connect("supabase_admin") as other, other.transaction(force_rollback=True):
        # Locked by an upload in a long transaction, and by another claim's report.
        other.execute("select from ittybit.jobs where name = '1.mp4' for update")
        other.execute("update ittybit.holds set probe_at = now() + interval '5 minutes'")
        assert names(waiting.claim()) == ["2.mp4"]
    waiting.service.execute("reset statement_timeout")


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        ("delete from ittybit.rules", "rule_deleted"),
        ("delete from storage.objects", "gone"),
        ("update storage.objects set name = 'b.mp4'", "gone"),
        ("update storage.objects set version = 'newer'", "superseded"),
    ],
)
def test_a_claim_skips_waiting_jobs_that_must_no_longer_start(database: Project, happened: str, reason: str) -> None:
    database.rule()
    database.put("a.mp4")
    with triggers_off(database):
        database.superuser.execute(happened.encode())
    assert database.claim() == []
    assert database.states() == [("a.mp4", "skipped", reason)]
    assert (database.job()["due_at"], database.work()) == (None, 0)


@pytest.mark.parametrize("overwrites", [False, True], ids=["fixed key", "overwrite"])
def test_a_task_waits_until_another_task_with_the_same_output_has_ended(database: Project, overwrites: bool) -> None:
    database.rule(task=TASK if overwrites else ONE_OUTPUT)
    database.put("a.mp4")
    [first] = database.claim("push-back")
    name = "a.mp4" if overwrites else "b.mp4"
    database.put(name)
    second = "select due_at - now() as wait, attempt from ittybit.jobs where id <> %s"
    for _ in range(2):
        assert database.claim("push-back") == []
        [row] = database.sql(second, first["job"])
        assert 14 < row["wait"].total_seconds() <= 15
        assert row["attempt"] == 0
        [waiting] = database.sql("select because from ittybit.explain('uploads', %s) where attempts = 0", name)
        assert waiting["because"] == "another job writes the same key, and goes first"
        database.sql("update ittybit.jobs set due_at = now() where id <> %s", first["job"])
        database.report(first, "started", ittybit_id="tasks/1")
    [check] = [one for one in claim_when_due(database) if one["step"] == "check"]
    database.report(check, "succeeded", ittybit_id="tasks/1")
    database.make_due()
    assert [one["step"] for one in database.claim("push-back")] == ["start"]


def test_a_run_waits_while_another_job_may_write_one_of_its_results(database: Project) -> None:
    fixed = upload("s3://results/one.jpeg")
    database.rule(run={"tasks": [{"kind": "video", "next": [upload("s3://results/{stem}.mp4"), fixed]}]})
    database.put("a.mov")
    [first] = database.claim("push-back")
    # Both wait for the first. Later, one claim starts only one of them.
    database.put("b.mov", "c.mov")
    assert database.claim("push-back") == []
    assert database.outputs() == [("results", "a.mp4"), ("results", "one.jpeg")]
    database.report(first, "failed", ittybit_id="runs/1")
    assert database.outputs() == []
    [second] = claim_when_due(database)
    assert database.outputs() == [("results", f"{second['name'][0]}.mp4"), ("results", "one.jpeg")]
    database.report(second, "retry")
    assert database.outputs() == []


def claim_when_due(database: Project) -> list[Row]:
    database.make_due()
    return database.claim("push-back")


def test_overlapping_claims_start_only_one_of_several_jobs_for_the_same_output(database: Project) -> None:
    database.rule(task=ONE_OUTPUT)
    database.put(*(f"{number}.mp4" for number in range(6)))
    first, second = overlapping_claims(database, "push-back", 2)
    assert (len(first), len(second)) == (1, 0)


def test_the_cost_of_an_empty_claim_does_not_grow_with_the_open_jobs(database: Project) -> None:
    database.rule()
    open_jobs(database, 35_000, "check", "live", "backfill", due_in=60)
    # Reading the dead rows of other tests would count.
    database.superuser.execute("vacuum ittybit.jobs")
    statement = f"select public.ittybit_claim('on-upload', '{PROJECT}', 32)"
    with database.connect("supabase_admin") as connection:
        # Leave out what a session reads once; then measure with generic plans, as in long-lived sessions.
        for mode in ("auto", "force_generic_plan"):
            connection.execute(f"set plan_cache_mode = {mode}".encode())
            pages(connection, statement)
            assert pages(connection, statement) < 100
        [row] = rows(connection, f"{statement} as answer")
        assert row["answer"]["jobs"] == []
        database.sql("update ittybit.jobs set due_at = now() where name in ('live/3', 'check/7')")
        assert database.work() == 2


def test_the_jobs_of_a_disabled_rule_do_not_hold_up_others(database: Project) -> None:
    database.rule("first")
    database.rule("second", automation_id="auto_2")
    database.put(*(f"{number}.mp4" for number in range(5)))
    database.sql("update ittybit.rules set enabled = false where name = 'first'")
    with database.connect("authenticator") as connection:
        connection.execute("set role service_role")
        assert len(claim(connection, "on-upload", 3)) == 3
