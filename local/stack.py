"""The whole embedded stack: started in order, stopped in order, everything on free loopback addresses."""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import psycopg
from flask import Blueprint

from local import postgrest, realtime, storage_server
from local.connection_pool import Connections
from local.disk_space import check_disk_space
from local.fault_injection import Faults
from local.functions import NAMES, ROOT, FunctionProcess, stage
from local.gateway import ProjectKeys, create_app
from local.ittybit_server import Ittybit
from local.pg_cron import PgCronWorker
from local.pg_net import PgNetWorker
from local.postgres import Postgres
from local.scratch import Scratch
from local.server import Server

MIGRATIONS = ROOT / "supabase" / "migrations"
REGION = "local"


def words_of_ittybit(_: str, status: int) -> dict[str, Any]:
    """An error in ittybit's format."""
    return {"kind": f"fault_{status}", "message": "A fault on demand."}


def _words_of_supabase(path: str, status: int) -> dict[str, Any]:
    """An error in PostgREST's format, or in Storage's."""
    error = {"message": "A fault on demand."}
    if path.startswith("/rest/"):
        return {**error, "code": "XX000", "details": None, "hint": None}
    return {**error, "statusCode": str(status), "error": "fault"}


def migrate(postgres: Postgres, migrations: Iterable[Path] | None = None, *, database: str = "postgres") -> None:
    """Apply these migrations, or all, as ``supabase db push`` does: in order, as the project's ``postgres`` role."""
    for migration in sorted(MIGRATIONS.glob("*.sql") if migrations is None else migrations):
        with psycopg.connect(postgres.dsn("postgres", database)) as connection:
            connection.execute(migration.read_bytes())


class Stack:
    """A Supabase project, an ittybit and the functions between them, from ``start`` to ``stop``.

    Attributes:
        environment: the functions' environment variables.
        functions: the function processes by name; empty when started without.
        supabase, ittybit_api: faults on demand in front of the two origins.
        ittybit: the stand-in, with its journal of what it started.
        s3: the project's S3 keys and settings.
    """

    def __init__(self) -> None:
        self._stopping = contextlib.ExitStack()
        self.functions: dict[str, FunctionProcess] = {}

    @classmethod
    def start(
        cls,
        *,
        processes: bool = True,
        binaries: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        **ittybit: Any,
    ) -> Self:
        """Start everything and return when it answers.

        Args:
            processes: whether to run the functions, pg_net and pg_cron; without them no job goes on by itself.
            binaries: the PostgreSQL to run; by default the newest of the wheel.
            say: called with a line for each part that has started.
            ittybit: options of the stand-in, as ``local.ittybit_server.Ittybit`` takes them.

        Raises:
            local.disk_space.DiskSpaceError: a folder cannot be written.
            local.postgres.StartError, local.functions.FunctionError: a part did not come up; nothing is left running.
        """
        stack = cls()
        try:
            stack._start_project(binaries, say)
            stack._start_ittybit(say, ittybit)
            stack._make_environment()
            if processes:
                stack._start_functions(say)
                stack._start_workers()
        except BaseException:
            stack.stop()
            raise
        return stack

    def sql(self, statement: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """Run one statement as the project's ``postgres`` role, as Studio does, and return its rows."""
        with self._connections.transaction(lambda connection: connection.execute("select 1")) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def services(self, postgres: Postgres, stopping: contextlib.ExitStack) -> dict[str, Blueprint]:
        """Return Storage and the Data API of the project, on this or another database, until ``stopping`` closes."""

        def connections(user: str) -> Connections:
            made = Connections(lambda: psycopg.connect(postgres.dsn(user)))
            stopping.callback(made.close)
            return made

        storage = storage_server.create_blueprint(
            connections=connections("supabase_storage_admin"),
            directory=self.directory / "objects",
            jwt_secret=self.keys.jwt_secret,
            s3=self.s3,
        )
        return {"/storage/v1": storage, "/rest/v1": postgrest.create_blueprint(connections("authenticator"))}

    def check(self) -> None:
        """Raise FunctionError if a function has ended by itself."""
        for function in self.functions.values():
            function.check()

    def stop(self) -> None:
        """End everything, the last started first, and remove the temporary files."""
        self._stopping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_project(self, binaries: Path | None, say: Callable[[str], None]) -> None:
        check_disk_space(ROOT / "build", Path("/tmp"))
        self.directory = self._stopping.enter_context(Scratch("supabase-ittybit-")).path
        self.postgres = Postgres.start(binaries=binaries)
        self._stopping.callback(self.postgres.stop)
        # A prepared statement would fail once its table's columns have changed.
        self._connections = Connections(lambda: psycopg.connect(self.postgres.dsn("postgres"), prepare_threshold=None))
        self._stopping.callback(self._connections.close)
        self.postgres.prepare()
        migrate(self.postgres)
        [(version,)] = self.sql("show server_version")
        say(f"PostgreSQL {version}, with the ledger")

        self.keys = ProjectKeys.make()
        self.s3 = storage_server.S3Access({self.keys.s3_access_key_id: self.keys.s3_secret_access_key}, REGION)
        services = self.services(self.postgres, self._stopping)
        live = realtime.create_blueprint(self.postgres, self.keys)
        self._stopping.callback(live.close)
        app = create_app(self.keys, {**services, "/realtime/v1": live})
        self.supabase = Faults(app, _words_of_supabase)
        self.supabase_url = self._serve(self.supabase)
        say(f"Supabase  {self.supabase_url}")

    def _start_ittybit(self, say: Callable[[str], None], options: Mapping[str, Any]) -> None:
        self.ittybit_key = f"ittybit_local_{secrets.token_urlsafe(24)}"
        self.ittybit = Ittybit(api_key=self.ittybit_key, directory=self.directory / "ittybit", **options)
        self.ittybit_api = Faults(self.ittybit.app, words_of_ittybit)
        self.ittybit_url = self._serve(self.ittybit_api)
        self.ittybit.start()
        self._stopping.callback(self.ittybit.stop)
        say(f"ittybit   {self.ittybit_url}")

    def _serve(self, app: Faults) -> str:
        server = Server(app)
        self._stopping.callback(server.close)
        self._stopping.callback(app.close)
        return server.origin

    def _make_environment(self) -> None:
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.token = secrets.token_urlsafe(24)
        self.environment = {
            "ITTYBIT_API_KEY": self.ittybit_key,
            "ITTYBIT_API_URL": self.ittybit_url,
            "SUPABASE_URL": self.supabase_url,
            "SUPABASE_SECRET_KEY": self.keys.secret_key,
            "SUPABASE_S3_ACCESS_KEY_ID": self.keys.s3_access_key_id,
            "SUPABASE_S3_SECRET_ACCESS_KEY": self.keys.s3_secret_access_key,
            "SUPABASE_S3_REGION": REGION,
            "FUNCTIONS_SECRET": secret,
            "FUNCTIONS_TOKEN": self.token,
        }
        self.sql("select vault.create_secret(%s, 'ittybit_functions_secret')", (secret,))

    def _start_functions(self, say: Callable[[str], None]) -> None:
        stage()
        for name in NAMES:
            function = FunctionProcess(name, self.environment, log=self.directory / f"{name}.log")
            self.functions[name] = function
            self._stopping.callback(function.stop)
        for function in self.functions.values():
            function.wait_until_ready()
            say(f"function  {function.url}  {function.name}")
        for name in ("on-upload", "push-back"):
            self.sql("update ittybit.functions set url = %s where name = %s", (self.functions[name].url, name))

    def _start_workers(self) -> None:
        for worker in (PgNetWorker(self.postgres), PgCronWorker(self.postgres)):
            worker.start()
            self._stopping.callback(worker.stop)
