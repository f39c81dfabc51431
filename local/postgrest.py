"""The Data API's routes: ``POST /rpc/<function>`` calls ``public.<function>`` by name, ``GET /<relation>`` reads rows.

Follows PostgREST v13 in how it finds the function, in the statements and the transaction it runs, and in its answers
and errors. Leaves out:

- GET of functions, single unnamed parameters, overloads that differ only in types (PGRST203), preferences, time-outs
  of the impersonated role, and the schema cache: a new function is there at once.
- Queries beyond ``select`` with plain columns, ``eq``, ``order``, ``limit`` and ``offset``; and writing.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Final, NamedTuple, NoReturn

import psycopg
from flask import Blueprint, Response, abort, g, request
from psycopg import sql
from psycopg.rows import class_row

from local.connection_pool import Connections

# HTTP status by SQLSTATE, or else by its first two characters; the others are 400. From PostgREST's page on errors.
_STATUSES: Final = {
    "23503": 409,
    "23505": 409,
    "25006": 405,
    "42883": 404,
    "42P01": 404,
    "42P17": 500,
    "53400": 500,
    "57P01": 503,
    "P0001": 400,
    **dict.fromkeys(("08", "53"), 503),
    **dict.fromkeys(("0L", "0P", "28"), 403),
    **dict.fromkeys(("09", "25", "2D", "38", "39", "3B", "40", "54", "55", "57", "58", "F0", "HV", "P0", "XX"), 500),
}

_FIND: Final = """
select
  proretset as returns_set,
  prorettype = 'void'::regtype as returns_void,
  coalesce(proargnames[1:pronargs], '{}') as names,
  (select array(select format_type(type, null) from unnest(proargtypes::oid[]) with ordinality as _(type, i)
    order by i)) as types,
  pronargs - pronargdefaults as required
from pg_proc
where pronamespace = 'public'::regnamespace and prokind = 'f' and proname = %s
order by pronargs
"""


_NAME: Final = re.compile(r"\w+")
_ORDER: Final = re.compile(r"(\w+)(?:\.(asc|desc))?(?:\.(nullsfirst|nullslast))?")
_NULLS: Final = {None: "", "nullsfirst": " nulls first", "nullslast": " nulls last"}
_FIND_RELATION: Final = """
select exists (
  select from pg_class
  where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm', 'f', 'p') and relname = %s
)
"""


class _Function(NamedTuple):
    returns_set: bool
    returns_void: bool
    names: list[str]
    types: list[str]
    required: int

    def takes(self, given: set[str]) -> bool:
        return set(self.names[: self.required]) <= given <= set(self.names)


def create_blueprint(connections: Connections) -> Blueprint:
    """Return the routes, to be mounted at ``/rest/v1``; they take the caller from ``flask.g.role`` and ``g.sub``.

    Args:
        connections: Connections of the role ``authenticator``.
    """
    blueprint = Blueprint("postgrest", __name__)

    @blueprint.post("/rpc/<function>")
    def call(function: str) -> Response:
        body = request.get_data(as_text=True) or "{}"
        try:
            arguments = json.loads(body)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            return _error(400, "PGRST102", "Empty or invalid json")
        try:
            with connections.transaction(_begin) as connection:
                return _call(connection, function, set(arguments), body)
        except psycopg.Error as error:
            return _sql_error(error)

    @blueprint.get("/<relation>")
    def rows(relation: str) -> Response:
        try:
            with connections.transaction(_begin) as connection:
                text, count = _read(connection, relation, list(request.args.items(multi=True)))
        except psycopg.Error as error:
            return _sql_error(error)
        answer = _json(200, text)
        answer.headers["Content-Range"] = f"0-{count - 1}/*" if count else "*/*"
        return answer

    return blueprint


def _begin(connection: psycopg.Connection) -> None:
    """Give the transaction the caller's role and claims."""
    connection.execute(
        "select set_config('search_path', 'public, extensions', true), set_config('role', %s, true),"
        " set_config('request.jwt.claims', %s, true), set_config('request.method', %s, true),"
        " set_config('request.path', %s, true)",
        [g.role, json.dumps({"role": g.role, "sub": g.sub}), request.method, request.path],
    )


def _call(connection: psycopg.Connection, name: str, given: set[str], body: str) -> Response:
    """Call the function in the transaction that has begun."""
    candidates = connection.cursor(row_factory=class_row(_Function)).execute(_FIND, [name]).fetchall()
    function = next((candidate for candidate in candidates if candidate.takes(given)), None)
    if function is None:
        return _not_found(name, sorted(given))
    types = dict(zip(function.names, function.types, strict=True))
    target = sql.Identifier("public", name)
    arguments = sql.SQL(", ").join(sql.SQL("{0} => _.{0}").format(sql.Identifier(key)) for key in given)
    columns = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(key), sql.SQL(types[key])) for key in given)
    source = sql.SQL("json_to_record(%s::json) as _({})").format(columns) if given else sql.SQL("(select %s) as _")
    result = sql.SQL("coalesce(json_agg(r), '[]')" if function.returns_set else "to_json(r)")
    query = sql.SQL("select {}::text from {}, lateral {}({}) r").format(result, source, target, arguments)
    row = connection.execute(query, [body]).fetchone()
    if function.returns_void:
        return Response(status=204)
    return _json(200, "null" if row is None or row[0] is None else str(row[0]))


def _not_found(name: str, given: list[str]) -> Response:
    if given:
        parameters = f"with parameter{'s' if len(given) > 1 else ''} {', '.join(given)}"
        parameters += " or with a single unnamed json/jsonb parameter"
        call = f"public.{name}({', '.join(given)})"
    else:
        parameters = "without parameters"
        call = f"public.{name} without parameters"
    details = f"Searched for the function public.{name} {parameters}, but no matches were found in the schema cache."
    return _error(404, "PGRST202", f"Could not find the function {call} in the schema cache", details)


def _read(connection: psycopg.Connection, relation: str, parameters: list[tuple[str, str]]) -> tuple[str, int]:
    """Return the rows as JSON, and how many there are, in the transaction that has begun."""
    if connection.execute(_FIND_RELATION, [relation]).fetchone() != (True,):
        abort(_error(404, "PGRST205", f"Could not find the table 'public.{relation}' in the schema cache"))
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
    # PostgreSQL requires this order.
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
        _misread(f"select parameter ({text})")
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _order(text: str) -> sql.Composable:
    terms = [_ORDER.fullmatch(term) for term in text.split(",")]
    if not all(terms):
        _misread(f"order ({text})")
    return sql.SQL(", ").join(
        sql.SQL("{} " + (term[2] or "asc") + _NULLS[term[3]]).format(sql.Identifier(term[1])) for term in terms if term
    )


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        _misread(f"{name} parameter ({text})")
    return int(text)


def _condition(relation: str, column: str, text: str) -> sql.Composable:
    operator, dot, value = text.partition(".")
    if operator != "eq" or not dot or not _NAME.fullmatch(column):
        _misread(f"filter ({text})")
    return sql.SQL("{} = {}").format(sql.Identifier("public", relation, column), sql.Literal(value))


def _misread(what: str) -> NoReturn:
    abort(_error(400, "PGRST100", f'"failed to parse {what}" (line 1, column 1)'))


def _sql_error(error: psycopg.Error) -> Response:
    code, diagnosis = error.sqlstate, error.diag
    if code is None:
        return _error(503, "PGRST000", "Database connection error. Retrying the connection.", str(error))
    if code == "42501":
        status = 401 if g.role == "anon" else 403
    elif code.startswith("PT") and code[2:].isdecimal():
        status = int(code[2:])
    else:
        status = _STATUSES.get(code) or _STATUSES.get(code[:2], 400)
    return _error(status, code, diagnosis.message_primary or "", diagnosis.message_detail, diagnosis.message_hint)


def _error(status: int, code: str, message: str, details: str | None = None, hint: str | None = None) -> Response:
    body: dict[str, Any] = {"code": code, "details": details, "hint": hint, "message": message}
    return _json(status, json.dumps(body))


def _json(status: int | HTTPStatus, text: str) -> Response:
    return Response(text, status=status, content_type="application/json; charset=utf-8")
