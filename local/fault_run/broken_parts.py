"""Broken parts: each part of the project breaks in turn while objects are stored, overwritten and deleted.

Storage must not be affected: a request that fails or takes over 2 s meanwhile counts as harmed. Once the part is
repaired, the sweep must find what the broken triggers could not record, and those objects must be processed too.
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

# What breaks each part, and what repairs it. The superuser runs both. A lock ends with its transaction.
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
    # The ledger refuses the functions' claims, as a copy of the database does, until adopt() restores the project.
    "project_changed": (
        "update ittybit.settings set project = project || '/elsewhere'",
        "select ittybit.adopt(replace(project, '/elsewhere', ''), open_jobs => 'look') from ittybit.settings",
    ),
}
_THREADS: Final = 4
# While a part is broken, so many of its older objects are overwritten, and so many are deleted.
_CHANGED: Final = 2
_DELETED_AT_ONCE: Final = 200


@dataclass(frozen=True)
class Breakage:
    """What happened while parts were broken.

    Attributes:
        parts: How many parts were broken, one after another.
        uploads: Objects stored meanwhile, including overwrites.
        deletes: Objects deleted meanwhile, including the bulk delete while the ledger was locked.
        healed: Jobs that the triggers had missed and the sweep made.
    """

    parts: int
    uploads: int
    deletes: int
    healed: int


def break_each(
    stack: Stack, host: Host, load: Uploads, *, uploads: int, seconds: float, say: Callable[[str], None]
) -> Breakage:
    """Break each part in turn, store ``uploads`` objects while it is broken, then wait until everything is processed.

    Raises:
        SettlingError: some jobs have not ended within ``seconds``.
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
    breaking, repair = BREAKAGES[part]
    with psycopg.connect(stack.postgres.dsn(SUPERUSER), autocommit=True) as admin:
        # An `alter` that waits for a table's lock blocks every later statement on that table. So it gives up early.
        admin.execute("set lock_timeout = '100ms'")
        if repair is None:
            with admin.transaction():
                _insist(admin, breaking)
                yield
            return
        _insist(admin, breaking)
        try:
            yield
        finally:
            _insist(admin, repair)


def _insist(admin: psycopg.Connection, statement: str) -> None:
    while True:
        with contextlib.suppress(psycopg.errors.LockNotAvailable), admin.transaction():
            admin.execute(statement.encode())
            return
