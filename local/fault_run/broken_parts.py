"""The fifth scenario: each part of the project breaks for a moment while objects are stored, overwritten and deleted.

Storage must not notice: what fails or takes over 2 s then is harm like any other. What the broken triggers could not
record is the sweep's to find once the part is mended, and must be processed like everything else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import psycopg

from local.fault_run.host import Host
from local.fault_run.settling import settle
from local.fault_run.uploads import Uploads
from local.postgres import SUPERUSER
from local.stack import Stack

# What is broken, and how it is mended, by the superuser; a lock is mended by its transaction's end.
BREAKAGES: Final[dict[str, tuple[str, str | None]]] = {
    "ledger_locked": ("lock table ittybit.jobs in access exclusive mode", None),
    "rules_locked": ("lock table ittybit.rules in access exclusive mode", None),
    "ledger_gone": ("alter table ittybit.jobs rename to gone", "alter table ittybit.gone rename to jobs"),
    "rules_gone": ("alter table ittybit.rules rename to gone", "alter table ittybit.gone rename to rules"),
    "settings_gone": ("alter table ittybit.settings rename to gone", "alter table ittybit.gone rename to settings"),
    "column_renamed": (
        "alter table ittybit.jobs rename column due_at to due",
        "alter table ittybit.jobs rename column due to due_at",
    ),
    "schema_gone": ("alter schema ittybit rename to gone", "alter schema gone rename to ittybit"),
    "vault_empty": (
        "update vault.secrets set name = 'elsewhere' where name = 'ittybit_functions_secret'",
        "update vault.secrets set name = 'ittybit_functions_secret' where name = 'elsewhere'",
    ),
    "pg_net_gone": ("alter schema net rename to gone", "alter schema gone rename to net"),
    # What a copy of the database is to the original's functions, until somebody says that it goes on in its place.
    "project_changed": (
        "update ittybit.settings set project = project || '/elsewhere'",
        "select ittybit.adopt(replace(project, '/elsewhere', ''), open_jobs => 'look') from ittybit.settings",
    ),
}
_THREADS: Final = 4
# Of each breakage's objects, stored before it: so many are overwritten, and so many deleted, while it lasts.
_CHANGED: Final = 2
_DELETED_AT_ONCE: Final = 200


@dataclass(frozen=True)
class Breakage:
    """What was done while something was broken.

    Attributes:
        parts: How many parts were broken, one after another.
        uploads: Objects stored while one was, overwrites included.
        deletes: Objects deleted while one was, those of the bulk delete under a locked ledger included.
        healed: Contents that the triggers had missed and the sweep found.
    """

    parts: int
    uploads: int
    deletes: int
    healed: int


def break_each(
    stack: Stack, host: Host, load: Uploads, *, uploads: int, seconds: float, say: Callable[[str], None]
) -> Breakage:
    """Break every part in turn with ``uploads`` objects stored meanwhile, then let all be processed.

    Raises:
        SettlingError: not everything is within ``seconds``.
    """
    [(healed_before,)] = stack.sql("select healed from ittybit.sweep")
    older = {part: [_name(part, f"old-{number}") for number in range(2 * _CHANGED)] for part in BREAKAGES}
    bulk = [_name("bulk", str(number)) for number in range(min(_DELETED_AT_ONCE, uploads * len(BREAKAGES)))]
    with ThreadPoolExecutor(_THREADS) as threads:

        def upload(names: list[str], what: str) -> None:
            list(threads.map(lambda name: load.upload(name, f"{name} {what} ".encode() * 20), names))

        upload([name for names in older.values() for name in names] + bulk, "before")
        for part, old in older.items():
            with _broken(stack, part):
                upload([_name(part, f"new-{number}") for number in range(uploads)], "meanwhile")
                upload(old[:_CHANGED], "again")
                list(threads.map(load.delete, old[_CHANGED:]))
                if part == "ledger_locked":
                    load.delete_all(bulk)
            say(f"{part}: {uploads} objects stored, {_CHANGED} overwritten, {_CHANGED} deleted meanwhile")
    settle(stack, host, seconds=seconds, say=say)
    [(healed,)] = stack.sql("select healed from ittybit.sweep")
    return Breakage(
        parts=len(BREAKAGES),
        uploads=len(BREAKAGES) * (uploads + _CHANGED),
        deletes=len(BREAKAGES) * _CHANGED + len(bulk),
        healed=int(healed) - int(healed_before),
    )


def _name(part: str, which: str) -> str:
    return f"broken/{part}/{which}.mp4"


@contextlib.contextmanager
def _broken(stack: Stack, part: str) -> Iterator[None]:
    """Break a part, and repair it at the end of the block."""
    broken, mended = BREAKAGES[part]
    with psycopg.connect(stack.postgres.dsn(SUPERUSER), autocommit=True) as admin:
        # Whoever alters a table waits for those who use it, and holds up all who come after.
        admin.execute("set lock_timeout = '100ms'")
        if mended is None:
            with admin.transaction():
                _insist(admin, broken)
                yield
            return
        _insist(admin, broken)
        try:
            yield
        finally:
            _insist(admin, mended)


def _insist(admin: psycopg.Connection, statement: str) -> None:
    while True:
        with contextlib.suppress(psycopg.errors.LockNotAvailable), admin.transaction():
            admin.execute(statement.encode())
            return
