"""Objects that the triggers never saw: stored while they were disabled, or before there was a ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.database.project import Project

_STORE = """
insert into storage.objects (bucket_id, name, version, metadata, owner_id, user_metadata)
select %(bucket)s, name, gen_random_uuid(), %(metadata)s::jsonb || jsonb_build_object(
  'eTag', gen_random_uuid(),
  'lastModified', to_char(now() - %(age)s * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
), %(owner_id)s, '{}'
from unnest(%(names)s::text[]) as stored (name)
on conflict (bucket_id, name) do update set version = excluded.version, metadata = excluded.metadata
"""
_MANY = """
insert into storage.objects (bucket_id, name, version, metadata)
select %(bucket)s, 'many/' || lpad(n::text, 6, '0') || '.mp4', gen_random_uuid(), jsonb_build_object(
  'eTag', n, 'size', 1000, 'mimetype', 'video/mp4', 'lastModified', to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
)
from generate_series(1, %(count)s) as n
"""


@contextmanager
def triggers_off(database: Project) -> Iterator[None]:
    """Turn the triggers off for the superuser's connection."""
    database.superuser.execute("set session_replication_role = replica")
    try:
        yield
    finally:
        database.superuser.execute("reset session_replication_role")


def store(
    database: Project,
    *names: str,
    bucket: str = "uploads",
    size: int | None = 1000,
    age: float = -0.1,
    owner_id: str | None = "a-user",
) -> None:
    """Store or overwrite objects without triggers; ``age`` is in seconds, by default a moment in the future."""
    metadata = json.dumps({"mimetype": "video/mp4"} | ({} if size is None else {"size": size}))
    with triggers_off(database):
        database.superuser.execute(
            _STORE,
            {"bucket": bucket, "names": list(names), "metadata": metadata, "age": age, "owner_id": owner_id},
        )


def store_many(database: Project, count: int, *, bucket: str = "uploads") -> None:
    """Store many/000001.mp4 and so on, without triggers."""
    with triggers_off(database):
        database.superuser.execute(_MANY, {"bucket": bucket, "count": count})
        database.superuser.execute("analyze storage.objects")
