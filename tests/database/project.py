"""A project's database as its users see it: the developer, the storage server, and the functions over PostgREST."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg.errors import Diagnostic
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from local.postgres import SUPERUSER, Postgres
from local.stack import migrate
from tests.database.rows import Connection, Row, put, rows

SECRET = "whsec_" + base64.b64encode(b"the functions' secret, 32 bytes.").decode()
PROJECT = "https://ref.supabase.co"
ON_UPLOAD = "https://functions.test/on-upload"
PUSH_BACK = "https://functions.test/push-back"
AUTOMATION = "auto_1"
API_ROLES = ("anon", "authenticated", "service_role")
TASK = {"kind": "video", "options": {"height": 720}, "destination": "s3://results/{dir}{stem}.mp4"}


def upload(url: str, **options: Any) -> Row:
    """A step of a run that writes the output of the one before it."""
    return {"kind": "upload", "options": {"url": url, **options}}


_numbers = itertools.count(1)
# A run with two results: a video, and a still of it.
RUN = {
    "tasks": [
        {
            "kind": "video",
            "options": {"height": 720},
            "next": [
                upload("s3://results/{dir}{stem}.mp4"),
                {"kind": "image", "next": [upload("s3://results/{dir}{stem}.jpeg")]},
            ],
        }
    ]
}

# With the triggers off, so that nothing is recorded or refused.
_RESET = f"""
set session_replication_role = replica;
delete from storage.objects;
delete from ittybit.jobs;
delete from ittybit.outputs;
delete from ittybit.rules;
delete from ittybit.starts;
delete from ittybit.holds;
delete from ittybit.settings;
delete from ittybit.functions;
delete from ittybit.backfills;
update ittybit.sweep set bucket_id = '', name = '', rounds = 0, healed = 0;
delete from net.http_request_queue;
delete from net._http_response;
delete from cron.job_run_details;
insert into ittybit.settings (project) values ('{PROJECT}');
insert into ittybit.functions (name, url) values ('on-upload', '{ON_UPLOAD}'), ('push-back', '{PUSH_BACK}');
select setval('ittybit.on_upload_woken', 0), setval('ittybit.push_back_woken', 0);
reset session_replication_role;
"""  # noqa: S608 - constants of this file

_PASS_TIME = """
with jobs as (
  update ittybit.jobs set
    due_at = due_at - interval '<seconds> s',
    claimed_at = claimed_at - interval '<seconds> s',
    created_at = created_at - interval '<seconds> s'
), holds as (
  update ittybit.holds set probe_at = probe_at - interval '<seconds> s'
), functions as (
  update ittybit.functions set
    awaited_since = awaited_since - interval '<seconds> s',
    claimed_at = claimed_at - interval '<seconds> s'
)
select ittybit.set_last_woken(name, greatest(ittybit.last_woken(name) - <seconds> * 1000, 0)::bigint)
from ittybit.functions
"""


def copy_of_database(postgres: Postgres, name: str) -> None:
    """Copy the database ``postgres`` into another one. Nobody may be connected to it meanwhile."""
    with psycopg.connect(postgres.dsn(SUPERUSER, "template1"), autocommit=True) as admin:
        admin.execute(SQL("create database {} template postgres owner postgres").format(Identifier(name)))
        # A copy does not have the database's settings.
        admin.execute(SQL('alter database {} set search_path = "$user", public, extensions').format(Identifier(name)))


class Project:
    """One database with the migrations applied, ``name``; every statement is its own transaction.

    Attributes:
        warnings: the warnings of the storage server's statements since ``reset``.
    """

    def __init__(self, postgres: Postgres, name: str = "postgres") -> None:
        self.postgres = postgres
        self.name = name
        self.warnings: list[str] = []
        self.reconnect()

    def reconnect(self) -> None:
        """Connect as each of the roles, again after ``close``."""
        self.developer = self.connect("postgres")
        self.superuser = self.connect("supabase_admin")
        self.storage = self.connect("supabase_storage_admin")
        self.storage.add_notice_handler(self.note)
        self.service = self.connect("authenticator")
        self.service.execute("set role service_role")

    def connect(self, login: str) -> Connection:
        return psycopg.connect(self.postgres.dsn(login, self.name), autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        for connection in (self.developer, self.superuser, self.storage, self.service):
            connection.close()

    def reset(self) -> None:
        self.superuser.execute(_RESET.encode())
        self.warnings.clear()

    def note(self, notice: Diagnostic) -> None:
        """Keep a warning, and ignore other notices."""
        if notice.severity_nonlocalized == "WARNING":
            self.warnings.append(notice.message_primary or "")

    def sql(self, statement: str, *parameters: object) -> list[Row]:
        return rows(self.developer, statement, *parameters)

    def value(self, statement: str, *parameters: object) -> Any:
        """Return the only column of the only row."""
        [row] = self.sql(statement, *parameters)
        [value] = row.values()
        return value

    # The developer, in Studio.

    def rule(self, name: str = "clips", **columns: Any) -> None:
        """Make a rule for bucket ``uploads``, with an automation if no action is given."""
        columns = {"name": name, "bucket_id": "uploads"} | columns
        if not columns.keys() & {"automation_id", "task", "run"}:
            columns["automation_id"] = AUTOMATION
        columns |= {name: Jsonb(columns[name]) for name in ("task", "run") if name in columns}
        names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
        self.sql(f"insert into ittybit.rules ({names}) values ({places})", *columns.values())  # noqa: S608 - column names

    def addresses(self) -> dict[str, str | None]:
        """Return each function's address."""
        return {row["name"]: row["url"] for row in self.sql("select name, url from ittybit.functions")}

    def settings(self, **columns: Any) -> None:
        changes = ", ".join(f"{name} = %s" for name in columns)
        self.sql(f"update ittybit.settings set {changes}", *columns.values())  # noqa: S608 - column names

    def jobs(self, name: str | None = None) -> list[Row]:
        """Return the ledger, or one object's part of it, oldest first."""
        return self.sql("select * from ittybit.jobs where name = coalesce(%s, name) order by created_at, rule", name)

    def names(self, leases: list[Row]) -> list[str]:
        """Return the objects' names of these leases' jobs, in their order."""
        name_of = {str(job["id"]): job["name"] for job in self.jobs()}
        return [name_of[lease["job"]] for lease in leases]

    def job(self, name: str | None = None) -> Row:
        """Return the only job."""
        [job] = self.jobs(name)
        return job

    def states(self) -> list[tuple[str, str, str | None]]:
        """Return (name, state, reason) of each job, oldest first."""
        return [(job["name"], job["state"], job["reason"]) for job in self.jobs()]

    def outputs(self) -> list[tuple[str, str]]:
        return [(row["bucket_id"], row["name"]) for row in self.sql("select * from ittybit.outputs order by 1, 2")]

    def messages(self) -> list[Row]:
        """Take the calls that wait in pg_net's queue: url, headers and body."""
        taken = rows(self.superuser, "delete from net.http_request_queue returning *")
        return [row | {"body": json.loads(row["body"])} for row in sorted(taken, key=lambda row: row["id"])]

    def make_due(self) -> None:
        """End every lease and every wait now."""
        self.sql("update ittybit.jobs set due_at = now() where due_at is not null")

    def pass_time(self, seconds: float) -> None:
        """Move the times of the ledger and of the wake-ups into the past."""
        self.sql(_PASS_TIME.replace("<seconds>", str(seconds)))

    def wake(self) -> int:
        """Run pg_cron's tick; return how many wake-ups it made."""
        return int(self.value("select ittybit.wake_functions()"))

    def work(self, function: str = "on-upload") -> int:
        """Return how many of a function's jobs may be claimed."""
        return int(self.value("select count(*) from ittybit.work(%s, 1000)", function))

    # The storage server.

    @contextmanager
    def writing(self, operation: str, role: str = "service_role", *, trial: bool = False) -> Iterator[Connection]:
        """Give a transaction as storage-api has it; a trial is rolled back."""
        with self.storage.transaction(force_rollback=trial):
            self.storage.execute(
                "select set_config('role', %s, true), set_config('storage.operation', %s, true),"
                " set_config('storage.allow_delete_query', 'true', true)",
                [role, operation],
            )
            yield self.storage

    def put(self, *names: str, operation: str = "storage.object.upload", **content: Any) -> str:
        """Store or overwrite objects in one statement, and return the last one's version."""
        with self.writing(operation) as connection:
            return put(connection, *names, **content)

    def move(self, name: str, to: str, *, bucket: str = "uploads", to_bucket: str = "uploads") -> str:
        """Give an object another address, and with it a new version, which is returned."""
        version = str(uuid.uuid4())
        with self.writing("storage.object.move") as connection:
            connection.execute(
                "update storage.objects set bucket_id = %s, name = %s, version = %s where bucket_id = %s and name = %s",
                [to_bucket, to, version, bucket, name],
            )
        return version

    def delete(self, *names: str, bucket: str = "uploads") -> None:
        with self.writing("storage.object.delete") as connection:
            connection.execute(
                "delete from storage.objects where bucket_id = %s and name = any (%s)", [bucket, list(names)]
            )

    # The functions.

    def claim(self, function: str = "on-upload", jobs: int = 100, *reports: Row, project: str = PROJECT) -> list[Row]:
        """Claim, with the reports, and return the jobs."""
        return claim(self.service, function, jobs, *reports, project=project)

    def claims_at_once(self, count: int, function: str = "on-upload", jobs: int = 100) -> list[list[Row]]:
        """Claim ``count`` times at the same moment, each time over another connection."""
        together = threading.Barrier(count)
        connections = [self.connect("authenticator") for _ in range(count)]

        def claim_together(connection: Connection) -> list[Row]:
            connection.execute("set role service_role")
            together.wait()
            return claim(connection, function, jobs)

        try:
            with ThreadPoolExecutor(count) as threads:
                return list(threads.map(claim_together, connections))
        finally:
            for connection in connections:
                connection.close()

    def report(self, lease: Row, outcome: str, **fields: Any) -> Row:
        """Report the outcome of one lease, and return the answer."""
        [answer] = self.reports(report(lease, outcome, **fields))
        return answer

    def reports(self, *reports: Row | object) -> list[Row]:
        [row] = rows(self.service, "select public.ittybit_report(%s) as answers", Jsonb(list(reports)))
        answers: list[Row] = row["answers"]
        return answers

    def started(self, name: str, ittybit_id: str) -> Row:
        """Start a waiting object's job, and return the job."""
        later = (
            "update ittybit.jobs set due_at = due_at + %s * interval '1 day' where name <> %s and due_at is not null"
        )
        self.sql(later, 1, name)
        [lease] = self.claim(self.job(name)["function"])
        self.sql(later, -1, name)
        assert "refused" not in self.report(lease, "started", ittybit_id=ittybit_id)
        return self.job(name)

    def counted_starts(self) -> int:
        return int(self.value("select coalesce(sum(started), 0) from ittybit.starts"))

    def seconds_left(self) -> float:
        """Return how long the only job waits until it is due."""
        return float(self.value("select extract(epoch from due_at - clock_timestamp()) from ittybit.jobs"))

    def next_lease(self) -> Row:
        """Make the only job due, and claim it again."""
        self.make_due()
        [lease] = self.claim(self.job()["function"])
        return lease


@contextmanager
def database_of_its_own(server: Postgres, *buckets: str) -> Iterator[Project]:
    """A project with the migrations and these buckets, in a database of a prepared server."""
    name = f"project{next(_numbers)}"
    copy_of_database(server, name)
    migrate(server, database=name)
    with closing(Project(server, name)) as project:
        for bucket in buckets:
            project.superuser.execute("insert into storage.buckets (id, name) values (%s, %s)", [bucket, bucket])
        yield project


def claim(connection: Connection, function: str, jobs: int, *reports: Row, project: str = PROJECT) -> list[Row]:
    """Claim as the functions do, and return the jobs."""
    statement = "select public.ittybit_claim(%s, %s, %s, %s) -> 'jobs' as jobs"
    [row] = rows(connection, statement, function, project, jobs, Jsonb(list(reports)))
    claimed: list[Row] = row["jobs"]
    return claimed


def report(lease: Row, outcome: str, **fields: Any) -> Row:
    """A function's report on a lease."""
    return {name: lease[name] for name in ("job", "generation", "attempt")} | {"outcome": outcome} | fields
