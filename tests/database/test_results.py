"""Our own results never start anything, wherever they are written and whatever they are renamed to."""

from __future__ import annotations

import pytest

from tests.database.project import TASK, Project

ADAPTIVE = {"kind": "adaptive_video", "destination": "s3://uploads/hls/{dir}{stem}/master.m3u8"}


@pytest.mark.parametrize("accept_s3", [False, True])
def test_a_result_in_a_wholly_watched_bucket_starts_nothing(database: Project, accept_s3: bool) -> None:
    task = TASK | {"destination": "s3://uploads/{dir}{stem}-720p.mp4"}
    database.rule(task=task, accept_s3=accept_s3)
    database.put("clips/a.mp4")
    for _ in range(2):
        database.put("clips/a-720p.mp4", operation="storage.s3.upload")
    assert database.states() == [
        ("clips/a.mp4", "queued", None),
        ("clips/a-720p.mp4", "skipped", "output"),
        ("clips/a-720p.mp4", "skipped", "output"),
    ]


def test_results_in_a_reserved_folder_start_nothing(database: Project) -> None:
    database.rule(task=ADAPTIVE, accept_s3=True)
    database.put("clips/a.mp4")
    assert database.outputs() == [("uploads", "hls/clips/a/")]
    database.put("hls/clips/a/master.m3u8", "hls/clips/a/720p/0.ts", operation="storage.s3.upload")
    database.put("hls/clips/ab.mp4")
    assert sorted(database.states()) == [
        ("clips/a.mp4", "queued", None),
        ("hls/clips/a/720p/0.ts", "skipped", "output"),
        ("hls/clips/a/master.m3u8", "skipped", "output"),
        ("hls/clips/ab.mp4", "queued", None),
    ]


def test_a_renamed_result_stays_a_result(database: Project) -> None:
    database.rule("source", path="clips/*", task=TASK | {"destination": "s3://uploads/made/{stem}.mp4"})
    database.put("clips/a.mov")
    database.put("made/a.mp4", operation="storage.s3.upload")
    database.rule("everything")
    database.move("made/a.mp4", "clips/b.mp4")
    assert ("clips/b.mp4", "skipped", "output") in database.states()
    assert "queued" not in {job["state"] for job in database.jobs("clips/b.mp4")}


def test_a_result_renamed_out_of_its_folder_stays_a_result(database: Project) -> None:
    database.rule(task=ADAPTIVE)
    database.put("clips/a.mp4")
    database.put("hls/clips/a/720p.mp4", operation="storage.s3.upload")
    database.move("hls/clips/a/720p.mp4", "clips/best.mp4")
    assert database.states()[-1] == ("clips/best.mp4", "skipped", "output")


def test_an_output_is_reserved_until_the_result_is_gone_and_nothing_may_write_it(database: Project) -> None:
    database.rule(path="clips/*", task=TASK)
    database.put("clips/a.mp4")
    job = database.started("clips/a.mp4", "task_1")
    database.put("clips/a.mp4", bucket="results", operation="storage.s3.upload")
    database.delete("clips/a.mp4", bucket="results")
    assert database.outputs() == [("results", "clips/a.mp4")]
    database.report(job["id"], 1, "succeeded", ittybit_id="task_1")
    database.put("clips/a.mp4", bucket="results", operation="storage.s3.upload")
    database.delete("clips/a.mp4", bucket="results")
    assert database.outputs() == []
