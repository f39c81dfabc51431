"""Installing as the developer's role, once and twice. test_closed.py tests the privileges."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local.stack import MIGRATIONS, migrate
from tests.database.project import API_ROLES, TASK, Project, report
from tests.database.rows import Row, put

# Everything that a migration makes, as the catalogue describes it.
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
    "schemas": """
        select nspname, nspowner::regrole::text, nspacl::text
        from pg_namespace where nspname !~ '^pg_(toast_)?temp_' order by 1""",
    "schedule": "select jobname, schedule, command, username, active from cron.job order by 1",
}
TABLES = ("rules", "jobs", "outputs", "functions", "settings", "starts", "holds", "sweep", "backfills")


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
    assert {job["jobname"] for job in before["schedule"]} >= {"ittybit-wake-up"}


def test_a_second_installation_keeps_the_data(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.settings(paused=True, starts_per_day=7)
    before = contents(database)
    migrate(database.postgres)
    assert contents(database) == before
    assert {table for table, kept in before.items() if kept} >= {"rules", "jobs", "settings"}


@pytest.mark.parametrize("migration", sorted(MIGRATIONS.glob("*.sql")), ids=lambda file: file.stem.partition("_")[2])
def test_a_second_installation_and_uploads_do_not_wait_for_each_other(database: Project, migration: Path) -> None:
    database.rule()
    database.rule("task", task=TASK)
    database.put("overwritten.mp4", "moved.mp4", "deleted.mp4")
    leases = database.claim()
    with (
        database.connect("supabase_storage_admin") as uploading,
        uploading.transaction(),
        database.connect("postgres") as installing,
        installing.transaction(),
    ):
        put(uploading, "under-way.mp4")
        installing.execute("set local lock_timeout = '1s'")
        installing.execute(migration.read_bytes())
        # Neither is committed.
        database.put("new.mp4", "overwritten.mp4")
        database.move("moved.mp4", "to.mp4")
        database.delete("deleted.mp4")
        database.reports(*(report(one, "started", ittybit_id=one["job"]) for one in leases))
        database.wake()
    assert database.warnings == []
    assert len(database.jobs("under-way.mp4")) == len(database.jobs("new.mp4")) == len(database.jobs("to.mp4")) == 2


def changes(body: str) -> list[str]:
    """Every UPDATE and DELETE in a function's body, without the text in parentheses."""
    found = []
    body = re.sub("--.*", "", body)
    for change in re.finditer(r"\b(update|delete from) \w+\.", body):
        depth, text = 0, ""
        for character in body[change.start() :]:
            depth += (character == "(") - (character == ")")
            if depth < 0 or (depth == 0 and character == ";"):
                break
            text += character if depth == 0 else ""
        found.append(text)
    return found


def test_every_update_and_delete_has_a_where(database: Project) -> None:
    """safeupdate, which a project may have on, refuses an UPDATE or DELETE without WHERE."""
    functions = database.sql(
        "select prosrc from pg_proc where pronamespace = 'ittybit'::regnamespace or proname like 'ittybit%%'"
    )
    found = [change for function in functions for change in changes(function["prosrc"])]
    assert len(found) >= 40
    assert [change for change in found if not re.search(r"\swhere\s", change)] == []


def test_the_developers_role_owns_everything(database: Project) -> None:
    found = schema(database)
    assert {function["proowner"] for function in found["functions"]} == {"postgres"}
    assert {table["relowner"] for table in found["tables"]} == {"postgres"}
    assert {job["username"] for job in found["schedule"]} == {"postgres"}


def test_every_function_has_an_empty_search_path_or_a_parsed_body(database: Project) -> None:
    loose = """
        select p.oid::regprocedure::text as signature from pg_proc as p
        where (p.pronamespace = 'ittybit'::regnamespace or p.proname like 'ittybit%')
        -- A body that was parsed when it was created looks up no names later.
        and p.prosqlbody is null and not coalesce(p.proconfig, '{}') @> '{"search_path=\\"\\""}'"""
    assert rows(database, loose) == []


def contents(database: Project) -> dict[str, list[Row]]:
    return {table: database.sql(f"select * from ittybit.{table}") for table in TABLES}  # noqa: S608 - from this file


def test_uploads_by_each_of_the_apis_roles_are_recorded(database: Project) -> None:
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
