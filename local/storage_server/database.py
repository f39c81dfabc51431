"""The storage server's transactions (one login, which takes the caller's role in each) and values as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from local.connection_pool import Connections
from local.storage_server.errors import from_postgres

Cursor: TypeAlias = psycopg.Cursor[dict[str, Any]]

# The settings that triggers and policies read, and the permission that the trigger protect_delete requires.
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
    """Who sent the request, and for which operation.

    Attributes:
        role: ``anon``, ``authenticated`` or ``service_role``.
        operation: The value of the setting ``storage.operation``, e.g. ``storage.object.upload``.
        sub: The user's id, as policies and triggers read it; None with a service key and over S3.
        owner: The owner of the objects that the caller writes.
    """

    role: str
    operation: str
    sub: str | None = None
    owner: str | None = None

    def as_service(self) -> Caller:
        """Return the same owner's caller that bypasses row-level security. Triggers see no user."""
        return replace(self, role="service_role", sub=None)


class Database:
    """Transactions over connections that are kept open between requests."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @contextmanager
    def transaction(self, caller: Caller, *, trial: bool = False) -> Iterator[Cursor]:
        """Open a transaction as ``caller`` and yield a cursor. At the end commit, or roll back if it is a trial.

        Raises:
            StorageError: A database error, as the client sees it.
        """
        claims = {"role": caller.role} | ({"sub": caller.sub} if caller.sub else {})
        scope = {"role": caller.role, "sub": caller.sub or "", "claims": json.dumps(claims)}
        scope["operation"] = caller.operation
        try:
            with (
                self._connections.transaction(lambda connection: connection.execute(_SCOPE, scope)) as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                yield cursor
                if trial:
                    connection.rollback()
        except psycopg.Error as error:
            raise from_postgres(error) from error


def iso_milliseconds(moment: datetime) -> str:
    """Return a time as JavaScript writes it, e.g. ``2026-11-23T22:40:59.656Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: Any) -> Any:
    """Return times and uuids as text for JSON, and any other value unchanged."""
    if isinstance(value, datetime):
        return iso_milliseconds(value)
    return str(value) if isinstance(value, UUID) else value
