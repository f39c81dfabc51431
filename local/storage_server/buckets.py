"""Rows of ``storage.buckets``. Left out: checking that ``allowed_mime_types`` are media types."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from pydantic import BaseModel

from local.storage_server.database import Caller, Cursor, to_json
from local.storage_server.errors import StorageError, already_exists, no_such_bucket
from local.storage_server.keys import check_bucket_name, size_in_bytes
from local.storage_server.objects import owner_values

_SHOWN = ("id", "name", "owner", "public", "file_size_limit", "allowed_mime_types", "created_at", "updated_at")


class NewBucket(BaseModel):
    """A bucket to create.

    Attributes:
        name: What the dashboard shows; also the bucket's address if there is no ``id``.
        id: The bucket's address.
        public: Whether everybody may read its objects.
        file_size_limit: The maximum size of an object, in bytes or with a unit, e.g. ``20MB``.
        allowed_mime_types: Patterns such as ``video/*``; None allows all.
    """

    name: str
    id: str | None = None
    public: bool = False
    file_size_limit: int | str | None = None
    allowed_mime_types: list[str] | None = None


def create(cursor: Cursor, caller: Caller, new: NewBucket) -> None:
    """Insert a bucket as the transaction's role.

    Raises:
        StorageError: ``InvalidBucketName``, ``BucketAlreadyExists``, or ``InvalidRequest`` (a malformed limit).
    """
    check_bucket_name(new.name)
    check_bucket_name(new.id or new.name)
    limit = new.file_size_limit
    values = {
        "id": new.id or new.name,
        "name": new.name,
        "public": new.public,
        "file_size_limit": size_in_bytes(limit) if isinstance(limit, str) else limit,
        "allowed_mime_types": new.allowed_mime_types,
        **owner_values(caller),
    }
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
    """Return the buckets that the transaction's role may see, sorted by name."""
    return cursor.execute("select * from storage.buckets order by name").fetchall()


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
    """Return the row as answers show it, with an empty string for no owner."""
    return {name: to_json(row[name]) for name in _SHOWN} | {"owner": str(row["owner"] or "")}
