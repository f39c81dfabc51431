"""Calling functions through the project's single origin, with every kind of key."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import httpx
import psycopg
import pytest
from flask import Blueprint, g

from local import gateway
from local.connection_pool import Connections
from local.gateway import ProjectKeys, create_app
from local.json_web_tokens import InvalidToken
from local.postgres import Postgres
from local.postgrest import create_blueprint
from local.server import Server

KEYS = ProjectKeys.make()
FUNCTIONS = """
create table public.notes (id uuid primary key, body jsonb);
create function public.echo(a jsonb, b integer default 7, c text default null, d uuid default null) returns jsonb
  language sql as $$ select jsonb_build_object('a', a, 'b', b, 'c', c, 'd', d) $$;
create function public.me() returns jsonb language sql as $$
  select jsonb_build_object('user', current_user, 'sub', current_setting('request.jwt.claims', true)::jsonb ->> 'sub')
$$;
create function public.closed() returns int language sql as 'select 1';
revoke all on function public.closed() from public, anon, authenticated;
create function public.nothing() returns text language sql as 'select null::text';
create function public.silent() returns void language sql as 'select';
create function public.numbers() returns setof int language sql as 'select generate_series(1, 2)';
create function public.note(id uuid) returns uuid language sql
  as 'insert into public.notes (id) values ($1) returning id';
create function public.fail(state text) returns void language plpgsql as $$
begin
  raise exception 'no' using errcode = state, detail = 'd', hint = 'h';
end $$;
create function public.note_and_fail(id uuid) returns void language plpgsql as $$
begin
  insert into public.notes (id) values (note_and_fail.id);
  raise exception 'after';
end $$;
"""


@pytest.fixture(scope="module")
def origin(postgres: Postgres) -> Iterator[str]:
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        connection.execute(FUNCTIONS)
    storage = Blueprint("storage", __name__)

    @storage.route("/<path:path>", methods=["GET", "POST", "PUT"])
    def show(path: str) -> dict[str, str | None]:
        return {"path": path, "role": g.role, "sub": g.sub, "refused": g.refused_token}

    connections = Connections(lambda: psycopg.connect(postgres.dsn("authenticator")))
    rest = create_blueprint(connections)
    with Server(create_app(KEYS, {"/rest/v1": rest, "/storage/v1": storage})) as server:
        yield server.origin
    connections.close()


@pytest.fixture
def service(origin: str) -> Iterator[httpx.Client]:
    headers = {"apikey": KEYS.secret_key}
    with httpx.Client(base_url=f"{origin}/rest/v1/rpc", headers=headers, trust_env=False) as client:
        yield client


def test_arguments_are_passed_by_name_and_cast_to_the_declared_types(service: httpx.Client) -> None:
    some_id = str(uuid.uuid4())
    answer = service.post("/echo", json={"d": some_id, "a": {"x": [1, None]}, "c": "3"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json() == {"a": {"x": [1, None]}, "b": 7, "c": "3", "d": some_id}


@pytest.mark.parametrize(
    ("function", "status", "text"),
    [("nothing", 200, "null"), ("silent", 204, ""), ("numbers", 200, "[1, 2]"), ("closed", 200, "1")],
)
def test_results(service: httpx.Client, function: str, status: int, text: str) -> None:
    answer = service.post(f"/{function}")
    assert (answer.status_code, answer.text) == (status, text)


def test_a_call_is_one_transaction(service: httpx.Client, database: psycopg.Connection) -> None:
    kept, lost = str(uuid.uuid4()), str(uuid.uuid4())
    assert service.post("/note", json={"id": kept}).json() == kept
    assert service.post("/note_and_fail", json={"id": lost}).status_code == 400
    assert database.execute("select id::text from public.notes").fetchall() == [(kept,)]
    again = service.post("/note", json={"id": kept})
    assert (again.status_code, again.json()["code"]) == (409, "23505")


@pytest.mark.parametrize(
    ("function", "arguments", "message", "searched"),
    [
        ("missing", {}, "public.missing without parameters", "public.missing without parameters"),
        (
            "echo",
            {"b": 1},
            "public.echo(b)",
            "public.echo with parameter b or with a single unnamed json/jsonb parameter",
        ),
        (
            "echo",
            {"z": 1, "a": 1},
            "public.echo(a, z)",
            "public.echo with parameters a, z or with a single unnamed json/jsonb parameter",
        ),
        ('x"; drop table notes; --', {}, 'public.x"; drop table notes; -- without parameters', None),
    ],
)
def test_an_unknown_function(
    service: httpx.Client, function: str, arguments: dict[str, Any], message: str, searched: str | None
) -> None:
    answer = service.post(f"/{function}", json=arguments)
    assert answer.status_code == 404
    body = answer.json()
    assert body["code"] == "PGRST202"
    assert body["message"] == f"Could not find the function {message} in the schema cache"
    if searched is not None:
        expected = f"Searched for the function {searched}, but no matches were found in the schema cache."
        assert body["details"] == expected


def test_argument_names_are_not_run_as_sql(service: httpx.Client, database: psycopg.Connection) -> None:
    database.execute('create or replace function public.odd("a"" b" text) returns text language sql as \'select $1\'')
    assert service.post("/odd", json={'a" b': "ok"}).json() == "ok"


@pytest.mark.parametrize("body", ["{", "[]", "1", '"x"'])
def test_a_body_that_is_no_json_object(service: httpx.Client, body: str) -> None:
    answer = service.post("/echo", content=body)
    expected = {"code": "PGRST102", "details": None, "hint": None, "message": "Empty or invalid json"}
    assert (answer.status_code, answer.json()) == (400, expected)


@pytest.mark.parametrize(
    ("state", "status"),
    [("P0001", 400), ("22023", 400), ("23503", 409), ("25006", 405), ("40001", 500), ("42501", 403),
     ("53300", 503), ("57014", 500), ("XX000", 500), ("PT418", 418)],
)  # fmt: skip
def test_errors_of_sql(service: httpx.Client, state: str, status: int) -> None:
    answer = service.post("/fail", json={"state": state})
    expected = {"code": state, "details": "d", "hint": "h", "message": "no"}
    assert (answer.status_code, answer.json()) == (status, expected)


def test_a_value_of_the_wrong_type(service: httpx.Client) -> None:
    answer = service.post("/note", json={"id": "no uuid"})
    assert (answer.status_code, answer.json()["code"]) == (400, "22P02")


def test_a_database_that_is_down(service: httpx.Client, postgres: Postgres) -> None:
    postgres.crash()
    try:
        answer = service.post("/me")
    finally:
        postgres.restart()
    assert (answer.status_code, answer.json()["code"]) == (503, "PGRST000")
    assert service.post("/me").status_code == 200


USER = "8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e"
USER_JWT = KEYS.jwt("authenticated", USER)


@pytest.mark.parametrize(
    ("headers", "user", "sub"),
    [
        ({"apikey": KEYS.secret_key}, "service_role", None),
        ({"apikey": KEYS.secret_key, "Authorization": f"Bearer {KEYS.secret_key}"}, "service_role", None),
        ({"apikey": KEYS.publishable_key}, "anon", None),
        ({"apikey": KEYS.service_role_jwt, "Authorization": f"Bearer {KEYS.service_role_jwt}"}, "service_role", None),
        ({"apikey": KEYS.anon_jwt}, "anon", None),
        ({"apikey": KEYS.publishable_key, "Authorization": f"Bearer {USER_JWT}"}, "authenticated", USER),
    ],
)
def test_the_role_of_each_kind_of_key(origin: str, headers: dict[str, str], user: str, sub: str | None) -> None:
    answer = httpx.post(f"{origin}/rest/v1/rpc/me", headers=headers, trust_env=False)
    assert answer.json() == {"user": user, "sub": sub}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "No API key found in request"),
        ({"Authorization": f"Bearer {KEYS.service_role_jwt}"}, "No API key found in request"),
        ({"apikey": "sb_secret_wrong"}, "Invalid API key"),
        ({"apikey": ProjectKeys.make().service_role_jwt}, "Invalid API key"),
        ({"apikey": KEYS.jwt("supabase_admin")}, "Invalid API key"),
        ({"apikey": f"{KEYS.anon_jwt[:-4]}AAAA"}, "Invalid API key"),
        ({"apikey": "é.é.é"}, "Invalid API key"),
        ({"apikey": KEYS.publishable_key, "Authorization": f"Bearer {KEYS.secret_key}"}, "No suitable key"),
        ({"apikey": KEYS.secret_key, "User-Agent": "Mozilla/5.0"}, "Forbidden use of secret API key in browser"),
    ],
)
def test_invalid_keys_are_refused(origin: str, headers: dict[str, str], message: str) -> None:
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    answer = httpx.post(f"{origin}/rest/v1/rpc/me", headers=encoded, trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize("key", [KEYS.publishable_key, KEYS.anon_jwt], ids=["publishable", "legacy"])
def test_a_function_closed_to_anon_is_a_401_for_it(origin: str, key: str) -> None:
    answer = httpx.post(f"{origin}/rest/v1/rpc/closed", headers={"apikey": key}, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (401, "42501")


@pytest.mark.parametrize(
    ("claims", "seconds", "accepted"),
    [
        ({"role": "anon"}, 60, True),
        ({"role": "anon"}, -1, False),
        ({"role": "postgres"}, 60, False),
        ({}, 60, False),
    ],
)
def test_a_token_is_accepted_until_it_expires_and_for_the_apis_roles(
    claims: dict[str, str], seconds: float, accepted: bool
) -> None:
    token = gateway._sign({**claims, "exp": time.time() + seconds}, KEYS.jwt_secret)
    with nullcontext() if accepted else pytest.raises(InvalidToken):
        assert KEYS.claims(token)["role"] == "anon"


def test_storage_accepts_a_bearer_token_alone_and_object_keys_with_empty_segments(origin: str) -> None:
    headers = {"Authorization": f"Bearer {USER_JWT}"}
    answer = httpx.get(f"{origin}/storage/v1/object/b//x", headers=headers, trust_env=False)
    assert answer.json() == {"path": "object/b//x", "role": "authenticated", "sub": USER, "refused": None}


def test_storage_itself_refuses_callers_without_a_valid_token(origin: str) -> None:
    for headers, reason in (
        ({}, None),
        ({"Authorization": f"Bearer {KEYS.secret_key}"}, "Invalid Compact JWS"),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=x"}, None),
    ):
        answer = httpx.put(f"{origin}/storage/v1/object/b/x", headers=headers, trust_env=False)
        assert (answer.json()["role"], answer.json()["refused"]) == (None, reason)


@pytest.fixture(scope="module")
def counted(origin: str, postgres: Postgres) -> str:
    """The address of a table that signed-in users may read. They may not read the table next to it."""
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        connection.execute(
            "create table public.counted as select n, case when n % 2 = 0 then 'even, \"so\"' else 'odd' end as kind"
            " from generate_series(1, 5) as n; revoke all on public.counted from anon;"
            " create table public.shut (); revoke all on public.shut from authenticated"
        )
    return f"{origin}/rest/v1/counted"


def get(address: str, token: str = USER_JWT, **parameters: str) -> httpx.Response:
    headers = {"apikey": KEYS.publishable_key, "Authorization": f"Bearer {token}"}
    return httpx.get(address, params=parameters, headers=headers, trust_env=False)


@pytest.mark.parametrize(
    ("parameters", "rows"),
    [
        ({"select": "n", "kind": "eq.odd", "order": "n.desc", "limit": "2"}, [{"n": 5}, {"n": 3}]),
        ({"kind": 'eq.even, "so"', "n": "eq.4"}, [{"n": 4, "kind": 'even, "so"'}]),
        ({"select": "kind,n", "order": "kind,n.desc", "limit": "1", "offset": "1"}, [{"kind": 'even, "so"', "n": 2}]),
        ({"select": "*", "kind": "eq.none"}, []),
    ],
)
def test_rows_of_a_table(counted: str, parameters: dict[str, str], rows: list[dict[str, Any]]) -> None:
    answer = get(counted, **parameters)
    assert (answer.status_code, answer.json()) == (200, rows)
    assert answer.headers["content-range"] == (f"0-{len(rows) - 1}/*" if rows else "*/*")


@pytest.mark.parametrize(
    ("table", "parameters", "status", "code"),
    [
        ("missing", {}, 404, "PGRST205"),
        ("shut", {}, 403, "42501"),
        ("counted", {"m": "eq.1"}, 400, "42703"),
        ("counted", {"n": "eq.x"}, 400, "22P02"),
        ("counted", {"n": "gt.1"}, 400, "PGRST100"),
        ("counted", {"select": "n;drop"}, 400, "PGRST100"),
        ("counted", {"order": "n.down"}, 400, "PGRST100"),
        ("counted", {"limit": "-1"}, 400, "PGRST100"),
    ],
)
def test_rows_that_are_refused(counted: str, table: str, parameters: dict[str, str], status: int, code: str) -> None:
    answer = get(counted.replace("counted", table), **parameters)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_rows_are_closed_to_roles_without_a_grant(counted: str) -> None:
    answer = get(counted, KEYS.anon_jwt)
    assert (answer.status_code, answer.json()["code"]) == (401, "42501")
