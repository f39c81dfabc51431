from __future__ import annotations

import pytest

from shared import ittybit as client
from tests.functions.calling import Function, outcome
from tests.functions.project import Job
from tests.functions.test_jobs import AT_ONCE, TASKS


@pytest.fixture(params=["before", "after"])
def in_doubt(request: pytest.FixtureRequest, worker: Function, job: Job, start: str) -> Job:
    """A job whose start got no answer: it happened ("after") or it did not ("before")."""
    job.project.stack.ittybit_api.add("POST", start, drop=request.param)
    outcome(worker.tell(job.send()), 200, "retry")
    assert job["doubt_since"]
    assert len(job.starts) == (1 if request.param == "after" else 0)
    return job


def happened(job: Job) -> bool:
    return len(job.starts) == 1


def test_a_source_that_is_gone_does_not_hide_what_was_started(worker: Function, in_doubt: Job) -> None:
    in_doubt.project.remove("private", in_doubt.name)
    assert in_doubt["state"] == "queued"
    if happened(in_doubt):
        outcome(worker.tell(in_doubt.send()), 202, "started")
        assert in_doubt["ittybit_id"] == in_doubt.starts[0].id
    else:
        assert outcome(worker.tell(in_doubt.send()), 200, "skipped")["reason"] == "gone"
        assert in_doubt.starts == []


def test_a_paused_job_is_looked_for_and_not_started(worker: Function, in_doubt: Job) -> None:
    stack = in_doubt.project.stack
    stack.sql("select ittybit.pause()")
    try:
        if happened(in_doubt):
            outcome(worker.tell(in_doubt.send()), 202, "started")
        else:
            assert outcome(worker.tell(in_doubt.send()), 200, "retry")["reason"] == "paused"
            assert (in_doubt.starts, in_doubt["doubt_since"]) == ([], None)
            assert outcome(worker.tell(in_doubt.send()), 200, "nothing to do")["reason"] == "paused"
    finally:
        stack.sql("select ittybit.resume()")


@pytest.mark.parametrize("status", [400, 404])
def test_a_search_that_is_refused_says_nothing_about_the_job(worker: Function, in_doubt: Job, status: int) -> None:
    in_doubt.project.stack.ittybit_api.add("GET", TASKS, status=status, headers=AT_ONCE)
    outcome(worker.tell(in_doubt.send()), 200, "retry")
    assert in_doubt["doubt_since"]
    outcome(worker.tell(in_doubt.send()), 202, "started")
    assert happened(in_doubt)


def test_what_cannot_be_found_out_is_started_once_more_and_never_again(
    worker: Function, in_doubt: Job, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MAX_PAGES", 0)  # any task at all is one too many to look through
    other = in_doubt.project
    other.ittybit("POST", "tasks", json={"url": "https://example.test/a.mp4", "kind": "speech"})
    known = len(in_doubt.starts)
    stack = other.stack

    outcome(worker.tell(in_doubt.send()), 200, "undecided")
    assert (in_doubt["restart"], len(in_doubt.starts)) == ("due", known)
    stack.ittybit_api.add("POST", start, drop="after")
    outcome(worker.tell(in_doubt.send()), 200, "retry")
    assert (in_doubt["restart"], len(in_doubt.starts)) == ("done", known + 1)

    outcome(worker.tell(in_doubt.send()), 200, "undecided")
    assert (in_doubt["state"], in_doubt["reason"]) == ("failed", "undecided")
    assert len(in_doubt.starts) == known + 1


def test_a_service_that_has_moved_ends_no_job(worker: Function, job: Job, start: str) -> None:
    job.project.stack.ittybit_api.add("POST", start, status=302, headers={"Location": "https://example.test/"})
    outcome(worker.tell(job.send()), 200, "retry")
    assert job["state"] == "queued"
    outcome(worker.tell(job.send()), 202, "started")
