"""A healthy project on the embedded stack, for the doctor to examine with and without faults."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from typing import Any, Self
from unittest.mock import patch

import httpx
import psycopg
from flask import Flask, Response
from werkzeug.http import http_date

from deploy.doctor.checks import examine
from deploy.doctor.finding import Finding
from local.pg_cron import PgCronWorker
from local.pg_net import PgNetWorker
from local.postgres import SUPERUSER
from local.project import Project
from local.serve import environment_of
from local.server import Server
from local.stack import MIGRATIONS, Stack
from tests.functions.calling import Function

SECRETS = (
    "ITTYBIT_API_KEY",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_S3_SECRET_ACCESS_KEY",
    "FUNCTIONS_SECRET",
    "FUNCTIONS_TOKEN",
)


class Examined:
    """The demo's project: one bucket, three rules, the connection; pg_net and pg_cron run.

    Attributes:
        environment: what the doctor reads.
        connection: the connection's id.
        automation: the automation's id.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        stack._start_functions(lambda _: None)
        self.net, self.cron = PgNetWorker(stack.postgres), PgCronWorker(stack.postgres)
        self.net.start()
        self.cron.start()
        project = Project(stack)
        self.connection = project.set_up()
        project.close()
        self.environment = environment_of(stack)
        [(self.automation,)] = stack.sql("select automation_id from ittybit.rules where automation_id is not null")
        self.hurry()

    @classmethod
    @contextlib.contextmanager
    def project(cls) -> Iterator[Self]:
        with Stack.start(processes=False, encode=False) as stack:
            one = cls(stack)
            yield one
            one.cron.stop()
            one.net.stop()

    def is_database_in_order(self) -> bool:
        """Whether the checks of the database find no fault. Without the functions' variables only these are made."""
        found = self.look({"ITTYBIT_API_KEY": ""})
        del found["settings"]
        return all(finding.verdict in ("ok", "skipped") for finding in found.values())

    def look(self, changes: Mapping[str, str] | None = None) -> dict[str, Finding]:
        """Examine it, with these variables changed; a secret in any finding fails the test."""
        environment = {**self.environment, **(changes or {})}
        found = {finding.check: finding for finding in examine(environment)}
        said = " ".join(f"{finding.saw} {finding.remedy}" for finding in found.values())
        assert "of-mine" not in said  # the end of every password of the faults
        for name in SECRETS:
            for secret in (environment[name], self.environment[name]):
                assert not secret or secret not in said, f"{name} is printed"
        return found

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement as the developer."""
        return self.stack.sql(statement, parameters)

    def root(self, statement: str, *parameters: Any) -> None:
        """Run a statement that the developer may not run, as superuser."""
        with psycopg.connect(self.stack.postgres.dsn(SUPERUSER), autocommit=True) as connection:
            connection.execute(statement.encode(), parameters or None)

    @contextlib.contextmanager
    def another_database(self, statement: str) -> Iterator[str]:
        """Make a second database, run the statement in it, and give its address."""
        self.root("create database another")
        with psycopg.connect(self.stack.postgres.dsn(SUPERUSER, "another")) as connection:
            connection.execute(statement.encode())
        try:
            yield self.environment["DATABASE_URL"].replace("/postgres?", "/another?")
        finally:
            self.root("drop database another")

    def apply(self, *names: str) -> None:
        """Apply the migrations of these names once more, as the remedies say; without a name, all."""
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if not names or file.stem.partition("_ittybit_")[2] in names:
                with psycopg.connect(self.stack.postgres.dsn("postgres")) as connection:
                    connection.execute(file.read_bytes())
        self.hurry()

    def hurry(self) -> None:
        """Let pg_cron's jobs run every second; the doctor accepts any interval."""
        self.sql("select cron.alter_job(jobid, schedule => '1 second') from cron.job where schedule like '%%seconds'")

    @contextlib.contextmanager
    def cron_stopped(self) -> Iterator[None]:
        """Stop pg_cron, and delete the runs that this cancelled; start it again at the end."""
        self.cron.stop()
        self.root("delete from cron.job_run_details where status <> 'succeeded'")
        try:
            yield
        finally:
            self.cron.start()

    def ittybit(self, method: str, path: str, **options: Any) -> Any:
        """Call ittybit with its key."""
        headers = {"authorization": f"Bearer {self.stack.ittybit_key}"}
        address = f"{self.stack.ittybit_url}/{path}"
        return httpx.request(method, address, headers=headers, trust_env=False, **options).raise_for_status().json()

    @contextlib.contextmanager
    def at_on_upload(self, address: str) -> Iterator[None]:
        """Let the database call on-upload at another address."""
        [(former,)] = self.sql("select url from ittybit.functions where name = 'on-upload'")
        change = "update ittybit.functions set url = %s where name = 'on-upload'"
        self.sql(change, address)
        try:
            yield
        finally:
            self.sql(change, former)

    @contextlib.contextmanager
    def deployed(self, **changes: str) -> Iterator[None]:
        """Run on-upload with these variables changed."""
        with (
            Server(Function.make("on-upload", self.environment, **changes).client.application) as server,
            self.at_on_upload(server.origin),
        ):
            yield

    @contextlib.contextmanager
    def answering(self, status: int, headers: Mapping[str, str] | None = None, body: str = "<p>") -> Iterator[None]:
        """Let something other than a function of this project answer at on-upload's address."""
        app = Flask("something")
        app.add_url_rule("/", view_func=lambda: Response(body, status, dict(headers or {})), methods=["POST"])
        with Server(app) as server, self.at_on_upload(server.origin):
            yield

    @contextlib.contextmanager
    def ahead(self, seconds: float) -> Iterator[None]:
        """Run on-upload with a clock this far ahead, both for its Date header and to verify signatures."""

        class Shifted(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return cls.fromtimestamp(time.time() + seconds, tz)

        def date_string(_: object, timestamp: float | None = None) -> str:
            return http_date((timestamp or time.time()) + seconds)

        with (
            patch("standardwebhooks.webhooks.datetime", Shifted),
            patch("http.server.BaseHTTPRequestHandler.date_time_string", date_string),
            self.deployed(),
        ):
            yield
