"""Content, not events: what overwrites, renames and deletions make of the jobs that there are."""

from __future__ import annotations

import pytest

from tests.database.project import Project


def test_an_overwrite_supersedes_what_waits_and_lets_run_what_started(database: Project) -> None:
    database.rule()
    database.put("waiting.mp4", "started.mp4")
    database.started("started.mp4", "run_1")
    database.put("waiting.mp4", "started.mp4")
    assert sorted(database.states(), key=str) == [
        ("started.mp4", "queued", None),
        ("started.mp4", "started", None),
        ("waiting.mp4", "queued", None),
        ("waiting.mp4", "skipped", "superseded"),
    ]


@pytest.mark.parametrize("state", ["started", "succeeded"])
def test_the_same_bytes_again_start_nothing(database: Project, state: str) -> None:
    database.rule()
    database.put("a.mp4", etag="same")
    job = database.started("a.mp4", "run_1")
    if state == "succeeded":
        database.report(job["id"], 1, "succeeded", ittybit_id="run_1")
    version = database.put("a.mp4", etag="same")
    carried = database.job()
    assert (carried["id"], carried["version"], carried["state"]) == (job["id"], version, state)


def test_the_same_bytes_in_another_size_or_after_a_failure_are_bought(database: Project) -> None:
    database.rule()
    database.put("other.mp4", "failed.mp4", etag="same")
    database.started("other.mp4", "run_1")
    job = database.started("failed.mp4", "run_2")
    database.report(job["id"], 1, "failed", ittybit_id="run_2")
    database.put("other.mp4", etag="same", size=999)
    database.put("failed.mp4", etag="same")
    assert [job["state"] for job in database.jobs("other.mp4")] == ["started", "queued"]
    assert [job["state"] for job in database.jobs("failed.mp4")] == ["failed", "queued"]


def test_a_rename_carries_what_was_or_may_have_been_bought(database: Project) -> None:
    database.rule()
    database.put("started.mp4", "doubtful.mp4", "waiting.mp4")
    database.started("started.mp4", "run_1")
    database.claim(database.job("doubtful.mp4")["id"], 1)
    before = {job["name"]: job["id"] for job in database.jobs()}
    versions = {name: database.move(name, f"moved/{name}") for name in before}
    for name in ("started.mp4", "doubtful.mp4"):
        job = database.job(f"moved/{name}")
        assert (job["id"], job["version"]) == (before[name], versions[name])
    assert database.states()[-1] == ("moved/waiting.mp4", "queued", None)
    assert database.job("waiting.mp4")["reason"] == "moved"


def test_a_file_moved_out_of_reach_leaves_its_started_job(database: Project) -> None:
    database.rule(path="clips/*")
    database.put("clips/a.mp4", "clips/b.mp4")
    database.started("clips/a.mp4", "run_1")
    database.move("clips/a.mp4", "old/a.mp4")
    database.move("clips/b.mp4", "b.mp4", to_bucket="results")
    assert sorted(database.states()) == [("clips/a.mp4", "started", None), ("clips/b.mp4", "skipped", "moved")]


def test_a_file_moved_into_reach_is_bought(database: Project) -> None:
    database.rule(path="clips/*")
    database.put("new/a.mp4")
    database.move("new/a.mp4", "clips/a.mp4")
    assert database.states() == [("clips/a.mp4", "queued", None)]


def test_a_deleted_source_skips_what_waits_and_keeps_what_started_or_may_have(database: Project) -> None:
    database.rule()
    database.put("waiting.mp4", "started.mp4", "doubtful.mp4")
    database.started("started.mp4", "run_1")
    database.claim(database.job("doubtful.mp4")["id"], 1)
    database.delete("waiting.mp4", "started.mp4", "doubtful.mp4")
    assert sorted(database.states()) == [
        ("doubtful.mp4", "queued", None),
        ("started.mp4", "started", None),
        ("waiting.mp4", "skipped", "gone"),
    ]
