"""A Supabase developer: a project's database without the schema, and a clone with the real psql."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from local.postgres import SUPERUSER, Postgres
from tests.database.conftest import BINARIES
from tests.database.project import ON_UPLOAD, PROJECT, PUSH_BACK, SECRET, Project
from tests.deploy.clone import Clone

# The real psql. Each command line is logged, as ps would show it.
_PSQL = """#!/bin/bash
printf '%s\\n' "$*" >>{log}
exec {real} "$@"
"""
# For tests that depend on psql and the server: on the newest of both, and on 15.
EVERY_POSTGRES = pytest.mark.parametrize("developer", range(len(BINARIES)), indirect=True)
_numbers = itertools.count(1)


class Deploying:
    """A deploy.sh that is running.

    Attributes:
        stderr: its output on stderr so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.stderr = ""
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def _listen(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                self.stderr += line

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(60)
        self._reader.join(60)
        return code


class Developer:
    """One project and one clone; ``deploy`` runs the clone's deploy.sh.

    Attributes:
        env: the variables that ``.env`` has at first.
        project: the database as its users see it.
    """

    def __init__(self, server: Postgres, clone: Clone) -> None:
        self.server = server
        self.clone = clone
        self._made: list[Project] = []
        self.project = self._make("postgres")
        self.env = {
            "DATABASE_URL": self.address(self.project),
            "SUPABASE_URL": PROJECT,
            "FUNCTIONS_SECRET": SECRET,
            "ON_UPLOAD_URL": ON_UPLOAD,
            "PUSH_BACK_URL": PUSH_BACK,
        }
        clone.write_env(self.env)
        clone.give("cksum", "cmp")
        self._command_lines = clone.root.parent / "command lines"
        self._command_lines.touch()
        psql = clone.commands.bin / "psql"
        psql.write_text(_PSQL.format(log=shlex.quote(str(self._command_lines)), real=server._binaries / "psql"))
        psql.chmod(0o755)

    def copy(self) -> Project:
        """Make another database with the contents of ``project``, as a restored dump has them."""
        self.project.close()
        try:
            return self._make(self.project.name)
        finally:
            self.project.reconnect()

    def _make(self, template: str) -> Project:
        name = f"project{next(_numbers)}"
        with psycopg.connect(self.server.dsn(SUPERUSER, "template1"), autocommit=True) as admin:
            admin.execute(
                SQL("create database {} template {} owner postgres").format(Identifier(name), Identifier(template))
            )
            admin.execute(
                SQL('alter database {} set search_path = "$user", public, extensions').format(Identifier(name))
            )
        self._made.append(Project(self.server, name))
        return self._made[-1]

    def address(self, project: Project) -> str:
        """DATABASE_URL of a database, through the server's socket."""
        socket = quote(str(conninfo_to_dict(self.server.dsn("postgres"))["host"]), safe="")
        return f"postgresql://postgres@/{project.name}?host={socket}"

    def install(self) -> None:
        """Install the database side, as ``deploy.sh database`` does, in less time."""
        for migration in sorted((self.clone.root / "supabase" / "migrations").glob("*.sql")):
            with psycopg.connect(self.server.dsn("postgres", self.project.name)) as connection:
                connection.execute(migration.read_bytes())
        self.project.sql("select vault.create_secret(%s, 'ittybit_functions_secret')", SECRET)
        self.project.settings(project=PROJECT)
        for name, url in (("on-upload", ON_UPLOAD), ("push-back", PUSH_BACK)):
            self.project.sql("update ittybit.functions set url = %s where name = %s", url, name)

    def command_lines(self) -> str:
        """The command lines of psql so far, one a line."""
        return self._command_lines.read_text()

    def deploy(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a verb that must succeed."""
        result = self.clone.deploy(*arguments, stdin=stdin)
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    def refused(self, *arguments: str) -> str:
        """Run a verb that must be refused, and return what it says."""
        result = self.clone.deploy(*arguments)
        assert result.returncode == 2, result.stdout + result.stderr
        return result.stderr

    def deploying(self, *arguments: str) -> AbstractContextManager[Deploying]:
        """Start a verb, which runs while the test goes on."""
        return self._begin([str(self.clone.root / "deploy.sh"), *arguments])

    def bash(self, script: str) -> AbstractContextManager[Deploying]:
        """Start lines of bash with deploy.sh's common part; they run while the test goes on."""
        return self._begin(["bash", "-c", f"set -euo pipefail\nsource deploy/common.sh\n{script}"])

    @contextmanager
    def _begin(self, command: Sequence[str]) -> Iterator[Deploying]:
        process = subprocess.Popen(
            command,
            cwd=self.clone.root,
            env={"PATH": f"{self.clone.commands.bin}:{self.clone._tools}", "HOME": str(self.clone.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deploying = Deploying(process)
        try:
            yield deploying
        finally:
            process.kill()
            deploying.end()

    def add_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.project.superuser.execute("insert into storage.buckets (id, name) values (%s, %s)", [name, name])

    @contextmanager
    def slow_upload(self, name: str, metadata: str | None = None) -> Iterator[psycopg.Connection]:
        """Give an open transaction of the storage server, in which an upload has written its row."""
        with psycopg.connect(self.server.dsn("supabase_storage_admin", self.project.name)) as connection:
            row = "insert into storage.objects (bucket_id, name, version, metadata) values ('uploads', %s, 'v', %s)"
            connection.execute(row, [name, metadata])
            yield connection

    def close(self) -> None:
        """Drop the databases."""
        for project in self._made:
            project.close()
        with psycopg.connect(self.server.dsn(SUPERUSER, "template1"), autocommit=True) as admin:
            for project in self._made:
                admin.execute(SQL("drop database {}").format(Identifier(project.name)))
