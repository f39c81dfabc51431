"""The schema is closed to the API's roles, twice: the schema refuses them, and so does each object in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.sql import SQL, Composed, Identifier

from local.stack import MIGRATIONS
from tests.database.project import API_ROLES, Project
from tests.database.rows import Connection, rows

RELATIONS = """
select relname as name, relkind::text as kind from pg_class
where relnamespace = 'ittybit'::regnamespace and relkind not in ('i', 'I', 'c', 't') order by 1"""
# Null arguments are subqueries: PostgreSQL never calls a strict function with a constant null.
FUNCTIONS = """
select p.oid::regprocedure::text as signature, n.nspname as schema, p.proname as name,
  p.prorettype = 'trigger'::regtype as is_trigger, p.prosecdef as is_definer, p.proowner::regrole::text as owner,
  coalesce(p.proconfig, '{}') as settings,
  array(
    select
      case when type = 'record'::regtype then 'row(1)' else format('(select null::%s)', format_type(type, null)) end
    from unnest(p.proargtypes::oid[]) with ordinality as _ (type, place) order by place
  ) as arguments
from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
where n.nspname = 'ittybit' or p.proname like 'ittybit%' order by 1"""
# Wider than a hosted project's, which are for schema public only.
OPEN_TO_ALL = """
alter default privileges for role postgres grant usage, create on schemas to anon, authenticated, service_role;
alter default privileges for role postgres grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres grant all on sequences to anon, authenticated, service_role;
alter default privileges for role postgres grant all on functions to anon, authenticated, service_role;
"""
REMOVE = "drop schema ittybit cascade; drop function public.ittybit_claim, public.ittybit_report;"
RPCS = {"ittybit_claim", "ittybit_report"}


def uses(connection: Connection) -> Iterator[tuple[str, Composed]]:
    """Every way to use an object of the schema: the object's name, and a statement that uses it."""
    for relation in rows(connection, RELATIONS):
        name = Identifier("ittybit", relation["name"])
        ways = ["select from {}", "update {} set {} = default", "delete from {}", "insert into {} default values"]
        if relation["kind"] in "rp":
            ways += ["truncate {}", "create temp table mine (like {} including all)", "lock {} in share mode"]
        elif relation["kind"] == "S":
            ways = ["select nextval('{}')", "select last_value from {}", "select setval('{}', 1)"]
        else:
            ways = ways[:1]
        [column] = rows(
            connection,
            "select attname from pg_attribute where attrelid = %s::regclass and attnum = 1",
            f"ittybit.{relation['name']}",
        )
        for way in ways:
            yield relation["name"], SQL(way).format(name, Identifier(column["attname"]))
    for function in rows(connection, FUNCTIONS):
        name = Identifier(function["schema"], function["name"])
        if function["is_trigger"]:
            trigger = "create trigger mine before insert on pg_temp.own for each row execute function {}()"
            yield function["name"], SQL(trigger).format(name)
        else:
            arguments = SQL(", ").join(SQL(argument) for argument in function["arguments"])
            yield function["name"], SQL("select {}({})").format(name, arguments)


@contextmanager
def rolled_back(database: Project) -> Iterator[Connection]:
    """Give a superuser's transaction that leaves nothing behind."""
    with database.connect("supabase_admin") as connection, connection.transaction(force_rollback=True):
        yield connection


def install(connection: Connection) -> None:
    """Install everything anew, as the developer does."""
    connection.execute(REMOVE)
    connection.execute("set local role postgres")
    for migration in sorted(MIGRATIONS.glob("*.sql")):
        connection.execute(migration.read_bytes())
    connection.execute("reset role")


def refusals(connection: Connection, role: str) -> dict[str, set[str]]:
    """Try every use as the role; return the errors for each object, or "done" where it was allowed."""
    ways = list(uses(connection))
    connection.execute("create temp table own ()")
    connection.execute("grant all on own to public")
    found: dict[str, set[str]] = {}
    for name, way in ways:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(SQL("set local role {}").format(Identifier(role)))
                connection.execute(way)
                outcome = "done"
        except psycopg.Error as error:
            outcome = f"{error.sqlstate} {error.diag.message_primary}"
        found.setdefault(name, set()).add(outcome)
    return found


@pytest.mark.parametrize("role", API_ROLES)
def test_the_apis_roles_reach_nothing_in_the_schema(database: Project, role: str) -> None:
    with rolled_back(database) as connection:
        found = refusals(connection, role)
    assert len(found) > 40
    assert {"jobs", "status", "unseen", "post_wake_up", "record_job", "object_stored", "ittybit_claim"} <= found.keys()
    allowed = RPCS if role == "service_role" else set()
    for name, outcomes in found.items():
        wanted = f"42501 permission denied for {f'function {name}' if name in RPCS else 'schema ittybit'}"
        assert (outcomes == {wanted}) == (name not in allowed), (name, outcomes)


@pytest.mark.parametrize("role", API_ROLES)
def test_the_apis_roles_reach_nothing_even_with_an_open_schema_and_default_grants(database: Project, role: str) -> None:
    with rolled_back(database) as connection:
        connection.execute(OPEN_TO_ALL)
        install(connection)
        connection.execute("grant usage on schema ittybit to anon, authenticated, service_role")
        found = refusals(connection, role)
        # The default privileges are in force: a new table is open.
        connection.execute("set local role postgres")
        connection.execute("create table public.open_to_all ()")
        assert rows(connection, "select has_table_privilege(%s, 'public.open_to_all', 'insert') as it", role)[0]["it"]
    allowed = RPCS if role == "service_role" else set()
    for name, outcomes in found.items():
        denied = {one for one in outcomes if one.startswith("42501 ")}
        assert (outcomes == denied) == (name not in allowed), (name, outcomes)
        assert "42501 permission denied for schema ittybit" not in outcomes


def test_only_the_owner_and_the_service_role_have_privileges(database: Project) -> None:
    granted = """
        select object, grantee::regrole::text as role from (
          select relname::text as object, relacl as acl from pg_class where relnamespace = 'ittybit'::regnamespace
          union all select 'schema', nspacl from pg_namespace where nspname = 'ittybit'
          union all
          select proname::text, coalesce(proacl, acldefault('f', proowner)) from pg_proc
          where pronamespace = 'ittybit'::regnamespace or proname like 'ittybit%'
          union all
          select attname::text, attacl from pg_attribute as a join pg_class as c on c.oid = a.attrelid
          where c.relnamespace = 'ittybit'::regnamespace
        ) as _, lateral aclexplode(acl) where grantee <> 'postgres'::regrole order by 1"""
    found = rows(database.superuser, granted)
    assert [(row["object"], row["role"]) for row in found] == [(name, "service_role") for name in sorted(RPCS)]


def test_every_table_has_row_level_security_and_no_policy(database: Project) -> None:
    tables = rows(
        database.superuser,
        "select relname, relrowsecurity, (select count(*) from pg_policy where polrelid = c.oid) as policies"
        " from pg_class as c where relnamespace = 'ittybit'::regnamespace and relkind in ('r', 'p')",
    )
    assert len(tables) >= 8
    assert {(table["relrowsecurity"], table["policies"]) for table in tables} == {(True, 0)}


def test_every_security_definer_function_is_the_developers_and_has_an_empty_search_path(database: Project) -> None:
    functions = [function for function in rows(database.superuser, FUNCTIONS) if function["is_definer"]]
    assert {function["name"] for function in functions} >= {*RPCS, "object_stored", "object_removed", "post_wake_up"}
    for function in functions:
        assert function["owner"] == "postgres", function
        assert 'search_path=""' in function["settings"], function
    # It is no superuser: tricking one of its functions gives no more rights than the developer has.
    assert not database.value("select rolsuper from pg_roles where rolname = 'postgres'")
