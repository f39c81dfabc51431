"""Housekeeping: no table grows while nothing happens, and rows that prevent a second start are kept."""

from __future__ import annotations

import pytest

from tests.database.project import TASK, Project
from tests.database.rows import rows
from tests.database.without_triggers import store, triggers_off

ADAPTIVE = {"kind": "adaptive_video", "destination": "s3://uploads/hls/{dir}{stem}/master.m3u8"}
HERE = TASK | {"destination": "s3://uploads/{dir}{stem}-720p.mp4"}
GROWING = (
    "ittybit.jobs",
    "ittybit.outputs",
    "ittybit.rules",
    "ittybit.functions",
    "ittybit.settings",
    "ittybit.starts",
    "ittybit.holds",
    "ittybit.sweep",
    "ittybit.backfills",
    "net.http_request_queue",
    "cron.job",
    "cron.job_run_details",
)


def tidy(database: Project, **named: object) -> int:
    """Tidy up, with ``keep`` and ``most`` if they are given, and return how many rows were deleted."""
    places = ", ".join(f"{name} => %s" for name in named)
    return int(database.value(f"select ittybit.tidy({places})", *named.values()))


def a_month_later(database: Project) -> None:
    month = "interval '31 days'"
    database.sql(f"update ittybit.jobs set orphaned_at = orphaned_at - {month}, finished_at = finished_at - {month}")  # noqa: S608 - constants


def count(database: Project, table: str) -> int:
    [row] = rows(database.superuser, f"select count(*) as rows from {table}")  # noqa: S608 - constants of this file
    return int(row["rows"])


def done(database: Project, name: str = "clips/a.mp4", *, result: str | None = None) -> None:
    """Let an object's job succeed, with its result stored in the same bucket."""
    job = database.started(name, f"tasks/{name}")
    if result:
        database.put(result, operation="storage.s3.upload")
    database.make_due()
    [lease] = database.claim(job["function"])
    assert "refused" not in database.report(lease, "succeeded", ittybit_id=f"tasks/{name}")


@pytest.fixture
def made(database: Project) -> Project:
    """A rule for a whole bucket, which made clips/a-720p.mp4 from clips/a.mp4 in that bucket."""
    database.rule(task=HERE)
    database.put("clips/a.mp4")
    done(database, result="clips/a-720p.mp4")
    assert database.outputs() == [("uploads", "clips/a-720p.mp4")]
    assert database.states() == [("clips/a.mp4", "succeeded", None)]
    database.messages()
    return database


def test_a_row_is_deleted_when_its_content_has_been_gone_for_long_enough(made: Project) -> None:
    made.delete("clips/a.mp4")
    assert tidy(made) == 0
    made.sql("update ittybit.jobs set orphaned_at = now() - interval '29 days'")
    assert tidy(made) == 0
    assert tidy(made, keep="28 days") == 1
    assert made.jobs() == []


def test_the_row_of_existing_content_is_never_deleted(made: Project) -> None:
    made.sql(
        "update ittybit.jobs set created_at = now() - interval '5 years', finished_at = now() - interval '5 years'"
    )
    assert tidy(made, keep="0") == 0
    # Not even if its row says that the content is gone.
    made.sql("update ittybit.jobs set orphaned_at = now() - interval '5 years'")
    assert tidy(made, keep="0") == 0
    assert len(made.jobs()) == 1


@pytest.mark.parametrize("state", ["started", "in doubt"])
def test_the_row_of_an_unfinished_job_is_never_deleted(database: Project, state: str) -> None:
    database.rule(task=TASK)
    database.put("a.mp4")
    [lease] = database.claim("push-back")
    if state == "started":
        database.report(lease, "started", ittybit_id="tasks/1")
    database.delete("a.mp4")
    a_month_later(database)
    assert tidy(database) == 0
    assert (len(database.jobs()), database.outputs()) == (1, [("results", "a.mp4")])


def test_the_rows_of_earlier_contents_are_deleted(database: Project) -> None:
    database.rule()
    database.put("a.mp4", "moved.mp4")
    for _ in range(3):
        database.put("a.mp4")
    database.move("moved.mp4", "to.mp4")
    a_month_later(database)
    assert tidy(database) == 4
    assert sorted(database.states()) == [("a.mp4", "queued", None), ("to.mp4", "queued", None)]


def test_the_row_of_a_renamed_object_stays(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    done(database, "a.mp4")
    database.move("a.mp4", "b.mp4")
    a_month_later(database)
    assert tidy(database, keep="0") == 0
    assert database.states() == [("b.mp4", "succeeded", None)]


def test_a_reservation_outlives_source_and_row_while_the_result_is_there(made: Project) -> None:
    """The source and its row are deleted, the result is there, and the sweep starts nothing."""
    made.delete("clips/a.mp4")
    a_month_later(made)
    assert tidy(made) == 1
    assert made.outputs() == [("uploads", "clips/a-720p.mp4")]

    made.sql("update ittybit.rules set accept_s3 = true")
    made.sql("update ittybit.rules set active_since = '-infinity'")
    store(made, "clips/a-720p.mp4", owner_id=None)
    assert made.value("select ittybit.sweep_page()") == 0
    made.put("clips/a-720p.mp4", operation="storage.s3.upload")
    assert (made.value("select files from ittybit.backfill('clips')"), made.jobs(), made.messages()) == (0, [], [])

    # It is deleted with the result.
    made.delete("clips/a-720p.mp4")
    assert made.outputs() == []


def test_a_reservation_is_deleted_with_its_row_when_the_result_is_gone(made: Project) -> None:
    with triggers_off(made):
        made.superuser.execute("delete from storage.objects where name = 'clips/a-720p.mp4'")
    made.delete("clips/a.mp4")
    assert made.outputs() == [("uploads", "clips/a-720p.mp4")]
    a_month_later(made)
    assert tidy(made) == 1
    assert made.outputs() == []


@pytest.mark.parametrize(
    ("outcome", "reason", "kept"),
    [
        ("skipped", "gone", False),
        ("failed", "corrupt", False),
        ("failed", "no_progress", True),
        ("failed", "gave_up", True),
    ],
)
@pytest.mark.parametrize("task", [TASK, ADAPTIVE], ids=["key", "folder"])
def test_an_output_that_may_still_be_written_stays_reserved(
    database: Project, task: dict[str, str], outcome: str, reason: str, kept: bool
) -> None:
    database.rule(task=task)
    database.put("b.mp4")
    [lease] = database.claim("push-back")
    if reason == "gone":
        database.delete("b.mp4")
    database.report(lease, outcome, reason=reason)
    tidy(database)
    assert bool(database.outputs()) == kept
    database.delete("b.mp4")
    a_month_later(database)
    tidy(database)
    assert database.outputs() == []


def test_a_folder_stays_reserved_while_it_has_files_or_may_get_some(database: Project) -> None:
    database.rule(task=ADAPTIVE)
    database.put("clips/a.mp4")
    database.started("clips/a.mp4", "tasks/1")
    assert tidy(database) == 0
    parts = ("hls/clips/a/master.m3u8", "hls/clips/a/720p/0.ts")
    database.put(*parts, operation="storage.s3.upload")
    database.report(database.next_lease(), "succeeded", ittybit_id="tasks/1")
    database.delete("clips/a.mp4", parts[0])
    a_month_later(database)
    tidy(database)
    assert database.outputs() == [("uploads", "hls/clips/a/")]
    database.delete(parts[1])
    assert tidy(database) >= 1
    assert database.outputs() == []


def test_the_reservation_of_a_result_moved_out_of_a_prefix_is_deleted_once_it_is_gone(database: Project) -> None:
    database.put("processed/a.mp4")
    database.move("processed/a.mp4", "a.mp4")
    assert (tidy(database), database.outputs()) == (0, [("uploads", "a.mp4")])
    with triggers_off(database):
        database.superuser.execute("delete from storage.objects")
    assert (tidy(database), database.outputs()) == (1, [])


def test_a_folders_name_is_matched_literally(database: Project) -> None:
    database.sql("insert into ittybit.outputs values ('uploads', 'a_b!(c)/', gen_random_uuid())")
    store(database, "axb!(c)/0.ts")
    assert tidy(database) == 1
    assert database.outputs() == []


def test_every_folder_is_examined_in_time(database: Project) -> None:
    database.sql(
        "insert into ittybit.outputs select 'uploads', 'used/' || n || '/', gen_random_uuid()"
        " from generate_series(1, 150) as n"
    )
    store(database, *(f"used/{number}/0.ts" for number in range(1, 151)))
    database.sql("insert into ittybit.outputs values ('uploads', 'unused/', gen_random_uuid())")
    # Folders are picked by chance. A folder is missed forty times with a probability of 10^-19.
    assert sum(tidy(database) for _ in range(40)) == 1
    assert len(database.outputs()) == 150


def test_one_round_deletes_at_most_the_given_number_of_rows(database: Project) -> None:
    database.rule()
    database.put(*(f"{number}.mp4" for number in range(10)))
    database.delete(*(f"{number}.mp4" for number in range(10)))
    a_month_later(database)
    assert [tidy(database, most=4) for _ in range(4)] == [4, 4, 2, 0]


def test_counts_of_starts_are_deleted_after_two_days(database: Project) -> None:
    database.sql(
        "insert into ittybit.starts select date_trunc('hour', now()) - n * interval '1 hour', 1, 1"
        " from generate_series(0, 60) as n"
    )
    assert tidy(database) == 13
    assert database.counted_starts() == 48


RUN = """
insert into cron.job_run_details (jobid, command, username, status, start_time, end_time)
select j.jobid, coalesce(%(command)s, j.command), j.username, 'succeeded', now() - %(age)s::interval,
  case when %(ended)s then now() - %(age)s::interval end
from cron.job as j
where j.jobname = %(job)s
"""


def ran(database: Project, job: str, age: str, *, ended: bool = True, command: str | None = None) -> None:
    parameters = {"job": job, "age": age, "ended": ended, "command": command}
    assert database.superuser.execute(RUN, parameters).rowcount == 1


def test_only_old_runs_of_this_projects_schedules_are_deleted_from_pg_crons_log(database: Project) -> None:
    database.sql("select cron.schedule('nightly', '0 3 * * *', 'select ittybit.retry_failed(''clips'')')")
    try:
        for job in ("ittybit-wake-up", "ittybit-sweep", "ittybit-tidy"):
            ran(database, job, "2 hours")
            ran(database, job, "2 hours", ended=False)
            ran(database, job, "50 minutes")
        ran(database, "nightly", "2 years")
        assert tidy(database) == 6
        assert count(database, "cron.job_run_details") == 4
        assert tidy(database) == 0
    finally:
        database.sql("select cron.unschedule('nightly')")


def test_no_table_grows_while_nothing_happens(made: Project) -> None:
    made.rule("automation", bucket_id="results", output_prefix="made/")
    made.put("b.mp4", bucket="results")
    done(made, "b.mp4")
    made.messages()
    commands = rows(
        made.superuser, "select jobname, command from cron.job where jobname like 'ittybit-%' order by jobid"
    )
    assert len(commands) == 3

    def hour() -> dict[str, int]:
        for _ in range(50):
            for row in commands:
                made.sql(str(row["command"]))
                ran(made, str(row["jobname"]), "0 s")
        made.superuser.execute(
            "update cron.job_run_details set start_time = now() - interval '61 minutes', end_time = null"
        )
        made.sql("select ittybit.tidy()")
        return {table: count(made, table) for table in GROWING}

    assert hour() == hour()
    assert made.messages() == []
