"""When jobs run, as whom, and what is recorded of each run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from local.pg_cron import PgCronWorker, is_due
from local.postgres import Postgres
from tests.waiting import until


@pytest.fixture
def worker(postgres: Postgres) -> Iterator[PgCronWorker]:
    worker = PgCronWorker(postgres)
    worker.start()
    yield worker
    worker.stop()
    with psycopg.connect(postgres.dsn("supabase_admin")) as connection:
        connection.execute("truncate cron.job, cron.job_run_details")
        connection.execute("drop table if exists public.runs")


def runs_of(connection: psycopg.Connection, job: int, status: str) -> list[tuple[str, str, str]]:
    return connection.execute(
        "select username, command, return_message from cron.job_run_details"
        " where jobid = %s and status = %s order by runid",
        [job, status],
    ).fetchall()


def schedule(connection: psycopg.Connection, schedule: str, command: str, name: str = "job") -> int:
    answer = connection.execute("select cron.schedule(%s, %s, %s)", [name, schedule, command]).fetchone()
    assert answer is not None
    return int(answer[0])


@pytest.mark.usefixtures("worker")
def test_a_job_runs_as_the_user_who_made_it(postgres: Postgres, database: psycopg.Connection) -> None:
    with psycopg.connect(postgres.dsn("supabase_admin"), autocommit=True) as admin:
        admin.execute("create table public.runs (who text default current_user)")
        jobs = {
            "postgres": schedule(database, "1 second", "insert into public.runs default values"),
            "supabase_admin": schedule(admin, "1 seconds", "insert into public.runs default values"),
        }
        until(lambda: admin.execute("select count(distinct who) from public.runs").fetchone() == (2,))
        for user, job in jobs.items():
            runs = until(lambda job=job: runs_of(admin, job, "succeeded"))  # type: ignore[misc]
            assert runs[0] == (user, "insert into public.runs default values", "INSERT 0 1")
        span = "select start_time <= end_time, job_pid > 0, database from cron.job_run_details limit 1"
        assert database.execute(span).fetchone() == (True, True, "postgres")


@pytest.mark.usefixtures("worker")
def test_a_failing_job_says_why_and_is_rolled_back(database: psycopg.Connection) -> None:
    database.execute("create table public.runs (n int)")
    job = schedule(database, "1 seconds", "insert into public.runs values (1); select 1 / 0")
    failed = until(lambda: runs_of(database, job, "failed"))
    assert failed[0][2].startswith("ERROR:  division by zero")
    assert database.execute("select count(*) from public.runs").fetchone() == (0,)


@pytest.mark.usefixtures("worker")
def test_runs_of_a_job_never_overlap(database: psycopg.Connection) -> None:
    database.execute("create table public.runs (began timestamptz, ended timestamptz)")
    job = schedule(
        database,
        "1 seconds",
        "insert into public.runs select now(), clock_timestamp() from (select pg_sleep(1.2)) _",
    )
    until(lambda: len(runs_of(database, job, "succeeded")) == 2)
    gap = database.execute("select extract(epoch from max(began) - min(ended))::float from public.runs").fetchone()
    assert gap is not None
    assert 0 <= gap[0] < 1, "the second run follows the first at once"


@pytest.mark.usefixtures("worker")
def test_an_unscheduled_job_runs_no_more(database: psycopg.Connection) -> None:
    job = schedule(database, "1 seconds", "select 1")
    assert until(lambda: runs_of(database, job, "succeeded"))[0][2] == "1 row"
    database.execute("select cron.unschedule('job')")
    count = len(runs_of(database, job, "succeeded"))
    other = schedule(database, "1 seconds", "select 2", "other")
    until(lambda: len(runs_of(database, other, "succeeded")) == 2)
    assert len(runs_of(database, job, "succeeded")) <= count + 1, "at most the run that was in progress"


@pytest.mark.usefixtures("worker")
def test_jobs_go_on_after_a_restart_of_the_server_and_it_is_recorded(postgres: Postgres) -> None:
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        job = schedule(connection, "1 seconds", "select pg_sleep(60)")
        until(lambda: runs_of(connection, job, "running"))
    postgres.crash()
    postgres.restart()
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        assert until(lambda: runs_of(connection, job, "failed"))[0][2] == "server restarted"
        schedule(connection, "1 seconds", "select 1")
        assert until(lambda: runs_of(connection, job, "succeeded"))[0][1] == "select 1"


def test_scheduling_the_same_name_again_changes_the_job(database: psycopg.Connection) -> None:
    with database.transaction(force_rollback=True):
        first = schedule(database, "* * * * *", "select 1")
        assert schedule(database, "59 seconds", "select 2") == first
        jobs = "select schedule, command, username, active from cron.job"
        assert database.execute(jobs).fetchall() == [("59 seconds", "select 2", "postgres", True)]
        database.execute("select cron.alter_job(%s, command => 'select 3', active => false)", [first])
        assert database.execute(jobs).fetchall() == [("59 seconds", "select 3", "postgres", False)]


@pytest.mark.parametrize(
    "expression",
    ["60 seconds", "0 seconds", "1 minute", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
     "* * * * 8", "1-5 * * * *", "*/0 * * * *", "a * * * *", ""],
)  # fmt: skip
def test_an_invalid_schedule_is_refused(database: psycopg.Connection, expression: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="invalid schedule: "):
        schedule(database, expression, "select 1")


def test_nobody_unschedules_anothers_job(postgres: Postgres, database: psycopg.Connection) -> None:
    with psycopg.connect(postgres.dsn("supabase_admin")) as admin:
        job = schedule(admin, "* * * * *", "select 1")
        admin.commit()
        with pytest.raises(psycopg.errors.InternalError, match="could not find valid entry for job"):
            database.execute("select cron.unschedule(%s)", [job])
        admin.execute("select cron.unschedule('job')")
        assert admin.execute("select count(*) from cron.job").fetchone() == (0,)


@pytest.mark.parametrize(
    ("expression", "minute", "due"),
    [
        ("* * * * *", "2026-11-24T03:07", True),
        ("7 3 24 11 2", "2026-11-24T03:07", True),
        ("*/5 * * * *", "2026-11-24T03:07", False),
        ("*/5 * * * *", "2026-11-24T03:10", True),
        ("0 */2 * * *", "2026-11-24T04:00", True),
        ("0 */2 * * *", "2026-11-24T03:00", False),
        ("* * * * 0", "2026-11-22T00:00", True),
        ("* * * * 7", "2026-11-22T00:00", True),
        ("* * * * 1", "2026-11-22T00:00", False),
        ("* * 1 * 2", "2026-11-24T00:00", True),
        ("* * 1 * *", "2026-11-24T00:00", False),
    ],
)
def test_cron_expressions(expression: str, minute: str, due: bool) -> None:
    assert is_due(expression, datetime.fromisoformat(minute).replace(tzinfo=UTC)) is due
