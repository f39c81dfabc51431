"""The sweep records each object that the triggers missed, once, at a cost that does not grow with the bucket."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.database.cost import pages, rows_scanned, with_kept_plans
from tests.database.project import TASK, Project
from tests.database.rows import Connection, Row
from tests.database.without_triggers import store, store_many, triggers_off


def sweep(database: Project, page: int = 500) -> int:
    """Sweep one page, and return how many jobs it recorded."""
    return int(database.value("select ittybit.sweep_page(%s)", page))


def sweep_round(database: Project, page: int = 500) -> int:
    """Sweep every bucket once, and return how many jobs that recorded."""
    rounds = "select rounds from ittybit.sweep"
    before, made = database.value(rounds), 0
    while database.value(rounds) == before:
        made += sweep(database, page)
    return made


def names(database: Project) -> list[str]:
    return sorted(job["name"] for job in database.jobs())


def place(database: Project) -> Row:
    [row] = database.sql("select bucket_id, name from ittybit.sweep")
    return row


def test_an_object_that_the_triggers_missed_is_recorded_once(database: Project) -> None:
    database.rule()
    store(database, "a.mp4", "b/c.mp4")
    assert sweep_round(database) == 2
    assert [sweep_round(database) for _ in range(3)] == [0, 0, 0]
    assert sorted(database.states()) == [("a.mp4", "queued", None), ("b/c.mp4", "queued", None)]
    assert database.value("select healed from ittybit.sweep") == 2
    assert not any(job["backfill"] for job in database.jobs())
    # pg_cron's next tick wakes the function for them.
    assert (database.messages(), database.wake()) == ([], 1)


def test_an_object_that_has_a_job_gets_no_other(database: Project) -> None:
    database.rule()
    store(database, "a.mp4", "failed.mp4", "skipped.mp4")
    assert sweep_round(database) == 3
    database.sql("update ittybit.jobs set state = 'failed', due_at = null where name = 'failed.mp4'")
    database.sql("update ittybit.jobs set state = 'skipped', reason = 'backfill_stopped' where name = 'skipped.mp4'")
    before = database.jobs()
    assert sweep_round(database) == 0
    assert database.jobs() == before


def test_an_overwrite_that_the_triggers_missed_gets_a_new_job(database: Project) -> None:
    database.rule()
    store(database, "a.mp4")
    sweep_round(database)
    store(database, "a.mp4")
    assert sweep_round(database) == 1
    old, new = database.jobs()
    assert [one["job"] for one in database.claim()] == [str(new["id"])]
    assert database.sql("select reason from ittybit.jobs where id = %s", old["id"]) == [{"reason": "superseded"}]


def test_the_sweep_starts_only_content_newer_than_the_rule(database: Project) -> None:
    database.rule()
    store(database, "older.mp4", age=60)
    store(database, "newer.mp4")
    assert sweep_round(database) == 1
    assert names(database) == ["newer.mp4"]


def test_the_sweep_does_not_start_content_of_unknown_age(database: Project) -> None:
    database.rule()
    store(database, "a.mp4", "b.mp4", "c.mp4")
    with triggers_off(database):
        database.superuser.execute(
            "update storage.objects set metadata = metadata - 'lastModified' where name = 'a.mp4'"
        )
        database.superuser.execute(
            """update storage.objects set metadata = metadata || '{"lastModified": "soon"}' where name = 'b.mp4'"""
        )
    assert sweep_round(database) == 1
    assert names(database) == ["c.mp4"]


@pytest.mark.parametrize("change", ["enabled = false", "path = '*.mov'"])
def test_a_widened_rule_does_not_apply_to_earlier_objects(database: Project, change: str) -> None:
    database.rule()
    database.sql(f"update ittybit.rules set {change}")  # noqa: S608 - constants of this file
    store(database, "meanwhile.mp4", age=0)
    assert sweep_round(database) == 0
    database.sql("update ittybit.rules set enabled = true, path = '**'")
    store(database, "after.mp4")
    assert sweep_round(database) == 1
    assert names(database) == ["after.mp4"]


def test_an_object_that_no_rule_matches_gets_no_job(database: Project) -> None:
    database.rule(path="clips/*", mimetype="video/*", max_size=2000)
    store(database, "a.mp4", "clips/b/c.mp4")
    store(database, "clips/big.mp4", size=2001)
    store(database, "clips/trial.mp4", size=None)
    store(database, "clips/a.mp4", bucket="results")
    assert sweep_round(database) == 0
    assert database.jobs() == []


def test_an_object_is_recorded_only_for_the_rule_that_missed_it(database: Project) -> None:
    database.rule("first")
    store(database, "a.mp4")
    sweep_round(database)
    database.rule("second", task=TASK)
    database.sql("update ittybit.rules set active_since = now() - interval '1 hour'")
    assert sweep_round(database) == 1
    assert sorted(job["rule"] for job in database.jobs()) == ["first", "second"]


def test_each_page_continues_where_the_last_one_ended(database: Project) -> None:
    database.rule()
    store(database, *(f"{number:02}.mp4" for number in range(10)))
    made = [sweep(database, 4) for _ in range(3)]
    assert made == [4, 4, 2]
    assert place(database) == {"bucket_id": "", "name": ""}
    assert len(set(names(database))) == 10


def test_a_bucket_that_ends_with_a_full_page_ends_with_the_next(database: Project) -> None:
    database.rule()
    store(database, "1.mp4", "2.mp4")
    assert [sweep(database, 2), sweep(database, 2)] == [2, 0]
    assert database.value("select rounds from ittybit.sweep") == 1


def test_a_killed_page_is_repeated(database: Project) -> None:
    database.rule()
    store(database, *(f"{number:02}.mp4" for number in range(10)))
    assert sweep(database, 4) == 4
    with database.connect("postgres") as connection, connection.transaction(force_rollback=True):
        [row] = connection.execute("select ittybit.sweep_page(4) as made").fetchall()
        assert row["made"] == 4
    assert place(database)["name"] == "03.mp4"
    assert [sweep(database, 4), sweep(database, 4)] == [4, 2]
    assert len(set(names(database))) == len(names(database)) == 10


def test_the_sweep_visits_every_bucket_that_a_rule_watches(database: Project) -> None:
    for bucket in ("published", "results", "uploads"):
        store(database, "a.mp4", bucket=bucket, age=-60)
    database.rule("uploads")
    database.rule("published", bucket_id="published")
    assert sweep_round(database, 1) == 2
    assert {job["bucket_id"] for job in database.jobs()} == {"published", "uploads"}

    # A bucket is no longer watched, in the middle of its sweep.
    store(database, "b.mp4", "c.mp4", bucket="published", age=-60)
    assert sweep(database, 2) == 1
    assert place(database) == {"bucket_id": "published", "name": "b.mp4"}
    database.sql("delete from ittybit.rules where name = 'published'")
    store(database, "b.mp4", age=-60)
    assert sweep_round(database) == 1
    assert {job["name"] for job in database.jobs() if job["bucket_id"] == "uploads"} == {"a.mp4", "b.mp4"}


def test_an_object_stored_behind_the_sweep_is_found_in_the_next_round(database: Project) -> None:
    database.rule()
    store(database, *(f"{number:02}.mp4" for number in range(0, 10, 2)))
    sweep(database, 2)
    with triggers_off(database):
        database.superuser.execute("delete from storage.objects where name in ('02.mp4', '04.mp4')")
    store(database, "01.mp4", "05.mp4")
    sweep_round(database, 2)
    assert "05.mp4" in names(database)
    assert "01.mp4" not in names(database)
    sweep_round(database, 2)
    assert "01.mp4" in names(database)


def test_without_rules_the_sweep_reads_nothing(database: Project) -> None:
    store(database, "a.mp4")
    assert sweep_round(database) == 0
    assert place(database) == {"bucket_id": "", "name": ""}


def test_one_of_several_simultaneous_sweeps_does_the_page(database: Project) -> None:
    database.rule()
    store(database, *(f"{number:02}.mp4" for number in range(40)))
    together = threading.Barrier(4)
    connections = [database.connect("postgres") for _ in range(4)]

    def run(connection: Connection) -> int:
        made = 0
        for _ in range(5):
            together.wait()
            [row] = connection.execute("select ittybit.sweep_page(5) as made").fetchall()
            made += row["made"]
        return made

    try:
        with ThreadPoolExecutor(4) as threads:
            made = sum(threads.map(run, connections))
    finally:
        for connection in connections:
            connection.close()
    made += sweep_round(database)
    assert made == len(names(database)) == len(set(names(database))) == 40


def test_a_sweep_does_not_wait_for_one_that_is_running(database: Project) -> None:
    database.rule()
    store(database, "a.mp4")
    with database.connect("postgres") as connection, connection.transaction(force_rollback=True):
        connection.execute("select ittybit.sweep_page()")
        assert sweep(database) == 0
    assert sweep(database) == 1


def test_a_sweep_during_an_upload_records_it_once(database: Project) -> None:
    database.rule()
    with database.writing("storage.object.upload") as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version, metadata) values ('uploads', 'a.mp4', 'v',"
            " jsonb_build_object('size', 1, 'mimetype', 'video/mp4', 'lastModified', now()))"
        )
        assert sweep_round(database) == 0
    assert sweep_round(database) == 0
    assert database.states() == [("a.mp4", "queued", None)]


def test_a_task_without_a_possible_destination_is_recorded_with_the_reason(database: Project) -> None:
    database.rule("owned", task=TASK | {"destination": "s3://results/{owner_id}/{stem}.mp4"})
    database.rule("itself", task=TASK | {"destination": "s3://uploads/{dir}{stem}.mp4"})
    store(database, "a.mp4", owner_id=None)
    sweep_round(database)
    assert sorted((job["rule"], job["reason"]) for job in database.jobs()) == [
        ("itself", "destination_is_source"),
        ("owned", "no_destination"),
    ]


@pytest.mark.parametrize(
    ("automation", "reason"),
    [({}, "origin_unknown"), ({"output_prefix": "made/"}, None), ({"task": TASK}, None)],
    ids=["no prefix", "a prefix", "a task"],
)
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_the_sweep_starts_no_ownerless_object_if_an_automation_may_write_anywhere(
    database: Project, automation: dict[str, Any], reason: str | None, is_elsewhere: bool
) -> None:
    database.rule("automation", bucket_id="published" if is_elsewhere else "uploads", **automation)
    if is_elsewhere:
        database.rule("other", task=TASK | {"destination": "s3://results/other/{name}.jpeg"}, accept_s3=True)
    store(database, "nobodys.mp4", owner_id=None)
    store(database, "somebodys.mp4")
    sweep_round(database)
    expected = ("skipped" if reason else "queued", reason)
    assert sorted(database.states()) == [("nobodys.mp4", *expected), ("somebodys.mp4", "queued", None)]
    [unknown] = database.jobs("nobodys.mp4")
    if reason:
        assert database.value("select ittybit.retry(%s)", unknown["id"])
        assert database.job("nobodys.mp4")["state"] == "queued"


def test_the_cost_of_a_page_does_not_grow_with_bucket_and_ledger(database: Project) -> None:
    costs: list[int] = []
    # Both are so large that the indexes have equally many levels: a lookup reads one page for each.
    for count in (16_000, 40_000):
        database.reset()
        database.rule(task=TASK)
        database.sql("update ittybit.rules set active_since = now() - interval '1 hour'")
        store_many(database, count)
        # All but a few have a job.
        with triggers_off(database):
            database.superuser.execute(
                "insert into ittybit.jobs (rule, bucket_id, name, version, action, function, state, finished_at)"
                " select 'clips', bucket_id, name, version, '{}', 'on-upload', 'succeeded', now() from storage.objects"
                " where right(name, 6) <> '99.mp4'"
            )
            database.superuser.execute("analyze ittybit.jobs")
        database.sql("update ittybit.sweep set bucket_id = 'uploads', name = %s", f"many/{count // 2:06}.mp4")
        with database.connect("supabase_admin") as connection:
            with_kept_plans(connection)
            for _ in range(7):
                pages(connection, "select ittybit.sweep_page(100)")
            with connection.transaction():
                costs.append(pages(connection, "select ittybit.sweep_page(100)"))
                assert rows_scanned(connection, "storage.objects") == 0
                assert rows_scanned(connection, "ittybit.jobs") == 0
        assert database.value("select healed from ittybit.sweep") == 8
    small, large = costs
    assert large < small * 1.3
