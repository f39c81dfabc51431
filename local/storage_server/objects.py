"""Rows of ``storage.objects``, read and written with the statements of storage-api v1.70.6.

Left out: object versioning, which the original contains but does not enable. Each key has one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from local.storage_server.database import Caller, Cursor, to_json
from local.storage_server.errors import already_exists, no_such_key

TRIAL_VERSION: Final = "1"


@dataclass(frozen=True)
class StoredObject:
    """One row; the server measured ``metadata``, the uploader sent ``user_metadata``."""

    id: UUID
    bucket_id: str
    name: str
    version: str | None
    metadata: Mapping[str, Any]
    user_metadata: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> StoredObject:
        """Make one from a whole row. Rows inserted by SQL may have no metadata."""
        columns = ("id", "bucket_id", "name", "version", "user_metadata", "created_at", "updated_at")
        return cls(**{name: row[name] for name in columns}, metadata=row["metadata"] or {})


@dataclass(frozen=True)
class Target:
    """An object's destination, and whether it may replace the object there."""

    bucket: str
    key: str
    upsert: bool


@dataclass(frozen=True)
class Content:
    """A row's content: its version (a uuid), the measured metadata, and the uploader's metadata or None."""

    version: str
    metadata: Mapping[str, Any]
    user_metadata: Mapping[str, Any] | None


def owner_values(caller: Caller) -> dict[str, Any]:
    """Return the columns of the owner. ``owner`` is only set to a uuid."""
    if caller.owner is None:
        return {}
    try:
        return {"owner": UUID(caller.owner), "owner_id": caller.owner}
    except ValueError:
        return {"owner_id": caller.owner}


def find(cursor: Cursor, bucket: str, name: str, *, lock: bool = False) -> StoredObject | None:
    """Return the object, if the transaction's role may see it; with ``lock``, lock its row."""
    statement = sql.SQL("select * from storage.objects where bucket_id = %s and name = %s")
    cursor.execute(statement + sql.SQL(" for update") if lock else statement, (bucket, name))
    row = cursor.fetchone()
    return StoredObject.from_row(row) if row else None


def get(cursor: Cursor, bucket: str, name: str, *, lock: bool = False) -> StoredObject:
    """Return the object as ``find`` does.

    Raises:
        StorageError: ``NoSuchKey``.
    """
    if found := find(cursor, bucket, name, lock=lock):
        return found
    raise no_such_key()


def existing(cursor: Cursor, bucket: str, names: Sequence[str]) -> set[str]:
    """Return those of the names that the transaction's role may see."""
    statement = "select name from storage.objects where bucket_id = %s and name = any(%s)"
    return {row["name"] for row in cursor.execute(statement, (bucket, list(names)))}


def write(cursor: Cursor, caller: Caller, target: Target, content: Content) -> dict[str, Any]:
    """Insert a row, or update the key's row (same id, other version) if the target allows it; return the row.

    If the caller has no owner, the row's owner stays unchanged, null in a new row. So does ``user_metadata`` if None.

    Raises:
        StorageError: ``KeyAlreadyExists``.
    """
    values = {
        "bucket_id": target.bucket,
        "name": target.key,
        "version": content.version,
        "metadata": Jsonb(dict(content.metadata)),
        **owner_values(caller),
    }
    if content.user_metadata is not None:
        values["user_metadata"] = Jsonb(dict(content.user_metadata))
    columns = sql.SQL(", ").join(map(sql.Identifier, values))
    places = sql.SQL(", ").join(sql.Placeholder() * len(values))
    statement = sql.SQL("insert into storage.objects ({}) values ({})").format(columns, places)
    if target.upsert:
        changes = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column))
            for column in values
            if column not in {"bucket_id", "name"}
        )
        statement += sql.SQL(" on conflict (bucket_id, name) do update set ") + changes
    try:
        cursor.execute(statement + sql.SQL(" returning *"), list(values.values()))
    except psycopg.errors.UniqueViolation as error:
        raise already_exists("KeyAlreadyExists") from error
    return _returned(cursor)


def update(cursor: Cursor, bucket: str, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Change the key's row and return it.

    Raises:
        StorageError: ``NoSuchKey``.
    """
    changes = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in values)
    statement = sql.SQL("update storage.objects set {} where bucket_id = %s and name = %s returning *")
    cursor.execute(statement.format(changes), [*values.values(), bucket, name])
    return _returned(cursor)


def delete(cursor: Cursor, bucket: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Remove the rows that the transaction's role may remove, and return them."""
    statement = "delete from storage.objects where bucket_id = %s and name = any(%s) returning *"
    return cursor.execute(statement, (bucket, list(names))).fetchall()


def lock_key(cursor: Cursor, bucket: str, name: str) -> None:
    """Wait for other writers of the key, then lock it until the transaction ends."""
    cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{bucket}/{name}",))


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row as answers show it: the documented fields, times in UTC to the millisecond."""
    hidden = {"path_tokens", "archived_at", "is_delete_marker", "is_versioned"}
    return {name: to_json(value) for name, value in row.items() if name not in hidden}


def described(stored: StoredObject) -> dict[str, Any]:
    """Return the answer of the info route. Its ``metadata`` is the uploader's."""
    return {
        "id": str(stored.id),
        "name": stored.name,
        "version": stored.version,
        "bucket_id": stored.bucket_id,
        "size": stored.metadata.get("size"),
        "content_type": stored.metadata.get("mimetype"),
        "cache_control": stored.metadata.get("cacheControl"),
        "etag": stored.metadata.get("eTag"),
        "metadata": stored.user_metadata,
        "last_modified": to_json(stored.updated_at),
        "created_at": to_json(stored.created_at),
    }


def _returned(cursor: Cursor) -> dict[str, Any]:
    if row := cursor.fetchone():
        return row
    raise no_such_key()
