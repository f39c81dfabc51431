"""The cost of an upload is bounded, for any name and metadata and for any number of rules and waiting jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg.types.json import Jsonb

from tests.database.cost import pages, with_kept_plans
from tests.database.project import TASK, Project
from tests.database.rows import put
from tests.database.without_triggers import store, triggers_off

LONG = 100_000
# Without the bound on a key's length, these names take minutes; with it, a moment.
NAMES = {
    "folders": "a/" * (LONG // 2) + "x",
    "one part": "a" * LONG,
    "slashes": "/" * LONG,
    "dots": "a." * (LONG // 2),
}
GLOBS = ["**a**a**a**a**a**a**a**a**b", "*a" * 60 + "b", "**/**/**/**/**/**/x", "**" + "a*b" * 40, "**a?" * 60]
PENDING = """
insert into ittybit.jobs (rule, bucket_id, name, version, action, function, due_at)
select 'clips', 'uploads', 'waiting/' || n, n, '{"automation_id": "auto_1"}', 'on-upload', now() - n * interval '1 ms'
from generate_series(%s::integer, %s::integer) as n"""
UPLOAD = """
create or replace function pg_temp.upload(key text) returns void language sql as $$
  insert into storage.objects (bucket_id, name, version, metadata) values
    ('uploads', key, gen_random_uuid(), jsonb_build_object('size', 1000, 'eTag', key))
  on conflict (bucket_id, name) do update set version = excluded.version, metadata = excluded.metadata
$$"""


@contextmanager
def limited(database: Project) -> Iterator[None]:
    """Cancel each statement of Storage that takes five seconds."""
    database.storage.execute("set statement_timeout = '5s'")
    try:
        yield
    finally:
        database.storage.execute("reset statement_timeout")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_longer_than_a_key_may_be_is_skipped_at_little_cost(database: Project, name: str) -> None:
    database.rule(task=TASK)
    database.rule("glob", path=GLOBS[0])
    database.sql("insert into ittybit.outputs values ('uploads', 'made/', gen_random_uuid())")
    with limited(database):
        database.put(name)
        database.put(name)
        database.move(name, name + "z")
        database.delete(name + "z")
    assert database.states() == []
    store(database, name)
    database.sql("update ittybit.rules set active_since = '-infinity'")
    assert database.value("select ittybit.sweep_page()") == 0
    explained = database.sql("select because from ittybit.explain('uploads', %s)", name)
    assert len(explained) == 2
    assert all("the key is longer than 1024 characters" in row["because"] for row in explained)


def test_the_longest_key_is_processed(database: Project) -> None:
    database.rule(task=TASK)
    database.put("a/" * 509 + "b.mov", "c" * 1025)
    [job] = database.jobs()
    assert (len(job["name"]), job["state"]) == (1023, "queued")
    database.claim("push-back")
    assert database.outputs() == [("results", "a/" * 509 + "b.mp4")]


def test_an_object_whose_results_key_would_be_too_long_is_skipped(database: Project) -> None:
    database.rule(task=TASK | {"destination": "s3://results/{name}.mp4"})
    database.put("c" * 1020, "d" * 1021)
    [fits, exceeds] = sorted(database.jobs(), key=lambda job: str(job["name"]))
    assert (fits["state"], exceeds["state"], exceeds["reason"]) == ("queued", "skipped", "no_destination")


@pytest.mark.parametrize(("path", "jobs"), [("folder-#/**", 1), ("**", 1000)], ids=["one matches", "all match"])
def test_uploads_succeed_with_a_thousand_rules_for_their_bucket(database: Project, path: str, jobs: int) -> None:
    database.sql(
        "insert into ittybit.rules (name, bucket_id, path, automation_id)"
        " select 'rule-' || n, 'uploads', replace(%s, '#', n::text), 'auto_1' from generate_series(1, 1000) as n",
        path,
    )
    with limited(database):
        database.put("folder-7/a.mp4")
    assert (len(database.jobs()), database.warnings) == (jobs, [])


@pytest.mark.parametrize("glob", GLOBS)
def test_no_name_makes_a_glob_slow(database: Project, glob: str) -> None:
    database.rule(path=glob)
    with limited(database):
        for piece in ("a", "/", "ab", "a/", "a?"):
            database.put((piece * 1024)[:1024])
    assert database.warnings == []


def test_an_uploaders_metadata_is_copied_neither_into_the_ledger_nor_into_wake_ups(database: Project) -> None:
    database.rule(mimetype="video/*")
    claims = {"size": 1, "mimetype": "video/" + "x" * 500_000, "mine": "y" * 500_000, "eTag": "e"}
    with limited(database), database.writing("storage.object.upload") as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version, metadata, user_metadata) values"
            " ('uploads', 'a.mp4', 'v', %s, %s)",
            [Jsonb(claims), Jsonb({"secret of the user's": "z" * 500_000})],
        )
    assert database.value("select octet_length(to_jsonb(j)::text) from ittybit.jobs as j") < 2000
    assert (
        database.value("select octet_length(q.headers::text) + octet_length(q.body) from net.http_request_queue q")
        < 500
    )


def cost_of_uploading(database: Project, prefix: str) -> list[int]:
    """Pages that an upload, an overwrite and another upload read, not counting a session's first ones."""
    with database.connect("supabase_admin") as connection:
        with_kept_plans(connection)
        connection.execute(UPLOAD.encode())
        # Planning reads pages too. These uploads and overwrites get it done.
        for key in (*range(7), *range(7)):
            pages(connection, f"select pg_temp.upload('{prefix}/{key}')")
        return [pages(connection, f"select pg_temp.upload('{prefix}/{key}')") for key in ("a", "a", "b")]


def test_waiting_jobs_do_not_slow_an_upload(database: Project) -> None:
    database.rule()
    costs = []
    for first, last in ((1, 200), (201, 20_000)):
        with triggers_off(database):
            database.superuser.execute(PENDING, [first, last])
            database.superuser.execute("analyze ittybit.jobs")
        costs.append(cost_of_uploading(database, str(last)))
    few, many = costs
    # Some indexes have one more level.
    assert sum(many) < sum(few) * 1.3
    assert put(database.storage, "after.mp4")
    assert database.job("after.mp4")["state"] == "queued"
