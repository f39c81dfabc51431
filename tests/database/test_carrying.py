"""What overwrites, renames and deletions do to existing jobs: each job belongs to one content."""

from __future__ import annotations

import pytest

from tests.database.project import Project
from tests.database.rows import Row


def started_doubtful_and_waiting(database: Project) -> None:
    database.put("started.mp4")
    database.started("started.mp4", "runs/1")
    database.put("doubtful.mp4")
    assert len(database.claim()) == 1
    database.put("waiting.mp4")


def test_an_overwrite_supersedes_waiting_jobs_and_leaves_started_ones(database: Project) -> None:
    database.rule()
    database.put("started.mp4")
    database.started("started.mp4", "runs/1")
    database.put("waiting.mp4")
    database.put("waiting.mp4", "started.mp4")
    assert sorted(database.states(), key=str) == [
        ("started.mp4", "queued", None),
        ("started.mp4", "started", None),
        ("waiting.mp4", "queued", None),
        ("waiting.mp4", "skipped", "superseded"),
    ]


@pytest.mark.parametrize("state", ["started", "succeeded"])
def test_uploading_the_same_bytes_again_starts_nothing(database: Project, state: str) -> None:
    database.rule()
    database.put("a.mp4", etag="same")
    [lease] = database.claim()
    database.report(lease, state, ittybit_id="runs/1")
    version = database.put("a.mp4", etag="same")
    carried = database.job()
    assert (str(carried["id"]), carried["version"], carried["state"]) == (lease["job"], version, state)


def test_the_same_etag_with_another_size_or_after_a_failure_gets_a_new_job(database: Project) -> None:
    database.rule()
    database.put("other.mp4", "failed.mp4", etag="same")
    for lease in database.claim():
        outcome = "started" if lease["name"] == "other.mp4" else "failed"
        database.report(lease, outcome, ittybit_id=f"runs/{lease['name']}")
    database.put("other.mp4", etag="same", size=999)
    database.put("failed.mp4", etag="same")
    assert [job["state"] for job in database.jobs("other.mp4")] == ["started", "queued"]
    assert [job["state"] for job in database.jobs("failed.mp4")] == ["failed", "queued"]


def test_a_renamed_object_keeps_the_jobs_that_started_or_may_have_started(database: Project) -> None:
    database.rule()
    started_doubtful_and_waiting(database)
    before = {job["name"]: job["id"] for job in database.jobs()}
    versions = {name: database.move(name, f"moved/{name}") for name in before}
    for name in ("started.mp4", "doubtful.mp4"):
        job = database.job(f"moved/{name}")
        assert (job["id"], job["version"]) == (before[name], versions[name])
    assert database.states()[-1] == ("moved/waiting.mp4", "queued", None)
    assert database.job("waiting.mp4")["reason"] == "moved"


def test_moving_a_file_out_of_the_rule_keeps_a_started_job_and_skips_a_waiting_one(database: Project) -> None:
    database.rule(path="clips/*")
    database.put("clips/a.mp4")
    database.started("clips/a.mp4", "runs/1")
    database.put("clips/b.mp4")
    database.move("clips/a.mp4", "old/a.mp4")
    database.move("clips/b.mp4", "b.mp4", to_bucket="results")
    assert sorted(database.states()) == [("clips/a.mp4", "started", None), ("clips/b.mp4", "skipped", "moved")]


def test_moving_a_file_into_the_rule_makes_a_job(database: Project) -> None:
    database.rule(path="clips/*")
    database.put("new/a.mp4")
    database.move("new/a.mp4", "clips/a.mp4")
    assert database.states() == [("clips/a.mp4", "queued", None)]


def test_deleting_a_source_skips_waiting_jobs_and_keeps_those_that_may_have_started(database: Project) -> None:
    database.rule()
    started_doubtful_and_waiting(database)
    database.delete("waiting.mp4", "started.mp4", "doubtful.mp4")
    assert sorted(database.states()) == [
        ("doubtful.mp4", "queued", None),
        ("started.mp4", "started", None),
        ("waiting.mp4", "skipped", "gone"),
    ]


@pytest.mark.parametrize(("reason", "expected"), [(None, ("queued", 2, None)), ("corrupt", ("failed", 1, "corrupt"))])
def test_a_run_that_fails_because_its_object_was_renamed_starts_once_more(
    database: Project, reason: str | None, expected: tuple[str, int, str | None]
) -> None:
    database.rule()
    database.put("a.mp4")
    database.started("a.mp4", "runs/1")
    database.move("a.mp4", "b.mp4")
    database.move("b.mp4", "c.mp4")
    database.report(database.next_lease(), "failed", ittybit_id="runs/1", reason=reason)
    job = database.job()
    assert (job["state"], job["generation"], job["reason"]) == expected
    if reason is None:
        lease = database.next_lease()
        assert (lease["step"], lease["name"], lease["mark"]) == ("start", "c.mp4", f"{job['id']}.2")
        database.report(lease, "started", ittybit_id="runs/2")
        # This run was started under the current name, so its failure is final.
        database.report(database.next_lease(), "failed", ittybit_id="runs/2")
        assert (database.states(), database.counted_starts()) == ([("c.mp4", "failed", "ittybit_failed")], 2)


def test_a_run_that_started_after_the_rename_and_fails_is_not_restarted(lease: Row, database: Project) -> None:
    database.move("a.mp4", "b.mp4")
    database.report(lease, "skipped", reason="gone")
    database.report(database.next_lease(), "started", ittybit_id="runs/1")
    database.report(database.next_lease(), "failed", ittybit_id="runs/1")
    assert database.states() == [("b.mp4", "failed", "ittybit_failed")]
