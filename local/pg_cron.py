"""pg_cron's background worker: runs the jobs of ``cron.job`` when they are due, each as its own user.

Follows pg_cron 1.6: a job's runs never overlap (a run that falls due meanwhile follows at once), an interval counts
from the last start, and ``cron.job_run_details`` keeps a row per run. Times are UTC. Leaves out: the settings
(``cron.max_running_jobs`` and the others), running in background workers, and the schedules that the schema ``cron``
in local/database refuses.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus
from psycopg.rows import class_row

from local.postgres import SUPERUSER, Postgres

_TICK: Final = 0.1  # seconds between two looks at the jobs and the clock
_JOBS: Final = "select jobid, schedule, command, database, username from cron.job where active"
_BEGUN: Final = """
insert into cron.job_run_details (jobid, job_pid, database, username, command, status, start_time)
values (%s, %s, %s, %s, %s, 'running', clock_timestamp()) returning runid
"""
_ENDED: Final = """
update cron.job_run_details set status = %s, return_message = %s, end_time = clock_timestamp() where runid = %s
"""
_INTERRUPTED: Final = """
update cron.job_run_details set status = 'failed', return_message = 'server restarted' where status = 'running'
"""


class _Job(NamedTuple):
    jobid: int
    schedule: str
    command: str
    database: str
    username: str


@dataclass
class _Task:
    """The worker's state of a job: when it last began, the minute it last looked at, runs owed, its current run."""

    begun: float
    minute: datetime
    owed: int = 0
    run: threading.Thread | None = None


@dataclass
class PgCronWorker:
    """The worker of one server, in a thread of its own between ``start`` and ``stop``."""

    postgres: Postgres
    _stopping: threading.Event = field(default_factory=threading.Event)
    _tasks: dict[int, _Task] = field(default_factory=dict)
    _connections: set[psycopg.Connection] = field(default_factory=set)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the worker; every job's interval begins to count now."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="pg_cron", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker and cancel the running jobs; does nothing when it is stopped."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for run in [task.run for task in self._tasks.values() if task.run is not None]:
            while run.is_alive():
                # Repeatedly, because a cancel before the statement has begun does nothing.
                for connection in list(self._connections):
                    connection.cancel()
                run.join(0.05)
        self._tasks.clear()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self.postgres.dsn(SUPERUSER), autocommit=True) as connection:
                    connection.execute(_INTERRUPTED)
                    while not self._stopping.wait(_TICK):
                        self._look(connection.cursor(row_factory=class_row(_Job)).execute(_JOBS).fetchall())
            except psycopg.Error:
                self._stopping.wait(1)

    def _look(self, jobs: list[_Job]) -> None:
        """Start the idle jobs that are due, and forget the jobs that were removed."""
        now, minute = time.monotonic(), datetime.now(UTC).replace(second=0, microsecond=0)
        for job in jobs:
            task = self._tasks.setdefault(job.jobid, _Task(now, minute))
            if (seconds := _interval(job.schedule)) is not None:
                task.owed = int(now - task.begun >= seconds)
            elif minute != task.minute:
                task.owed += is_due(job.schedule, minute)
            task.minute = minute
            if task.owed and (task.run is None or not task.run.is_alive()):
                task.owed -= 1
                task.begun = now
                task.run = threading.Thread(target=self._run_job, args=(job,), daemon=True)
                task.run.start()
        for jobid in self._tasks.keys() - {job.jobid for job in jobs}:
            if (run := self._tasks[jobid].run) is None or not run.is_alive():
                del self._tasks[jobid]

    def _run_job(self, job: _Job) -> None:
        dsn = make_conninfo(self.postgres.dsn(job.username, job.database), application_name="pg_cron")
        try:
            with (
                psycopg.connect(self.postgres.dsn(SUPERUSER), autocommit=True) as book,
                psycopg.connect(dsn, autocommit=True) as connection,
            ):
                values = [job.jobid, connection.info.backend_pid, job.database, job.username, job.command]
                begun = book.execute(_BEGUN, values).fetchone()
                self._connections.add(connection)
                try:
                    status, message = "succeeded", _execute(connection, job.command)
                except psycopg.Error as error:
                    status, message = "failed", _message(error)
                finally:
                    self._connections.discard(connection)
                book.execute(_ENDED, [status, message, begun and begun[0]])
        except psycopg.OperationalError:
            # The server is gone: the next connection marks the run as interrupted.
            return


def _execute(connection: psycopg.Connection, command: str) -> str:
    """Run the command, of any number of statements, in one transaction; return the last one's status."""
    cursor = connection.execute(command.encode())
    while cursor.nextset():
        pass
    if cursor.pgresult is not None and cursor.pgresult.status == ExecStatus.TUPLES_OK:
        return "1 row" if cursor.rowcount == 1 else f"{cursor.rowcount} rows"
    return cursor.statusmessage or ""


def _message(error: psycopg.Error) -> str:
    return error.pgresult.error_message.decode() if error.pgresult is not None else str(error)


def _interval(schedule: str) -> int | None:
    """Return the seconds of a schedule such as ``30 seconds``, or None when it is a cron expression."""
    number, _, unit = schedule.strip().partition(" ")
    return int(number) if unit.strip().lower() in {"second", "seconds"} else None


def is_due(schedule: str, minute: datetime) -> bool:
    """Return whether a cron expression of five fields matches the minute.

    As in Vixie's cron, one of the day of the month and the day of the week has to match if both are given, else both.
    """
    minutes, hours, days, months, weekdays = schedule.split()
    on_day = _has(days, minute.day)
    on_weekday = weekdays == "*" or int(weekdays) % 7 == minute.isoweekday() % 7
    either = "*" not in (days, weekdays)
    return (
        _has(minutes, minute.minute)
        and _has(hours, minute.hour)
        and _has(months, minute.month)
        and (on_day or on_weekday if either else on_day and on_weekday)
    )


def _has(field: str, value: int) -> bool:
    return value % int(field[2:] or 1) == 0 if field.startswith("*") else value == int(field)
