"""Rows of ``storage.buckets``."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from pydantic import BaseModel

from local.storage_server.database import Caller, Cursor
from local.storage_server.errors import StorageError, already_exists, invalid_request, no_such_bucket
from local.storage_server.keys import check_bucket_name, check_mimetype_patterns, size_in_bytes
from local.storage_server.objects import owner_values
from local.storage_server.timestamps import to_json

_SHOWN = ("id", "name", "owner", "public", "file_size_limit", "allowed_mime_types", "created_at", "updated_at")
_CHANGEABLE = ("public", "file_size_limit", "allowed_mime_types")


class BucketSettings(BaseModel):
    """What may be changed of a bucket.

    Attributes:
        public: Whether everybody may read its objects.
        file_size_limit: The greatest object's size in bytes, or with a unit, e.g. ``20MB``.
        allowed_mime_types: Patterns such as ``video/*``; None allows all.
    """

    public: bool = False
    file_size_limit: int | str | None = None
    allowed_mime_types: list[str] | None = None

    def columns(self, *, unset: bool = True) -> dict[str, Any]:
        """Return the values of the row's columns, on demand without those that the request does not name.

        Raises:
            StorageError: A size or a pattern that cannot be read.
        """
        check_mimetype_patterns(self.allowed_mime_types or [])
        values = self.model_dump(include=set(_CHANGEABLE), exclude_unset=not unset)
        if isinstance(limit := values.get("file_size_limit"), str):
            values["file_size_limit"] = size_in_bytes(limit)
        return values


class NewBucket(BucketSettings):
    """A bucket to create.

    Attributes:
        name: What the dashboard shows, and without ``id`` the bucket's address too.
        id: The bucket's address.
    """

    name: str
    id: str | None = None


def create(cursor: Cursor, caller: Caller, new: NewBucket) -> None:
    """Insert a bucket as the transaction's role.

    Raises:
        StorageError: ``InvalidBucketName``, ``BucketAlreadyExists`` or a limit that cannot be read.
    """
    address = new.id or new.name
    check_bucket_name(new.name)
    check_bucket_name(address)
    values = {"id": address, "name": new.name, **new.columns(), **owner_values(caller)}
    columns = sql.SQL(", ").join(map(sql.Identifier, values))
    places = sql.SQL(", ").join(sql.Placeholder() * len(values))
    statement = sql.SQL("insert into storage.buckets ({}) values ({})").format(columns, places)
    try:
        cursor.execute(statement, list(values.values()))
    except psycopg.errors.UniqueViolation as error:
        raise already_exists("BucketAlreadyExists") from error


def get(cursor: Cursor, bucket_id: str) -> dict[str, Any]:
    """Return the bucket's row.

    Raises:
        StorageError: ``NoSuchBucket``.
    """
    if row := cursor.execute("select * from storage.buckets where id = %s", (bucket_id,)).fetchone():
        return row
    raise no_such_bucket()


def every(cursor: Cursor) -> list[dict[str, Any]]:
    """Return the buckets that the transaction's role may see, by name."""
    return cursor.execute("select * from storage.buckets order by name").fetchall()


def update(cursor: Cursor, bucket_id: str, settings: BucketSettings) -> None:
    """Change the settings that the request names, as the transaction's role.

    Raises:
        StorageError: The request names none, ``NoSuchBucket``, or a limit that cannot be read.
    """
    values = settings.columns(unset=False)
    if not values:
        missing = [f"body must have required property '{name}'" for name in _CHANGEABLE]
        raise invalid_request(", ".join([*missing, "body must match a schema in anyOf"]))
    changes = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in values)
    statement = sql.SQL("update storage.buckets set {} where id = %s").format(changes)
    if not cursor.execute(statement, [*values.values(), bucket_id]).rowcount:
        raise no_such_bucket()


def delete(cursor: Cursor, bucket_id: str) -> None:
    """Remove an empty bucket.

    Raises:
        StorageError: ``NoSuchBucket`` or ``ResourceNotEmpty``.
    """
    get(cursor, bucket_id)
    if cursor.execute("select from storage.objects where bucket_id = %s limit 1", (bucket_id,)).rowcount:
        raise StorageError(409, "ResourceNotEmpty", "The bucket you tried to delete is not empty")
    if not cursor.execute("delete from storage.buckets where id = %s", (bucket_id,)).rowcount:
        raise no_such_bucket()


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row as it stands in an answer; no owner is an empty one there."""
    return {name: to_json(row[name]) for name in _SHOWN} | {"owner": str(row["owner"] or "")}
