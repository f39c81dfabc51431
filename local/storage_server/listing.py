"""Lists of objects: one page of keys under a prefix, with folders where a delimiter is given."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from local.storage_server.database import Cursor
from local.storage_server.errors import StorageError

MOST: Final = 1000
SORT_COLUMNS: Final = ("name", "created_at", "updated_at", "last_accessed_at")

# A folder's times are those of the first object in it. Bytewise order ("C") is what S3 promises.
_PAGE: Final = """
with matching as (
  select name collate "C" as name, id, metadata, created_at, updated_at, last_accessed_at,
         case when %(delimiter)s::text is null then 0
              else strpos(substr(name, length(%(prefix)s) + 1), %(delimiter)s) end as cut
  from storage.objects
  where bucket_id = %(bucket)s and starts_with(name, %(prefix)s) and name collate "C" > %(start_after)s
), entries as (
  select name, false as folder, id, metadata, created_at, updated_at, last_accessed_at
  from matching where cut = 0
  union all
  select substr(name, 1, length(%(prefix)s) + cut + length(%(delimiter)s) - 1), true, null, null,
         min(created_at), min(created_at), min(created_at)
  from matching where cut > 0 group by 1
)
select *, {sort}::text as sort_value from entries
where %(name)s::text is null or ({sort}, name) {beyond} (%(value)s, %(name)s collate "C")
order by {sort} {direction}, name {direction}
limit %(limit)s offset %(offset)s
"""


@dataclass(frozen=True)
class Query:
    """What to list.

    Attributes:
        prefix: How the names begin.
        delimiter: What ends a folder's name; None lists all objects however deep.
        limit: The greatest number of entries, folders included.
        offset: How many entries to leave out at the start.
        column: One of ``SORT_COLUMNS``.
        descending: The order.
        start_after: Names up to this one are left out.
        cursor: Where the page before ended (``Page.cursor``).
    """

    prefix: str = ""
    delimiter: str | None = None
    limit: int = MOST
    offset: int = 0
    column: str = "name"
    descending: bool = False
    start_after: str = ""
    cursor: str | None = None


@dataclass(frozen=True)
class Page:
    """One page, in order; ``cursor`` is None on the last. Rows carry ``folder``, and full names."""

    entries: Sequence[dict[str, Any]]
    cursor: str | None


def page(cursor: Cursor, bucket: str, query: Query) -> Page:
    """Return one page of what the transaction's role may see.

    Raises:
        StorageError: ``InvalidParameter``; the cursor is none of ours, or the column cannot be sorted by.
    """
    if query.column not in SORT_COLUMNS:
        raise StorageError(400, "InvalidParameter", "Invalid Parameter sortBy")
    value, name = _decoded(query.cursor) if query.cursor else (None, None)
    sort = sql.Identifier(query.column)
    if query.column != "name":
        sort_key: sql.Composable = sql.SQL("date_trunc('milliseconds', {})").format(sort)
    else:
        sort_key = sort
    statement = sql.SQL(_PAGE).format(
        sort=sort_key,
        beyond=sql.SQL("<" if query.descending else ">"),
        direction=sql.SQL("desc" if query.descending else "asc"),
    )
    limit = max(1, min(query.limit, MOST))
    parameters = {
        "bucket": bucket,
        "prefix": query.prefix,
        "delimiter": query.delimiter,
        "start_after": query.start_after,
        "value": value,
        "name": name,
        "limit": limit + 1,
        "offset": query.offset,
    }
    rows = cursor.execute(statement, parameters).fetchall()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(rows[:limit], _encoded(last["sort_value"], last["name"]) if last else None)


def _encoded(value: str, name: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([value, name]).encode()).decode()


def _decoded(token: str) -> tuple[str, str]:
    try:
        value, name = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError) as error:
        raise StorageError(400, "InvalidParameter", "Invalid Parameter continuation token") from error
    return str(value), str(name)
