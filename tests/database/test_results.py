"""Results never trigger further jobs, wherever they are written and whatever they are renamed to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.project import PUSH_BACK, RUN, TASK, Project, upload
from tests.database.without_triggers import store, triggers_off

ADAPTIVE = {"kind": "adaptive_video", "destination": "s3://uploads/hls/{dir}{stem}/master.m3u8"}
BESIDE = TASK | {"destination": "s3://uploads/{dir}{stem}-720p.mp4"}
RESULT = "it is a result: results trigger no jobs"
UNDER_PREFIX = "it lies under an output prefix: results trigger no jobs"


def because(database: Project, name: str) -> str:
    return str(database.value("select distinct because from ittybit.explain('uploads', %s) where matches", name))


@pytest.mark.parametrize("seen", [True, False], ids=["by the trigger", "by the sweep"])
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("clips/.emptyFolderPlaceholder", {"size": 0}, "it is a folder's placeholder"),
        ("clips/", {}, "it is a folder's placeholder"),
        (".ittybit/probe.mp4", {}, "it is a probe of create-connection"),
        ("empty.mp4", {"size": 0}, "it is empty"),
        ("processed/a.mp4", {}, UNDER_PREFIX),
        ("made/deep/a.mp4", {}, UNDER_PREFIX),
        ("output.mp4", {}, RESULT),
        ("hls/a/0.ts", {}, RESULT),
        ("marker.mp4", {}, "it is a delete marker"),
    ],
)
def test_an_object_that_needs_no_row_leaves_none_and_explain_says_why(
    database: Project, name: str, content: dict[str, Any], says: str, seen: bool
) -> None:
    if name == "marker.mp4":
        store(database, name)
        with triggers_off(database):
            database.superuser.execute("update storage.objects set is_delete_marker = true")
    database.rule(output_prefix="made/", accept_s3=True)
    database.sql("update ittybit.rules set active_since = now() - interval '1 hour'")
    database.sql(
        "insert into ittybit.outputs values ('uploads', 'output.mp4', gen_random_uuid()),"
        " ('uploads', 'hls/a/', gen_random_uuid())"
    )
    if name == "marker.mp4":
        database.superuser.execute("update storage.objects set version = 'v'")
    elif seen:
        database.put(name, operation="storage.s3.upload", **content)
    else:
        store(database, name, **content)
    assert database.value("select ittybit.sweep_page()") == 0
    assert database.value("select files from ittybit.backfill('clips')") == 0
    assert (database.jobs(), database.messages(), database.warnings) == ([], [], [])
    assert because(database, name) == says


@pytest.mark.parametrize("accept_s3", [False, True])
def test_an_arriving_result_makes_its_jobs_check_due_and_wakes_the_function(database: Project, accept_s3: bool) -> None:
    database.rule(task=BESIDE, accept_s3=accept_s3)
    database.put("clips/a.mp4")
    database.started("clips/a.mp4", "tasks/1")
    database.sql("update ittybit.jobs set due_at = now() + interval '1 minute'")
    database.messages()
    database.put("clips/a-720p.mp4", operation="storage.s3.upload")
    assert database.seconds_left() <= 0
    assert [message["url"] for message in database.messages()] == [PUSH_BACK]

    # A function that has claimed the job is not woken for it.
    assert len(database.claim("push-back")) == 1
    database.put("clips/a-720p.mp4", operation="storage.s3.upload")
    assert database.seconds_left() > 50
    assert database.messages() == []
    assert database.states() == [("clips/a.mp4", "started", None)]


def test_each_result_of_a_run_makes_its_check_due_and_the_last_one_speeds_up_the_next_check(database: Project) -> None:
    database.rule(run=RUN, accept_s3=True)
    database.rule("everything", bucket_id="results", accept_s3=True)
    database.put("clips/a.mov")
    database.started("clips/a.mov", "runs/1")
    for result, seconds in (("clips/a.mp4", 5), ("clips/a.jpeg", 1)):
        database.sql("update ittybit.jobs set due_at = now() + interval '1 minute'")
        database.put(result, bucket="results", operation="storage.s3.upload")
        assert database.seconds_left() <= 0
        [check] = database.claim("push-back")
        database.report(check, "started", ittybit_id="runs/1")
        assert database.seconds_left() == pytest.approx(seconds, abs=0.5)
    # Only ittybit's answer ends the job. Its row has all results, and they start nothing.
    places = ["s3://results/clips/a.mp4", "s3://results/clips/a.jpeg"]
    database.report(database.next_lease(), "succeeded", ittybit_id="runs/1", outputs=places)
    assert database.states() == [("clips/a.mov", "succeeded", None)]
    assert (
        database.value("select outputs from ittybit.explain('uploads', 'clips/a.mov') where state is not null")
        == places
    )
    assert database.value("select ittybit.sweep_page()") == 0


def test_the_adaptive_video_of_a_run_reserves_its_folder(database: Project) -> None:
    hls = {"kind": "adaptive_video", "next": [upload("s3://uploads/hls/{dir}{stem}/master.m3u8")]}
    still = {"kind": "image", "next": [upload("s3://uploads/hls/{dir}{stem}.jpeg")]}
    database.rule(run={"tasks": [hls, still]}, accept_s3=True)
    database.put("clips/a.mp4")
    database.started("clips/a.mp4", "runs/1")
    assert database.outputs() == [("uploads", "hls/clips/a.jpeg"), ("uploads", "hls/clips/a/")]
    database.put("hls/clips/a/720p/0.ts", "hls/clips/a.jpeg", operation="storage.s3.upload")
    assert [job["name"] for job in database.jobs()] == ["clips/a.mp4"]


def test_a_folders_job_is_checked_two_seconds_after_its_last_file(database: Project) -> None:
    database.rule(task=ADAPTIVE, accept_s3=True)
    database.put("clips/a.mp4")
    assert database.outputs() == []
    database.started("clips/a.mp4", "tasks/1")
    assert database.outputs() == [("uploads", "hls/clips/a/")]
    database.messages()
    for due_in, written in ((60, True), (0.5, True), (1.5, False)):
        database.sql("update ittybit.jobs set due_at = clock_timestamp() + %s * interval '1 second'", due_in)
        before = database.job()["due_at"]
        database.put("hls/clips/a/master.m3u8", "hls/clips/a/720p/0.ts", operation="storage.s3.upload")
        assert (database.job("clips/a.mp4")["due_at"] != before) == written
        assert 0 < database.seconds_left() <= 2
    assert database.messages() == []

    # A name that only begins with the same letters is no result.
    database.put("hls/clips/ab.mp4")
    assert [job["name"] for job in database.jobs()] == ["clips/a.mp4", "hls/clips/ab.mp4"]


def test_a_renamed_result_stays_a_result(database: Project) -> None:
    database.rule("source", path="clips/*", task=TASK | {"destination": "s3://uploads/made/{stem}.mp4"})
    database.rule("folder", path="films/*", task=ADAPTIVE)
    database.put("clips/a.mov", "films/a.mov")
    database.sql("select public.ittybit_claim('push-back', project, 10) from ittybit.settings")
    results = {"made/a.mp4": "clips/b.mp4", "hls/films/a/720p.mp4": "clips/best.mp4", "clips/best.mp4": "c/again.mp4"}
    database.put("made/a.mp4", "hls/films/a/720p.mp4", operation="storage.s3.upload")
    database.rule("everything")
    for name, to in results.items():
        database.move(name, to)
        assert database.jobs(to) == []
    assert because(database, "clips/b.mp4") == RESULT
    assert because(database, "c/again.mp4") == RESULT


def test_an_automations_result_that_leaves_its_output_prefix_stays_a_result(database: Project) -> None:
    database.rule(output_prefix="made/")
    database.put("made/a.mp4", "processed/b.mp4", operation="storage.s3.upload")
    for name, to in {"made/a.mp4": "a.mp4", "a.mp4": "clips/a.mp4", "processed/b.mp4": "b.mp4"}.items():
        database.move(name, to)
    database.put("b.mp4", operation="storage.s3.upload")
    assert (database.jobs(), database.value("select ittybit.sweep_page()"), database.warnings) == ([], 0, [])
    assert because(database, "clips/a.mp4") == RESULT

    # Once it is deleted, an upload under its name has a job.
    database.delete("clips/a.mp4")
    database.put("clips/a.mp4")
    assert database.states() == [("clips/a.mp4", "queued", None)]


def test_a_job_that_never_started_reserves_nothing(database: Project) -> None:
    database.rule(task=BESIDE)
    database.put("a.mp4")
    [lease] = database.claim("push-back")
    assert database.outputs() == [("uploads", "a-720p.mp4")]
    database.report(lease, "retry", in_doubt=True)
    assert database.outputs() == [("uploads", "a-720p.mp4")]
    database.report(database.next_lease(), "retry")
    assert database.outputs() == []

    # So an upload under that name has a job of its own.
    database.delete("a.mp4")
    database.put("a-720p.mp4")
    assert database.states() == [("a.mp4", "skipped", "gone"), ("a-720p.mp4", "queued", None)]


def test_an_output_is_reserved_until_the_result_is_gone_and_no_job_may_write_it(database: Project) -> None:
    database.rule(path="clips/*", task=TASK)
    database.put("clips/a.mp4")
    database.started("clips/a.mp4", "tasks/1")
    database.put("clips/a.mp4", bucket="results", operation="storage.s3.upload")
    database.delete("clips/a.mp4", bucket="results")
    assert database.outputs() == [("results", "clips/a.mp4")]
    database.report(database.next_lease(), "succeeded", ittybit_id="tasks/1")
    database.put("clips/a.mp4", bucket="results", operation="storage.s3.upload")
    database.delete("clips/a.mp4", bucket="results")
    assert database.outputs() == []
