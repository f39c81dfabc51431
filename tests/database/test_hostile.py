"""Text that strangers choose is never run. Functions and types that others left in the database are never used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database.project import RUN, TASK, Project
from tests.database.rows import Connection, Row, put, rows
from tests.database.test_closed import install, rolled_back
from tests.database.without_triggers import store, triggers_off

# A trap that runs notes itself here, with the role that it ran as.
CATCH = """
create table public.caught (what text, by name default current_user);
grant insert on public.caught to public;
"""
TRAP = "language plpgsql as $$ begin insert into public.caught values ('{0}'); return {1}; end $$"
# Better matches for the migrations' calls than PostgreSQL's own, which take any type; and some equal ones.
IN_PUBLIC = {
    "format(text, numeric, integer)": ("text", "'x'"),
    "format(text, numeric, bigint)": ("text", "'x'"),
    "format(text, text, timestamptz)": ("text", "'x'"),
    "format(text, bigint, integer)": ("text", "'x'"),
    "format(text, bigint, text)": ("text", "'x'"),
    "format(text, timestamptz)": ("text", "'x'"),
    "to_jsonb(storage.objects)": ("jsonb", "'{}'"),
    "count(text)": ("bigint", "1"),
    "num_nonnulls(text, jsonb)": ("integer", "1"),
    "jsonb_build_object(text, uuid, text, integer)": ("jsonb", "'{}'"),
    "length(varchar)": ("integer", "1"),
    "lower(text)": ("text", "'x'"),
    "now()": ("timestamptz", "null"),
    "gen_random_uuid()": ("uuid", "null"),
}
OPERATORS = {
    "~": ("text, text", "boolean"),
    "->>": ("jsonb, text", "text"),
    "?": ("jsonb, varchar", "boolean"),
    ">=": ("bigint, integer", "boolean"),
    "||": ("text, integer", "text"),
    "=": ("text, varchar", "boolean"),
}
# A session's own types come before PostgreSQL's unless a search_path says otherwise. These names are no keywords.
TYPES = ("text", "jsonb", "json", "uuid", "timestamptz", "bytea", "name", "int4", "int8", "bool", "float4", "numeric")
TABLES = ("jobs", "rules", "settings", "outputs", "holds", "starts", "objects", "buckets", "http_request_queue")

OTHERS = """
select oid::regprocedure::text as signature from pg_proc
where pronamespace in ('net'::regnamespace, 'extensions'::regnamespace, 'cron'::regnamespace)
and prolang in (select oid from pg_language where lanname in ('sql', 'plpgsql'))"""


@contextmanager
def as_role(connection: Connection, role: str) -> Iterator[Connection]:
    """Give the connection the settings that storage-api writes with for a caller of this role."""
    connection.execute(
        "select set_config('role', %s, true), set_config('storage.operation', 'storage.object.upload', true),"
        " set_config('storage.allow_delete_query', 'true', true)",
        [role],
    )
    yield connection
    connection.execute("reset role")


def set_traps(connection: Connection, schema: str) -> None:
    """Make functions and operators in a schema that note when they run."""
    for signature, (result, value) in IN_PUBLIC.items():
        connection.execute(
            f"create function {schema}.{signature} returns {result} {TRAP.format(signature, value)}".encode()
        )
    for number, (operator, (types, result)) in enumerate(OPERATORS.items()):
        left, _, right = types.partition(", ")
        body = TRAP.format(operator, "null")
        connection.execute(f"create function {schema}.trap_{number}({types}) returns {result} {body}".encode())
        connection.execute(
            f"create operator {schema}.{operator}"
            f" (leftarg = {left}, rightarg = {right}, function = {schema}.trap_{number})".encode()
        )


def set_temporary_traps(connection: Connection) -> None:
    """Make temporary types that note who uses them, and temporary tables with the names of ours."""
    connection.execute("create temp table placeholder ()")
    for one in TYPES:
        trap = TRAP.format(f"pg_temp.{one}", "true")
        kind = f"pg_catalog.{one}"
        connection.execute(f"create function pg_temp.trap(value {kind}) returns pg_catalog.bool {trap}".encode())
        connection.execute(f"create domain pg_temp.{one} as {kind} check (pg_temp.trap(value))".encode())
    for table in TABLES:
        connection.execute(f"create temp table {table} ()".encode())
        connection.execute(f"grant all on pg_temp.{table} to public".encode())


def use_everything(connection: Connection) -> None:
    """Upload, overwrite, move and delete as a signed-in user; then call everything as the developer."""
    with as_role(connection, "authenticated"):
        put(connection, "a.mp4", "b.mp4", "folder/c.mp4", owner_id="somebody")
        put(connection, "a.mp4")
        connection.execute("update storage.objects set name = 'd.mp4', version = 'v2' where name = 'b.mp4'")
        connection.execute("delete from storage.objects where name = 'folder/c.mp4'")
    work = [
        "select ittybit.wake_functions(), ittybit.sweep_page(), ittybit.backfill_page(), ittybit.tidy('0 s')",
        "select * from ittybit.status",
        "select ittybit.explain('uploads', 'a.mp4')",
        "select ittybit.backfill('clips', true)",
        "select ittybit.backfill_page(), ittybit.pause(), ittybit.resume(), ittybit.stop_backfill('clips')",
        "select public.ittybit_claim(name, 'https://p.test', 50) from ittybit.functions",
        "select public.ittybit_report(jsonb_agg(jsonb_build_object('job', id, 'generation', generation,"
        " 'attempt', attempt, 'outcome', 'failed', 'error', '{\"status\": 400}'::pg_catalog.jsonb))) from ittybit.jobs",
        "select ittybit.retry(id) from ittybit.jobs where state = 'failed'",
        "select * from ittybit.doctor()",
        "select ittybit.adopt('https://p.test', 'look'), ittybit.adopt('https://p.test', 'skip')",
        "select ittybit.secret_signature()",
        "insert into ittybit.rules (name, bucket_id, task) select 'again', bucket_id, task"
        """ || '{"destination": "s3://results/{dir}{stem}.again"}' from ittybit.rules where task is not null limit 1""",
        "delete from ittybit.rules where name = 'again'",
    ]
    for statement in work:
        with connection.transaction():
            connection.execute("set local role postgres")
            connection.execute(statement.encode())


def prepare(connection: Connection) -> None:
    """Let signed-in users write, and make rules of both kinds for what they write."""
    connection.execute(CATCH)
    connection.execute("create policy everybody on storage.objects using (true) with check (true)")
    connection.execute(
        "update ittybit.functions set url = 'https://f.test/' || name; update ittybit.settings set project = null"
    )
    connection.execute(
        "insert into ittybit.rules (name, bucket_id, automation_id) values ('clips', 'uploads', 'auto_1')"
    )
    connection.execute(
        "insert into ittybit.rules (name, bucket_id, mimetype, min_size, max_size, task)"
        " values ('task', 'uploads', 'video/*', 1, 9999, %s)",
        [Jsonb(TASK)],
    )


def caught(connection: Connection) -> list[Any]:
    return rows(connection, "select distinct what, by::text from public.caught")


def test_functions_and_operators_that_others_left_in_public_are_never_called(
    database: Project,
) -> None:
    with rolled_back(database) as connection:
        connection.execute("grant create on schema public to authenticated")
        connection.execute("set local role authenticated")
        connection.execute("set local search_path = public")
        connection.execute(CATCH)
        connection.execute("drop table public.caught")
        set_traps(connection, "public")
        connection.execute("reset role")
        connection.execute("reset search_path")
        install(connection)
        prepare(connection)
        # The traps work, and match better than PostgreSQL's own.
        connection.execute("set local search_path = public")
        connection.execute("select format('%s of %s', 1::numeric, 2), '{}'::jsonb ? 'a'::varchar")
        assert len(caught(connection)) == 2
        connection.execute("delete from public.caught")
        use_everything(connection)
        assert caught(connection) == []
        assert rows(connection, "select count(*) as it from ittybit.jobs")[0]["it"] >= 6


def test_nothing_in_the_schema_depends_on_anything_in_public(database: Project) -> None:
    bound = """
        select pg_describe_object(classid, objid, objsubid) as ours, pg_describe_object(refclassid, refobjid, 0) as it
        from pg_depend where refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
        and (refobjid in (select oid from pg_proc where pronamespace = 'public'::regnamespace)
          or refobjid in (select oid from pg_operator where oprnamespace = 'public'::regnamespace)
          or refobjid in (select oid from pg_type where typnamespace = 'public'::regnamespace))"""
    assert rows(database.superuser, bound) == []


def test_a_sessions_own_types_and_tables_are_never_used(database: Project) -> None:
    with rolled_back(database) as connection:
        # Functions of pg_net and others do use them: docs/security.md says whom that concerns.
        for function in rows(connection, OTHERS):
            connection.execute(f"alter function {function['signature']} set search_path = pg_catalog, pg_temp".encode())
        prepare(connection)
        connection.execute("set local role authenticated")
        connection.execute("set local search_path = ''")
        set_temporary_traps(connection)
        # The traps work.
        connection.execute("select 'x'::text, '{}'::jsonb")
        connection.execute("reset role")
        assert len(caught(connection)) == 2
        connection.execute("delete from public.caught")
        use_everything(connection)
        # The session may run its traps as itself.
        assert {one["by"] for one in caught(connection)} <= {"authenticated"}
        assert rows(connection, "select count(*) as it from ittybit.jobs")[0]["it"] >= 6


HOSTILE = [
    "'; drop table public.canary; --",
    "'); drop table public.canary; select ('",
    "$$; drop table public.canary; $$",
    "\\'; drop table public.canary; --",
    "%s %I %L %1$s %%",
    '" or ""="',
    "a\\",
    "a%' or true --",
    "_%_%\\%",
    "{name}{dir}{stem}",
    "s3://results/../x",
    "../../other/x",
    "a\nb\r\tc\x1b[31m\x7f",
    "a\u2028b\u2029c\u0085d\u202e",
    "ittybit: forged",
    "{1,2}",
    "x" * 400,
]


@pytest.fixture
def canary(database: Project) -> Iterator[None]:
    """Fails the test when anything but rows was changed."""
    shape = "select md5(string_agg(oid::regclass::text, ',' order by oid)) as it from pg_class"
    database.superuser.execute("create table public.canary as select 1 as alive")
    before = rows(database.superuser, shape)
    yield
    assert rows(database.superuser, "select alive from public.canary") == [{"alive": 1}]
    assert rows(database.superuser, shape) == before
    database.superuser.execute("drop table public.canary")


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_stored_objects_is_kept_unchanged(database: Project, text: str) -> None:
    database.superuser.execute("insert into storage.buckets (id, name) values (%s, %s)", [text, text[:100]])
    try:
        database.rule("automation", bucket_id=text)
        database.rule("task", bucket_id=text, task=TASK | {"options": {text: text}})
        database.rule("run", bucket_id=text, run=json.loads(json.dumps(RUN).replace("{stem}", "{stem}-run")))
        database.rule("glob", bucket_id=text, path=text.replace("*", ""))
        for name in (text, f"{text}/{text}", f"{text}.mp4"):
            with database.writing("storage.object.upload", "supabase_storage_admin") as connection:
                put(connection, name, bucket=text, mimetype=text, etag=text, owner_id=text)
            version = f"{text} 2"
            with database.writing("storage.object.move", "supabase_storage_admin") as connection:
                connection.execute(
                    "update storage.objects set version = %s, metadata = metadata || %s where name = %s",
                    [version, Jsonb({"eTag": text + "2", "lastModified": text}), name],
                )
            jobs = database.sql("select * from ittybit.jobs where name = %s and version = %s", name, version)
            assert {job["rule"] for job in jobs} >= {"automation", "task", "run"}
            assert {(job["bucket_id"], job["name"], job["etag"]) for job in jobs} == {(text, name, text + "2")}
            tasks = [(job["state"], job["action"]["task"]) for job in jobs if "task" in job["action"]]
            assert {task["options"] == {text: text} for _, task in tasks} == {True}
            places = [task["destination"] for state, task in tasks if state != "skipped"]
            runs = [job["action"]["run"] for job in jobs if "run" in job["action"] and job["state"] != "skipped"]
            places += re.findall(r'"url": "([^"]*)"', json.dumps(runs))
            assert all(re.fullmatch(r"s3://results/[A-Za-z0-9_!.*'() &$@=;:+,?-][^%<>|{}\n]*", one) for one in places)
            assert not [one for one in places if {"", ".", ".."} & set(one.removeprefix("s3://").split("/"))]
            assert len(database.sql("select * from ittybit.explain(%s, %s)", text, name)) >= 3
        assert database.warnings == []
        assert database.sql("select * from ittybit.jobs where rule = 'glob' and name = %s", text)
        database.wake()
        database.sql("select ittybit.sweep_page(), ittybit.retry_failed(%s), ittybit.stop_backfill(%s)", text, text)
        with pytest.raises(psycopg.errors.NoDataFound):
            database.sql("select ittybit.backfill(%s)", text)
    finally:
        with triggers_off(database):
            database.superuser.execute("delete from storage.objects")
            database.superuser.execute("delete from storage.buckets where id = %s", [text])


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_reports_is_kept_unchanged(database: Project, lease: Row, text: str) -> None:
    error = {"kind": text, "message": text, "status": text}
    answer = database.report(lease, "retry", error=error, reason=text, outputs=[text], in_doubt=True)
    assert answer == {"job": lease["job"]}
    assert (database.job()["error"], database.job()["reason"]) == (error, text)
    lease = database.next_lease()
    assert text in database.report(lease, text)["refused"]
    assert all("refused" in one for one in database.reports(text, {"job": text, "outcome": "failed"}))
    database.report(lease, "succeeded", ittybit_id=text, outputs=[text, text])
    assert (database.job()["ittybit_id"], database.job()["outputs"]) == (text, [text, text])


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_rules_is_refused_or_harmless(database: Project, text: str) -> None:
    refused: list[dict[str, Any]] = [
        {"automation_id": text},
        {"task": TASK | {"kind": text}},
        {"run": {"tasks": [{"kind": text}]}},
        {"run": {"tasks": [{"kind": "video", text: []}]}},
        {"mimetype": text},
    ]
    for columns in refused:
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InvalidParameterValue)):
            database.rule(**{"name": "a", **columns})
    try:
        database.rule("b", task=TASK | {"destination": f"s3://results/{text}"})
        database.put("a.mp4")
        task = database.job()["action"]["task"]
        assert task["destination"].startswith("s3://results/")
        assert ".." not in task["destination"]
    except psycopg.errors.InvalidParameterValue:
        assert database.sql("select from ittybit.rules") == []


@pytest.mark.usefixtures("canary")
@pytest.mark.parametrize("text", HOSTILE)
def test_a_folder_with_a_hostile_name_is_matched_literally(database: Project, text: str) -> None:
    database.sql("insert into ittybit.outputs values ('uploads', %s, gen_random_uuid())", f"{text}/")
    store(database, f"{text}/a.mp4")
    assert database.value("select ittybit.tidy()") == 0
    with triggers_off(database):
        database.superuser.execute("update storage.objects set name = 'elsewhere/a.mp4'")
    assert database.value("select ittybit.tidy()") == 1
