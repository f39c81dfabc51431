"""Installing: as the project's own role, twice, closed to everybody else."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from local.postgres import Postgres
from local.stack import migrate
from tests.database.project import API_ROLES, Project
from tests.database.rows import Row

# Whatever a migration makes, as far as the catalogue can put it into words.
SCHEMA = {
    "functions": """
        select p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proowner::regrole::text, p.proacl::text,
          obj_description(p.oid, 'pg_proc')
        from pg_proc as p
        where p.pronamespace = 'ittybit'::regnamespace or p.proname like 'ittybit%' order by 1""",
    "columns": """
        select a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
          a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl::text, col_description(a.attrelid, a.attnum)
        from pg_attribute as a
        join pg_class as c on c.oid = a.attrelid
        left join pg_attrdef as d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
        where c.relnamespace = 'ittybit'::regnamespace and c.relkind = 'r' and a.attnum > 0 order by 1, a.attnum""",
    "tables": """
        select c.relname, c.relowner::regrole::text, c.relacl::text, c.relrowsecurity,
          obj_description(c.oid, 'pg_class')
        from pg_class as c where c.relnamespace = 'ittybit'::regnamespace order by 1""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'ittybit'::regnamespace order by 1, 2""",
    "indexes": "select indexname, indexdef from pg_indexes where schemaname = 'ittybit' order by 1",
    "triggers": """
        select tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), tgenabled
        from pg_trigger where not tgisinternal order by 1, 2""",
    "schemas": "select nspname, nspowner::regrole::text, nspacl::text from pg_namespace order by 1",
    "schedule": "select jobname, schedule, command, username, active from cron.job order by 1",
}
TABLES = ("rules", "jobs", "outputs", "settings", "starts", "holds", "sweep", "backfills")
RPCS = (
    "public.ittybit_claim(uuid,integer)",
    "public.ittybit_report(uuid,integer,text,text,real,jsonb,text,jsonb,integer,boolean)",
)


def schema(database: Project) -> dict[str, list[Row]]:
    return {what: rows(database, query) for what, query in SCHEMA.items()}


def rows(database: Project, query: str) -> list[Row]:
    return database.superuser.execute(query.encode()).fetchall()


def test_a_second_installation_changes_nothing(database: Project) -> None:
    assert database.value("select not rolsuper from pg_roles where rolname = current_user")
    before = schema(database)
    migrate(database.postgres)
    assert schema(database) == before
    assert {table["relname"] for table in before["tables"]} >= set(TABLES)
    assert {job["jobname"] for job in before["schedule"]} >= {"ittybit-send-due"}


def test_a_second_installation_keeps_the_data(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.settings(paused=True, starts_per_day=7)
    before = contents(database)
    migrate(database.postgres)
    assert contents(database) == before
    assert {table for table, kept in before.items() if kept} >= {"rules", "jobs", "settings"}


def test_everything_belongs_to_the_developers_role(database: Project) -> None:
    found = schema(database)
    assert {function["proowner"] for function in found["functions"]} == {"postgres"}
    assert {table["relowner"] for table in found["tables"]} == {"postgres"}
    assert {job["username"] for job in found["schedule"]} == {"postgres"}


def test_every_function_resolves_names_in_no_schema_but_those_it_names(database: Project) -> None:
    loose = """
        select p.oid::regprocedure::text as signature from pg_proc as p
        where (p.pronamespace = 'ittybit'::regnamespace or p.proname like 'ittybit%')
        -- A body that was parsed when it was made resolves nothing any more.
        and p.prosqlbody is null and not coalesce(p.proconfig, '{}') @> '{"search_path=\\"\\""}'"""
    assert rows(database, loose) == []


def test_every_table_has_row_level_security(database: Project) -> None:
    tables = rows(
        database,
        "select relname, relrowsecurity from pg_class where relnamespace = 'ittybit'::regnamespace and relkind = 'r'",
    )
    assert {table["relname"]: table["relrowsecurity"] for table in tables} == dict.fromkeys(TABLES, True)


def contents(database: Project) -> dict[str, list[Row]]:
    return {table: database.sql(f"select * from ittybit.{table}") for table in TABLES}  # noqa: S608 - from this file


@pytest.fixture(params=API_ROLES)
def outsider(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A connection of the API with one of its roles."""
    with psycopg.connect(postgres.dsn("authenticator"), autocommit=True) as connection:
        connection.execute(SQL("set role {}").format(Identifier(request.param)))
        yield connection


@pytest.mark.parametrize("table", TABLES)
def test_the_apis_roles_can_do_nothing_with_a_table(outsider: psycopg.Connection, table: str) -> None:
    name = Identifier("ittybit", table)
    for statement in (
        SQL("select from {}").format(name),
        SQL("insert into {} default values").format(name),
        SQL("delete from {}").format(name),
        SQL("truncate {}").format(name),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for schema ittybit"):
            outsider.execute(statement)


def test_the_schema_alone_does_not_keep_them_out(database: Project) -> None:
    granted = """
        select role, relname as name from pg_class, unnest(%s::text[]) as role
        where relnamespace = 'ittybit'::regnamespace and relkind = 'r'
        and has_table_privilege(role, pg_class.oid, 'select, insert, update, delete, truncate, references, trigger')
        union all
        select role, p.oid::regprocedure::text from pg_proc as p, unnest(%s::text[]) as role
        where p.pronamespace = 'ittybit'::regnamespace and has_function_privilege(role, p.oid, 'execute')"""
    assert database.superuser.execute(granted, [list(API_ROLES), list(API_ROLES)]).fetchall() == []


def test_the_apis_roles_can_execute_no_function_of_the_schema(database: Project, outsider: psycopg.Connection) -> None:
    functions = rows(
        database,
        "select proname, pronargs from pg_proc where pronamespace = 'ittybit'::regnamespace"
        " and prorettype <> 'trigger'::regtype and not 'record'::regtype = any (proargtypes)",
    )
    assert {function["proname"] for function in functions} >= {"send_due", "post", "sign", "starts_left"}
    for function in functions:
        call = SQL("select {}({})").format(
            Identifier("ittybit", function["proname"]), SQL(", ").join([SQL("null")] * function["pronargs"])
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for schema ittybit"):
            outsider.execute(call)


@pytest.mark.parametrize("role", API_ROLES)
@pytest.mark.parametrize("rpc", RPCS)
def test_only_the_service_role_may_claim_and_report(database: Project, role: str, rpc: str) -> None:
    allowed = database.value("select has_function_privilege(%s, %s, 'execute')", role, rpc)
    assert allowed == (role == "service_role")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_nobody_else_gets_an_answer_from_a_claim(database: Project, role: str) -> None:
    with database.connect("authenticator") as connection:
        connection.execute(SQL("set role {}").format(Identifier(role)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function ittybit_claim"):
            connection.execute("select public.ittybit_claim(gen_random_uuid(), 1)")


def test_uploads_by_the_apis_roles_pass_the_triggers(database: Project) -> None:
    database.rule()
    database.superuser.execute("create policy everybody on storage.objects using (true) with check (true)")
    try:
        for role in API_ROLES:
            with database.writing("storage.object.upload", role) as connection:
                connection.execute(
                    "insert into storage.objects (bucket_id, name, version, metadata)"
                    " values ('uploads', %s, gen_random_uuid(), '{\"size\": 1}')",
                    [role],
                )
    finally:
        database.superuser.execute("drop policy everybody on storage.objects")
    assert sorted(database.states()) == [(role, "queued", None) for role in sorted(API_ROLES)]
    assert database.warnings == []
