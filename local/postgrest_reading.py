"""The Data API's reading of tables and views: ``GET /<relation>`` with ``select``, ``eq``, ``order`` and ``limit``.

Follows PostgREST v13 in the statement that it makes and in its answers. Leaves out: every other operator, embedding,
aliases, casts and JSON paths in ``select``, counts, single-object answers, ranges in headers, and writing.
"""

from __future__ import annotations

import re
from typing import Final

import psycopg
from psycopg import sql

_NAME: Final = re.compile(r"\w+")
_ORDER: Final = re.compile(r"(\w+)(?:\.(asc|desc))?(?:\.(nullsfirst|nullslast))?")
_NULLS: Final = {None: "", "nullsfirst": " nulls first", "nullslast": " nulls last"}
_FIND: Final = """
select exists (
  select from pg_class
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm', 'f', 'p') and relname = %s
)
"""


class Unreadable(Exception):
    """A request that is refused before the database is asked for rows.

    Attributes:
        status, code: of the answer.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def read(connection: psycopg.Connection, relation: str, parameters: list[tuple[str, str]]) -> tuple[str, int]:
    """Return the rows as JSON, and how many there are, in the transaction that has begun.

    Raises:
        Unreadable: There is no such relation, or a parameter is not understood.
        psycopg.Error: The database's refusal.
    """
    if connection.execute(_FIND, [relation]).fetchone() != (True,):
        raise Unreadable(404, "PGRST205", f"Could not find the table 'public.{relation}' in the schema cache")
    columns: sql.Composable = sql.SQL("*")
    ends: dict[str, sql.Composable] = {}
    conditions: list[sql.Composable] = []
    for name, value in parameters:
        if name == "select":
            columns = _columns(value)
        elif name == "order":
            ends[name] = sql.SQL(" order by {}").format(_order(value))
        elif name in {"limit", "offset"}:
            ends[name] = sql.SQL(f" {name} {{}}").format(sql.Literal(_number(name, value)))
        else:
            conditions.append(_condition(relation, name, value))
    # PostgreSQL wants them in this order.
    ending = sql.SQL("").join(ends[name] for name in ("order", "limit", "offset") if name in ends)
    where = sql.SQL(" where {}").format(sql.SQL(" and ").join(conditions)) if conditions else sql.SQL("")
    query = sql.SQL("select coalesce(json_agg(r), '[]')::text, count(*) from (select {} from {}{}{}) as r").format(
        columns, sql.Identifier("public", relation), where, ending
    )
    row = connection.execute(query).fetchone()
    return (str(row[0]), int(row[1])) if row else ("[]", 0)


def _columns(text: str) -> sql.Composable:
    names = [name.strip() for name in text.split(",")]
    if names == ["*"]:
        return sql.SQL("*")
    if not all(_NAME.fullmatch(name) for name in names):
        raise Unreadable(400, "PGRST100", f'"failed to parse select parameter ({text})" (line 1, column 1)')
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _order(text: str) -> sql.Composable:
    terms = [_ORDER.fullmatch(term) for term in text.split(",")]
    if not all(terms):
        raise Unreadable(400, "PGRST100", f'"failed to parse order ({text})" (line 1, column 1)')
    return sql.SQL(", ").join(
        sql.SQL("{} " + (term[2] or "asc") + _NULLS[term[3]]).format(sql.Identifier(term[1])) for term in terms if term
    )


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise Unreadable(400, "PGRST100", f'"failed to parse {name} parameter ({text})" (line 1, column 1)')
    return int(text)


def _condition(relation: str, column: str, text: str) -> sql.Composable:
    operator, dot, value = text.partition(".")
    if operator != "eq" or not dot or not _NAME.fullmatch(column):
        raise Unreadable(400, "PGRST100", f'"failed to parse filter ({text})" (line 1, column 1)')
    return sql.SQL("{} = {}").format(sql.Identifier("public", relation, column), sql.Literal(value))
