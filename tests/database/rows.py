"""Reads rows, and writes the rows of stored objects as storage-api v1.70.6 does."""

from __future__ import annotations

import uuid
from typing import Any, TypeAlias

import psycopg
from psycopg.types.json import Jsonb

Row: TypeAlias = dict[str, Any]
Connection: TypeAlias = psycopg.Connection[Row]

_PUT = """
insert into storage.objects (bucket_id, name, version, metadata, owner_id, user_metadata)
select %(bucket)s, name, version, %(metadata)s, %(owner_id)s, '{}'
from unnest(%(names)s::text[], %(versions)s::text[]) as stored (name, version)
on conflict (bucket_id, name) do update
set version = excluded.version, metadata = excluded.metadata, owner_id = excluded.owner_id
"""


def rows(connection: Connection, statement: str, *parameters: object) -> list[Row]:
    """Run one statement and return its rows, if it has any; ``select from`` has rows without columns."""
    cursor = connection.execute(statement.encode(), parameters or None)
    has_rows = cursor.pgresult is not None and cursor.pgresult.status == psycopg.pq.ExecStatus.TUPLES_OK
    return cursor.fetchall() if has_rows else []


def put(
    connection: Connection,
    *names: str,
    bucket: str = "uploads",
    size: int = 1000,
    etag: str | None = None,
    mimetype: str = "video/mp4",
    owner_id: str | None = None,
) -> str:
    """Write objects' rows, by default with new content; return the last one's version."""
    versions = [str(uuid.uuid4()) for _ in names]
    metadata = {"eTag": f'"{etag or versions[0]}"', "size": size, "mimetype": mimetype, "contentLength": size}
    connection.execute(
        _PUT,
        {
            "bucket": bucket,
            "names": list(names),
            "versions": versions,
            "metadata": Jsonb(metadata),
            "owner_id": owner_id,
        },
    )
    return versions[-1]
