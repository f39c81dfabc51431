"""With the functions down for days and a ledger of any size, no job ends, and the oldest start first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.database.cost import pages, rows_scanned, with_kept_plans
from tests.database.project import Project, report
from tests.database.rows import Row, put
from tests.database.without_triggers import triggers_off

DAYS = 4 * 86400
FINISHED = """
insert into ittybit.jobs (rule, bucket_id, name, version, action, function, state, attempt, finished_at)
select 'clips', 'uploads', 'old/' || n || '.mp4', n, '{"automation_id": "auto_1"}', 'on-upload', 'succeeded', 2, now()
from generate_series(1, 100000) as n
"""
WAITING = """
insert into ittybit.jobs (rule, bucket_id, name, action, function, due_at)
select 'clips', 'uploads', 'more/' || n, '{"automation_id": "auto_1"}', 'on-upload', now() - n * interval '1 ms'
from generate_series(1, 20000) as n
"""


@pytest.fixture
def outage(database: Project) -> Project:
    """A project whose 60 jobs, 000.mp4 and so on, wait for a function that is down."""
    database.rule()
    database.put(*numbered(0, 60))
    database.sql("update ittybit.jobs set due_at = due_at - (60 - left(name, 3)::integer) * interval '1 second'")
    database.messages()
    return database


def numbered(first: int, last: int) -> list[str]:
    return [f"{number:03}.mp4" for number in range(first, last)]


def answer(database: Project) -> list[str]:
    """Start one batch of due jobs, and return their objects' names in the order of the claim."""
    leases = [lease for lease in database.claim(jobs=20) if lease["step"] == "start"]
    database.reports(*(report(lease, "started", ittybit_id=f"runs/{lease['job']}") for lease in leases))
    return [lease["name"] for lease in leases]


def test_after_days_without_functions_no_job_has_ended_and_the_oldest_start_first(outage: Project) -> None:
    for day in range(4):
        outage.pass_time(DAYS / 4)
        assert outage.wake() >= 1
        outage.put(f"new/{day}.mp4")
    assert {(state, reason) for _, state, reason in outage.states()} == {("queued", None)}
    caught_up = [name for _ in range(5) for name in answer(outage)]
    assert caught_up == numbered(0, 60) + [f"new/{day}.mp4" for day in range(4)]


def test_jobs_that_are_never_reported_do_not_starve_the_others(outage: Project) -> None:
    outage.sql("update ittybit.jobs set lost = 50 where name < '040.mp4'")
    started: set[str] = set()
    for _ in range(60):
        for lease in outage.claim(jobs=10):
            if lease["step"] == "start" and lease["name"] >= "040.mp4":
                outage.report(lease, "started", ittybit_id=f"runs/{lease['name']}")
                started.add(lease["name"])
        outage.pass_time(5)
    assert started == set(numbered(40, 60))


def test_checks_are_caught_up_too_and_do_not_count_as_starts(outage: Project) -> None:
    outage.sql(
        "update ittybit.jobs set state = 'started', ittybit_id = 'runs/' || name, started_at = now()"
        " where name < '010.mp4'"
    )
    outage.settings(paused=True)
    outage.pass_time(DAYS)
    leases = outage.claim()
    assert sorted(lease["ittybit_id"] for lease in leases) == [f"runs/{name}" for name in numbered(0, 10)]
    outage.reports(*(report(lease, "succeeded", ittybit_id=lease["ittybit_id"]) for lease in leases))
    assert outage.counted_starts() == 0


@contextmanager
def old_snapshot(database: Project) -> Iterator[None]:
    """Keep a transaction open that sees the ledger as it is now, so that no dead row can be removed."""
    with database.connect("postgres") as connection:
        connection.execute("begin isolation level repeatable read")
        connection.execute("select count(*) from ittybit.jobs")
        yield
        connection.rollback()


def uploaded(database: Project, name: str) -> tuple[Row, int]:
    """Upload one object as storage does; return its job, and how many rows were read without an index."""
    with database.writing("storage.object.upload") as connection:
        put(connection, name)
        scanned = rows_scanned(connection, "ittybit.jobs") + rows_scanned(connection, "ittybit.outputs")
    return database.jobs(name)[-1], scanned


def removed(database: Project, name: str) -> int:
    with database.writing("storage.object.delete") as connection:
        connection.execute("delete from storage.objects where name = %s", [name])
        return rows_scanned(connection, "ittybit.jobs")


def cost_of_waking(database: Project) -> int:
    return cost(database, "select ittybit.wake_functions()")


def cost(database: Project, statement: str) -> int:
    """Return how many pages a statement reads in a session that has run it before."""
    with database.connect("supabase_admin") as connection:
        with_kept_plans(connection)
        # The first run reads what a session reads once.
        with connection.transaction(force_rollback=True):
            pages(connection, statement)
        return pages(connection, statement)


def test_an_upload_stays_cheap_with_a_hundred_thousand_finished_jobs_and_an_old_snapshot(database: Project) -> None:
    database.rule()
    # Remove the dead rows of other tests.
    database.superuser.execute("vacuum ittybit.jobs")
    with triggers_off(database):
        database.superuser.execute(FINISHED)
    with old_snapshot(database):
        # Make dead rows that cannot be removed.
        for _ in range(3):
            database.sql("update ittybit.jobs set attempt = attempt + 1 where name like 'old/1000%'")
        for name in ("0.mp4", "1.mp4", "0.mp4"):
            job, scanned = uploaded(database, name)
            assert (job["state"], scanned) == ("queued", 0)
        assert cost(database, "select ittybit.end_content('uploads', '2.mp4', null, 'superseded')") < 100
        assert removed(database, "1.mp4") == 0
        assert cost_of_waking(database) < 1000
        assert len(database.claim()) == 1


def test_the_cost_of_waking_does_not_grow_with_the_waiting_jobs(outage: Project) -> None:
    small = cost_of_waking(outage)
    outage.superuser.execute(WAITING)
    outage.superuser.execute("analyze ittybit.jobs")
    outage.sql("update ittybit.functions set awaited_since = null")
    outage.messages()
    large = cost_of_waking(outage)
    assert len(outage.messages()) == 8
    # It stops counting at the jobs for eight calls.
    assert large < small + 500
