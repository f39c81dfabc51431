"""Wake-ups by the first upload of an idle system and by pg_cron: as few as the work needs."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.database.project import ON_UPLOAD, PUSH_BACK, TASK, Project, report
from tests.database.rows import Row, put, rows

WAKE_UP = {"type": "jobs.due"}


def woken(database: Project) -> list[str]:
    """Take the wake-ups that wait in pg_net's queue, and return their addresses."""
    return [message["url"] for message in database.messages()]


def woke_ago(database: Project, seconds: float) -> None:
    """Let the last upload that woke on-upload be so many seconds ago."""
    moment = "extract(epoch from clock_timestamp()) * 1000 - %s"
    database.sql(f"select ittybit.set_last_woken('on-upload', ({moment})::bigint)", seconds * 1000)


def up(database: Project) -> None:
    """Let both functions have claimed just now, and empty pg_net's queue."""
    database.sql("update ittybit.functions set claimed_at = now()")
    database.sql("select ittybit.set_last_woken(name, 0) from ittybit.functions")
    database.messages()


# By uploads.


@pytest.mark.parametrize(("action", "url"), [({}, ON_UPLOAD), ({"task": TASK}, PUSH_BACK)])
def test_the_first_upload_of_an_idle_system_wakes_the_function_that_does_the_work(
    database: Project, action: Row, url: str
) -> None:
    database.rule(**action)
    database.put("a.mov")
    [call] = database.messages()
    assert (call["url"], call["body"], call["timeout_milliseconds"]) == (url, WAKE_UP, 5000)
    assert database.job()["attempt"] == 0


def test_uploads_wake_a_function_at_most_twenty_times_a_second(database: Project) -> None:
    database.rule()
    database.put(*(f"before/{number}.mp4" for number in range(100)))
    assert woken(database) == [ON_UPLOAD]
    began = time.monotonic()
    for number in range(200):
        database.put(f"{number}.mp4")
        # The function is up, and more is due.
        database.claim(jobs=1)
    seconds = time.monotonic() - began
    assert 2 <= len(woken(database)) <= seconds * 20 + 1


def test_a_function_that_has_not_claimed_is_woken_again_when_its_wake_up_has_timed_out(database: Project) -> None:
    database.rule()
    for ago, calls in ((2, 0), (5.1, 1)):
        woke_ago(database, ago)
        database.put(f"{ago}.mp4")
        assert len(woken(database)) == calls


def test_after_a_claim_of_the_last_due_job_the_next_upload_wakes_at_once(database: Project) -> None:
    database.rule()
    database.put("1.mp4", "2.mp4")
    assert len(woken(database)) == 1
    woke_ago(database, 0.01)
    before = database.value("select ittybit.last_woken('on-upload')")
    database.claim(jobs=1)
    assert database.value("select ittybit.last_woken('on-upload')") == before
    database.claim(jobs=2)
    database.put("3.mp4")
    assert len(woken(database)) == 1


def test_after_a_rolled_back_upload_pg_cron_wakes_for_the_next_one(database: Project) -> None:
    database.rule()
    with database.writing("storage.object.upload", trial=True) as connection:
        put(connection, "tried.mp4")
    database.put("a.mp4")
    assert woken(database) == []
    assert (database.wake(), woken(database)) == (1, [ON_UPLOAD])


def test_simultaneous_uploads_write_no_common_row(database: Project) -> None:
    database.rule()
    with database.connect("supabase_storage_admin") as other, other.transaction():
        other.execute("set local lock_timeout = '5s'")
        put(other, "1.mp4")
        with database.writing("storage.object.upload") as connection:
            connection.execute("set local statement_timeout = '5s'")
            put(connection, "2.mp4")
            locked = rows(connection, "select from pg_locks where not granted")
        assert locked == []
    assert len(database.jobs()) == 2
    assert database.warnings == []


def test_a_result_wakes_for_its_check_at_once_and_a_folder_after_two_seconds(database: Project) -> None:
    database.rule(task=TASK, path="*")
    hls = TASK | {"kind": "adaptive_video", "destination": "s3://results/{dir}{stem}/master.m3u8"}
    database.rule("hls", task=hls, path="hls/*")
    database.put("a.mov", "hls/a.mov")
    starts = database.claim("push-back")
    database.reports(*(report(lease, "started", ittybit_id=lease["job"]) for lease in starts))
    up(database)
    for number in range(3):
        database.put(f"hls/a/{number}.ts", bucket="results", operation="storage.s3.upload")
    assert (woken(database), database.work("push-back")) == ([], 0)
    wait = database.value("select extract(epoch from due_at - clock_timestamp()) from ittybit.jobs where rule = 'hls'")
    assert 1 < wait <= 2
    database.put("a.mp4", bucket="results", operation="storage.s3.upload")
    assert (woken(database), database.work("push-back")) == ([PUSH_BACK], 1)


def test_without_an_address_or_a_secret_uploads_are_recorded_and_no_function_is_woken(database: Project) -> None:
    database.rule()
    database.sql("update ittybit.functions set url = null")
    database.put("a.mp4")
    assert (database.wake(), database.warnings) == (0, [])
    database.sql("update ittybit.functions set url = %s", ON_UPLOAD)
    [secret] = database.sql("select id, name from vault.secrets")
    database.superuser.execute("update vault.secrets set name = 'another'")
    try:
        database.put("b.mp4")
        [warning] = database.warnings
        assert "no wake-up for uploads/b.mp4: no secret" in warning
        with pytest.raises(psycopg.errors.RaiseException, match="no secret"):
            database.wake()
    finally:
        database.superuser.execute("update vault.secrets set name = %s", [secret["name"]])
    assert (woken(database), len(database.claim())) == ([], 2)


# By pg_cron.


def test_no_call_is_made_in_an_hour_without_due_jobs(lease: Row, database: Project) -> None:
    database.rule("task", task=TASK)
    database.report(lease, "succeeded", ittybit_id="runs/1")
    database.messages()
    for tick in range(720):
        assert database.wake() == 0
        if tick % 2:
            database.sql("select ittybit.sweep_page(), ittybit.backfill_page()")
    database.sql("select ittybit.tidy()")
    assert database.messages() == []


@pytest.mark.parametrize(("jobs", "calls"), [(1, 1), (50, 1), (51, 2), (399, 8), (1000, 8)])
def test_a_function_is_woken_by_as_many_calls_as_the_work_needs(database: Project, jobs: int, calls: int) -> None:
    database.rule()
    database.put(*(f"{number}.mp4" for number in range(jobs)))
    up(database)
    assert database.wake() == calls
    assert woken(database) == [ON_UPLOAD] * calls


@pytest.mark.parametrize("url", [ON_UPLOAD, "https://a.test"])
def test_calls_that_wait_in_pg_nets_queue_are_not_made_again(database: Project, url: str) -> None:
    database.rule()
    database.sql("update ittybit.functions set url = %s where name = 'on-upload'", url)
    database.put(*(f"{number}.mp4" for number in range(150)))
    # The upload's call counts, calls to others do not. pg_net adds a path to an address without one.
    database.sql("select net.http_post('https://elsewhere.test/') from generate_series(1, 5)")
    assert (database.wake(), database.wake()) == (2, 0)
    assert len(woken(database)) == 3 + 5


def test_leased_jobs_wake_no_function_until_they_are_due(waiting: Project) -> None:
    waiting.claim()
    assert waiting.wake() == 0
    waiting.pass_time(61)
    assert (waiting.wake(), woken(waiting)) == (1, [ON_UPLOAD])


def test_a_function_that_claims_nothing_is_woken_less_and_less_often_by_one_call(database: Project) -> None:
    database.rule()
    database.rule("task", path="**.mov", task=TASK | {"destination": "s3://results/{version}"})
    database.put(*(f"{number}.mp4" for number in range(500)))
    up(database)
    wake_ups = []
    for seconds in range(0, 330, 5):
        database.wake()
        # Uploads do not wake it, and the other function is woken as usual.
        database.put(f"{seconds}.mov")
        database.claim("push-back")
        wake_ups += [(seconds, url) for url in woken(database)]
        database.pass_time(5)
    assert [at for at, url in wake_ups if url == ON_UPLOAD] == [0] * 8 + [5, 10, 20, 40, 80, 140, 200, 260, 320]
    assert len([at for at, url in wake_ups if url == PUSH_BACK]) >= 60

    # It claims again, so it is up.
    database.claim(jobs=1)
    database.put("new.mp4")
    assert woken(database) == [ON_UPLOAD]
    database.wake()
    assert woken(database).count(ON_UPLOAD) == 8


def test_a_function_that_has_not_answered_an_uploads_wake_up_gets_a_shorter_timeout(
    database: Project,
) -> None:
    database.rule()
    database.put("a.mp4")
    # pg_net deletes a call when it has its answer.
    assert database.wake() == 0
    [call] = database.messages()
    database.pass_time(6)
    database.put("b.mp4")
    assert (woken(database), database.wake()) == ([], 1)
    [wake_up] = database.messages()
    assert (call["timeout_milliseconds"], wake_up["timeout_milliseconds"]) == (5000, 2000)


def test_a_scheduler_of_your_own_can_wake_a_function_too(waiting: Project) -> None:
    """Every claim counts, whatever woke the function."""
    waiting.wake()
    waiting.pass_time(3600)
    assert len(waiting.claim(jobs=2)) == 2
    waiting.messages()
    waiting.put("4.mp4")
    assert woken(waiting) == [ON_UPLOAD]
