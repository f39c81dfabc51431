"""Transactions of the storage server: one login, and in each transaction the role that the caller has."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.rows import dict_row

from local.storage_server.errors import from_postgres

Connect: TypeAlias = Callable[[], psycopg.Connection]
Cursor: TypeAlias = psycopg.Cursor[dict[str, Any]]

# What triggers and policies may read, and the permission that the protect_delete trigger asks for.
_SCOPE: Final = """
select set_config('role', %(role)s, true),
       set_config('request.jwt.claim.role', %(role)s, true),
       set_config('request.jwt.claim.sub', %(sub)s, true),
       set_config('request.jwt.claims', %(claims)s, true),
       set_config('storage.operation', %(operation)s, true),
       set_config('storage.allow_delete_query', 'true', true)
"""


@dataclass(frozen=True)
class Caller:
    """Who asks, and for what.

    Attributes:
        role: ``anon``, ``authenticated`` or ``service_role``.
        operation: What a trigger reads in ``storage.operation``, e.g. ``storage.object.upload``.
        sub: The user's id, None with a service key and over S3.
    """

    role: str
    operation: str
    sub: str | None = None

    def as_service(self) -> Caller:
        """Return the caller that bypasses row-level security, still for the same operation and user."""
        return replace(self, role="service_role")


class Database:
    """Transactions over connections that are kept open between requests."""

    def __init__(self, connect: Connect, *, most: int = 20) -> None:
        """Make no connection yet.

        Args:
            connect: Gives a new connection as ``supabase_storage_admin``, autocommit off.
            most: How many connections may be in use at a time; further requests wait.
        """
        self._connect = connect
        self._idle: deque[psycopg.Connection] = deque()
        self._free = threading.BoundedSemaphore(most)
        self._closed = False

    @contextmanager
    def transaction(self, caller: Caller, *, trial: bool = False) -> Iterator[Cursor]:
        """Give a cursor in a transaction as ``caller``; at its end commit, or roll back if it is a trial.

        Raises:
            StorageError: What a client sees of an error of the database.
        """
        with self._free:
            connection: psycopg.Connection | None = None
            try:
                connection = self._begin(caller)
                with connection.cursor(row_factory=dict_row) as cursor:
                    yield cursor
                if not trial:
                    connection.commit()
            except psycopg.Error as error:
                raise from_postgres(error) from error
            finally:
                if connection is not None:
                    self._give_back(connection)

    def close(self) -> None:
        """Close the connections; transactions under way finish first and then close theirs."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _begin(self, caller: Caller) -> psycopg.Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            # An idle connection does not notice the end of its server; a new one leads to the new server.
            with suppress(psycopg.OperationalError):
                return _enter(connection, caller)
        return _enter(self._connect(), caller)

    def _give_back(self, connection: psycopg.Connection) -> None:
        with suppress(psycopg.Error):
            connection.rollback()
        if connection.closed or self._closed:
            connection.close()
        else:
            self._idle.append(connection)


def _enter(connection: psycopg.Connection, caller: Caller) -> psycopg.Connection:
    claims = {"role": caller.role} | ({"sub": caller.sub} if caller.sub else {})
    scope = {"role": caller.role, "sub": caller.sub or "", "claims": json.dumps(claims)}
    try:
        connection.execute(_SCOPE, scope | {"operation": caller.operation})
    except BaseException:
        connection.close()
        raise
    return connection
