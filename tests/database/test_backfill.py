"""A backfill processes older objects on request: exactly those of its plan, after all live uploads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.database.cost import pages, rows_scanned, with_kept_plans
from tests.database.project import TASK, Project
from tests.database.rows import Connection, Row
from tests.database.without_triggers import store, store_many, triggers_off

OLD = 86400.0


def backfill(database: Project, rule: str = "clips", *, run: bool = False, cap: int | None = None) -> Row:
    [answer] = database.sql("select * from ittybit.backfill(%s, run => %s, cap => %s)", rule, run, cap)
    return answer


def page(database: Project, size: int = 500) -> int:
    """Run one tick of the backfill, and return how many jobs it recorded."""
    return int(database.value("select ittybit.backfill_page(%s)", size))


def walk(database: Project, size: int = 500) -> int:
    """Run the backfill to its end, let each job succeed at once, and return how many it recorded."""
    made = 0
    for _ in range(20):
        made += page(database, size)
        database.sql(
            "update ittybit.jobs set state = 'succeeded', due_at = null, finished_at = now()"
            " where backfill and state = 'queued'"
        )
        if progress(database)["state"] != "running":
            return made
    raise AssertionError(f"still running: {progress(database)}")


def progress(database: Project) -> Row:
    [row] = database.sql("select * from ittybit.backfills")
    return row


def names(database: Project) -> list[str]:
    return sorted(job["name"] for job in database.jobs())


@pytest.fixture
def older(database: Project) -> Project:
    """A project with six objects that are older than their rule: 0.mp4 to 5.mp4, of 100 to 105 bytes."""
    for number in range(6):
        store(database, f"{number}.mp4", age=OLD, size=100 + number)
    database.rule()
    return database


def test_without_run_a_backfill_only_returns_its_plan(older: Project) -> None:
    assert backfill(older) == {
        "state": "plan",
        "files": 6,
        "bytes": 615,
        "recorded": 0,
        "sample": ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4"],
    }
    assert page(older) == 0
    assert (older.jobs(), older.sql("select * from ittybit.backfills")) == ([], [])


@pytest.mark.parametrize("size", [1, 2, 3, 6, 500])
def test_exactly_the_planned_objects_are_recorded(older: Project, size: int) -> None:
    plan = backfill(older)
    assert backfill(older, run=True) == plan | {"state": "running"}
    assert walk(older, size) == plan["files"]
    assert names(older) == [f"{number}.mp4" for number in range(6)]
    assert older.value("select sum(size) from ittybit.jobs") == plan["bytes"]
    assert all(job["backfill"] for job in older.jobs())
    done = progress(older)
    assert (done["state"], done["recorded"], done["ended_at"] is not None) == ("done", 6, True)
    assert page(older) == 0
    assert backfill(older)["files"] == 0


@pytest.mark.parametrize("size", [1, 2, 500])
def test_a_cap_limits_a_backfill_to_the_first_objects_of_its_plan(older: Project, size: int) -> None:
    plan = backfill(older, run=True, cap=3)
    assert (plan["files"], plan["bytes"], plan["sample"]) == (3, 303, ["0.mp4", "1.mp4", "2.mp4"])
    assert walk(older, size) == 3
    assert names(older) == ["0.mp4", "1.mp4", "2.mp4"]
    # The next backfill continues with the rest.
    assert backfill(older, run=True, cap=10)["sample"] == ["3.mp4", "4.mp4", "5.mp4"]
    assert walk(older, size) == 3
    assert len(set(names(older))) == 6


def test_objects_deleted_during_a_backfill_are_not_replaced_by_others(older: Project) -> None:
    backfill(older, run=True, cap=3)
    older.delete("1.mp4")
    assert walk(older) == 2
    assert names(older) == ["0.mp4", "2.mp4"]
    assert (progress(older)["state"], progress(older)["recorded"]) == ("done", 2)


@pytest.mark.parametrize("seen", [True, False])
def test_objects_stored_during_a_backfill_are_not_part_of_it(older: Project, seen: bool) -> None:
    backfill(older, run=True)
    if seen:
        older.put("0.mp4", "00.mp4", "9.mp4")
    else:
        store(older, "0.mp4", "00.mp4", "9.mp4")
    assert walk(older) == 5
    # Jobs of one transaction have the same time, so they are sorted by name.
    made = sorted(job["name"] for job in older.jobs() if job["backfill"])
    assert made == [f"{number}.mp4" for number in range(1, 6)]


@pytest.mark.parametrize("cap", [None, 3])
@pytest.mark.parametrize("size", [4, 500])
def test_a_backfill_includes_objects_of_unknown_age_but_no_more_than_planned(
    older: Project, cap: int | None, size: int
) -> None:
    forget = "update storage.objects set metadata = metadata - 'lastModified'"
    with triggers_off(older):
        older.superuser.execute(forget)
    planned = backfill(older, run=True, cap=cap)["files"]
    assert planned == (cap or 6)
    # Their metadata does not show that these are new.
    store(older, *(f"{number}-new.mp4" for number in range(6)))
    with triggers_off(older):
        older.superuser.execute(forget)
    assert walk(older, size) == planned
    assert (progress(older)["state"], progress(older)["recorded"]) == ("done", planned)


def test_a_backfill_includes_objects_without_an_owner(older: Project) -> None:
    store(older, "nobodys.mp4", age=OLD, owner_id=None)
    assert backfill(older, run=True)["files"] == 7
    walk(older)
    assert older.job("nobodys.mp4")["reason"] is None


def test_objects_that_are_never_processed_are_neither_planned_nor_recorded(database: Project) -> None:
    store(database, "processed/a.mp4", "reserved.mp4", ".ittybit/a.mp4", "hls/a/0.ts", age=OLD)
    store(database, "empty.mp4", "new/.emptyFolderPlaceholder", age=OLD, size=0)
    store(database, "a.mov", age=OLD)
    database.sql(
        "insert into ittybit.outputs values ('uploads', 'reserved.mp4', gen_random_uuid()),"
        " ('uploads', 'hls/a/', gen_random_uuid())"
    )
    database.rule("near", path="**.mp4")
    database.rule("far", bucket_id="results")
    database.rule("all", task=TASK | {"destination": "s3://uploads/{name}.mp4"})
    plan = backfill(database, "all", run=True)
    assert (plan["files"], plan["sample"]) == (1, ["a.mov"])
    walk(database)
    assert names(database) == ["a.mov"]
    assert backfill(database, "near", run=True)["state"] == "plan"
    assert backfill(database, "far")["files"] == 0


@pytest.mark.parametrize(
    "destination", ["s3://results/{owner_id}/{stem}.mp4", "s3://uploads/{dir}{stem}.mp4"], ids=["no owner", "itself"]
)
def test_an_object_without_a_possible_destination_is_not_in_the_plan(database: Project, destination: str) -> None:
    store(database, "fits.mov", age=OLD)
    store(database, "not.mp4", age=OLD, owner_id=None)
    database.rule(task=TASK | {"destination": destination})
    plan = backfill(database, run=True)
    assert (plan["files"], plan["sample"]) == (1, ["fits.mov"])
    assert walk(database) == 1


def test_calling_a_running_backfill_again_returns_its_progress(older: Project) -> None:
    backfill(older, run=True)
    assert page(older, 4) == 4
    for run in (False, True):
        assert backfill(older, run=run, cap=1) == {
            "state": "running",
            "files": 6,
            "bytes": 615,
            "recorded": 4,
            "sample": None,
        }


@pytest.mark.parametrize("size", [1, 500])
def test_a_killed_tick_loses_no_object_and_records_none_twice(older: Project, size: int) -> None:
    backfill(older, run=True)
    made = page(older, min(size, 4))
    with older.connect("postgres") as connection, connection.transaction(force_rollback=True):
        connection.execute("select ittybit.backfill_page()")
    assert (len(older.jobs()), progress(older)["recorded"]) == (made, made)
    assert made + walk(older, size) == 6
    assert names(older) == [f"{number}.mp4" for number in range(6)]


def test_one_of_several_simultaneous_ticks_does_the_work(older: Project) -> None:
    backfill(older, run=True)
    together = threading.Barrier(4)
    connections = [older.connect("postgres") for _ in range(4)]

    def run(connection: Connection) -> int:
        together.wait()
        [row] = connection.execute("select ittybit.backfill_page() as made").fetchall()
        return int(row["made"])

    try:
        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(run, connections)) == 6
    finally:
        for connection in connections:
            connection.close()
    assert len(set(names(older))) == len(older.jobs()) == 6


def test_a_backfill_keeps_at_most_one_page_of_jobs_waiting(older: Project) -> None:
    backfill(older, run=True)
    assert [page(older, 2), page(older, 2)] == [2, 0]
    # A claimed job makes room for one more.
    assert len(older.claim(jobs=1)) == 1
    assert [page(older, 2), page(older, 2)] == [1, 0]


def test_live_uploads_are_claimed_first(older: Project) -> None:
    backfill(older, run=True)
    page(older)
    older.sql("update ittybit.jobs set due_at = due_at - interval '1 hour'")
    older.put("live/1.mp4", "live/2.mp4")
    claimed = [one["name"] for one in older.claim(jobs=3)]
    assert (sorted(claimed[:2]), claimed[2][:-4].isdigit()) == (["live/1.mp4", "live/2.mp4"], True)


def test_stopping_skips_waiting_jobs_but_none_that_may_have_started(older: Project) -> None:
    backfill(older, run=True)
    page(older)
    started, succeeded, _in_doubt = older.claim(jobs=3)
    older.report(started, "started", ittybit_id="runs/1")
    older.report(succeeded, "succeeded", ittybit_id="runs/2")
    older.put("live.mp4")
    assert older.value("select ittybit.stop_backfill('clips')") == 3
    stopped = [job for job in older.jobs() if job["reason"] == "backfill_stopped"]
    assert [(job["state"], job["due_at"]) for job in stopped] == [("skipped", None)] * 3
    others = sorted(state for _, state, reason in older.states() if reason is None)
    assert others == ["queued", "queued", "started", "succeeded"]
    assert [one["name"] for one in older.claim()] == ["live.mp4"]
    assert (progress(older)["state"], page(older)) == ("stopped", 0)
    assert older.value("select ittybit.stop_backfill('clips')") == 0


def test_a_stopped_backfill_continues_when_it_is_run_again(older: Project) -> None:
    backfill(older, run=True)
    page(older, 4)
    older.sql("update ittybit.jobs set state = 'succeeded', due_at = null where name = '0.mp4'")
    assert older.value("select ittybit.stop_backfill('clips')") == 3
    assert older.value("select ittybit.sweep_page()") == 0
    plan = backfill(older, run=True)
    assert (plan["state"], plan["files"], plan["bytes"]) == ("running", 5, 515)
    assert walk(older) == 5
    assert names(older) == [f"{number}.mp4" for number in range(6)]
    assert [job["generation"] for job in sorted(older.jobs(), key=lambda job: str(job["name"]))] == [1, 2, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("change", "state"), [("update ittybit.rules set enabled = false", "running"), (None, "stopped")]
)
def test_deleting_the_rule_stops_its_backfill_and_disabling_it_pauses_the_backfill(
    older: Project, change: str | None, state: str
) -> None:
    backfill(older, run=True)
    page(older, 2)
    older.sql(change or "delete from ittybit.rules")
    assert page(older) == 0
    assert progress(older)["state"] == state
    assert older.work() == 0
    if change:
        older.sql("update ittybit.rules set enabled = true")
        assert page(older) == 4
        assert older.work() == 6
    else:
        assert {reason for _, _, reason in older.states()} == {"rule_deleted"}


def test_backfills_of_two_rules_run_side_by_side(older: Project) -> None:
    older.rule("other", task=TASK)
    backfill(older, run=True)
    backfill(older, "other", run=True)
    assert [page(older, 3), page(older, 3)] == [6, 0]
    assert sorted(job["rule"] for job in older.jobs()) == ["clips"] * 3 + ["other"] * 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"rule": "nothing"}, psycopg.errors.NoDataFound),
        ({"rule": "off"}, psycopg.errors.NoDataFound),
        ({"cap": 0}, psycopg.errors.InvalidParameterValue),
        ({"cap": -1}, psycopg.errors.InvalidParameterValue),
    ],
)
def test_a_backfill_without_an_enabled_rule_or_with_a_bad_cap_is_refused(
    older: Project, arguments: dict[str, Any], error: type[psycopg.Error]
) -> None:
    older.rule("off", enabled=False)
    with pytest.raises(error):
        backfill(older, **arguments)


def test_the_cost_of_a_tick_does_not_grow_with_the_bucket(database: Project) -> None:
    costs: list[int] = []
    for count in (2_000, 20_000):
        database.reset()
        store_many(database, count)
        database.rule(task=TASK)
        database.sql(
            "insert into ittybit.backfills (rule, files, bytes, name, last_name, content_before)"
            " values ('clips', 100000, 0, %s, 'z', now() + interval '1 day')",
            f"many/{count // 2:06}.mp4",
        )
        with database.connect("supabase_admin") as connection:
            with_kept_plans(connection)
            for _ in range(7):
                pages(connection, "select ittybit.backfill_page(100)")
                database.sql("update ittybit.jobs set state = 'succeeded', due_at = null")
            with connection.transaction():
                costs.append(pages(connection, "select ittybit.backfill_page(100)"))
                assert rows_scanned(connection, "storage.objects") == 0
            assert len(database.jobs()) == 800
    small, large = costs
    assert large < small * 1.3
