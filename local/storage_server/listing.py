"""Lists of objects: one page of keys under a prefix, with folders if a delimiter is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from local.storage_server.database import Cursor
from local.storage_server.errors import StorageError

MAX_LIMIT: Final = 1000
_SORT_COLUMNS: Final = ("name", "created_at", "updated_at", "last_accessed_at")

# All times of a folder are when its oldest object was created. S3 promises bytewise order ("C"). The last "where" skips
# the folder that ended the previous page: the keys in it follow its name.
_PAGE: Final = """
with matching as (
  select name collate "C" as name, id, metadata, created_at, updated_at, last_accessed_at,
         case when %(delimiter)s::text is null then 0
              else strpos(substr(name, length(%(prefix)s) + 1), %(delimiter)s) end as cut
  from storage.objects
  where bucket_id = %(bucket)s and starts_with(name, %(prefix)s) and name collate "C" > %(after)s
), entries as (
  select name, false as folder, id, metadata, created_at, updated_at, last_accessed_at
  from matching where cut = 0
  union all
  select substr(name, 1, length(%(prefix)s) + cut + length(%(delimiter)s) - 1), true, null, null,
         min(created_at), min(created_at), min(created_at)
  from matching where cut > 0 group by 1
)
select * from entries where name > %(after)s
order by {sort} {direction}, name {direction}
limit %(limit)s offset %(offset)s
"""


@dataclass(frozen=True)
class Query:
    """What to list.

    Attributes:
        prefix: How the names begin.
        delimiter: What ends a folder's name; None lists the objects of all folders.
        limit: The maximum number of entries, folders included.
        offset: How many entries to skip at the start.
        column: What to sort by: ``name`` or one of the times.
        descending: The order.
        after: List only names after this one, e.g. the last name of the previous page.
    """

    prefix: str = ""
    delimiter: str | None = None
    limit: int = MAX_LIMIT
    offset: int = 0
    column: str = "name"
    descending: bool = False
    after: str = ""


@dataclass(frozen=True)
class Page:
    """One page, in order, and whether there are more. Rows have ``folder`` and full names."""

    entries: Sequence[dict[str, Any]]
    more: bool


def page(cursor: Cursor, bucket: str, query: Query) -> Page:
    """Return one page of what the transaction's role may see.

    Raises:
        StorageError: ``InvalidParameter``; lists cannot be sorted by this column.
    """
    if query.column not in _SORT_COLUMNS:
        raise StorageError(400, "InvalidParameter", "Invalid Parameter sortBy")
    direction = sql.SQL("desc" if query.descending else "asc")
    statement = sql.SQL(_PAGE).format(sort=sql.Identifier(query.column), direction=direction)
    limit = max(1, min(query.limit, MAX_LIMIT))
    rows = cursor.execute(statement, {**vars(query), "bucket": bucket, "limit": limit + 1}).fetchall()
    return Page(rows[:limit], len(rows) > limit)
