"""A start that may have happened is looked for before the job starts again."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs

import pytest

from shared import ittybit_requests, ittybit_search
from tests.functions.calling import Function
from tests.functions.project import Job, Project
from tests.functions.test_job_steps import AT_ONCE, REPEATED, RETRY, RUN, STARTED, STARTS

pytestmark = pytest.mark.generations("automations", "jobs")


@pytest.fixture(params=["before", "after"])
def in_doubt(request: pytest.FixtureRequest, worker: Function, job: Job, start: str) -> Job:
    """A job whose start got no answer: it happened ("after") or it did not ("before"). It is due."""
    job.project.stack.ittybit_api.add("POST", start, drop=request.param)
    assert worker.drain() == RETRY
    assert (job["state"], job["ittybit_id"], job["failures"]) == ("queued", None, 1)
    assert job["in_doubt_since"]
    assert len(job.starts) == (1 if request.param == "after" else 0)
    job.now()
    return job


def test_a_start_that_happened_is_adopted_and_one_that_did_not_is_repeated(worker: Function, in_doubt: Job) -> None:
    assert (STARTED if in_doubt.starts else REPEATED) == worker.drain()
    assert in_doubt.start.idempotency_key == in_doubt.mark
    assert in_doubt["in_doubt_since"] is None


def test_a_start_that_happened_is_found_although_its_source_is_gone(worker: Function, in_doubt: Job) -> None:
    happened = bool(in_doubt.starts)
    in_doubt.project.remove("private", in_doubt.name)
    assert worker.drain() == (STARTED if happened else RETRY)
    if happened:
        assert in_doubt.start.idempotency_key == in_doubt.mark
    else:
        assert (in_doubt["reason"], in_doubt.starts) == ("gone", [])


def test_while_paused_a_start_in_doubt_is_searched_for_and_not_repeated(worker: Function, in_doubt: Job) -> None:
    happened = bool(in_doubt.starts)
    in_doubt.project.stack.sql("select ittybit.pause()")
    assert worker.drain() == (STARTED if happened else RETRY)
    if not happened:
        assert (in_doubt.starts, in_doubt["in_doubt_since"]) == ([], None)
        assert worker.drain() == {"claimed": 0}


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_a_job_stays_in_doubt_when_its_search_fails(worker: Function, in_doubt: Job, status: int) -> None:
    since = in_doubt["in_doubt_since"]
    in_doubt.project.stack.ittybit_api.add("GET", STARTS, status=status, headers=AT_ONCE)
    assert worker.drain() == {"claimed": 1, "hold" if status == 401 else "retry": 1}
    assert in_doubt["in_doubt_since"] == since
    in_doubt.project.stack.sql("delete from ittybit.holds")
    in_doubt.now()
    assert (STARTED if in_doubt.starts else REPEATED) == worker.drain()
    assert in_doubt.start.idempotency_key == in_doubt.mark


def never_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every search end after its first page, which has one item, as if an hour of them had."""
    monkeypatch.setattr(ittybit_requests, "PAGE", 1)
    monkeypatch.setattr(ittybit_requests.Api, "is_late", True)
    monkeypatch.setattr(ittybit_search, "SEARCH_PERIOD", timedelta(0))


@pytest.mark.generations("automations")
def test_a_start_that_stays_in_doubt_is_repeated_once_and_never_again(
    worker: Function, in_doubt: Job, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_ending(monkeypatch)
    other = in_doubt.project
    newer = {"url": "https://example.test/a.mp4", "kind": "speech"}
    other.ittybit("POST", "tasks", json=newer)
    known = len(in_doubt.starts)
    other.stack.ittybit_api.add("POST", start, drop="after")
    assert worker.drain() == {"claimed": 2, "undecided": 1, "retry": 1}
    assert (in_doubt["undecided"], len(in_doubt.starts)) == (True, known + 1)
    other.ittybit("POST", "tasks", json=newer)
    in_doubt.now()
    assert worker.drain() == {"claimed": 1, "undecided": 1}
    assert (in_doubt["state"], in_doubt["reason"]) == ("failed", "undecided")
    assert len(in_doubt.starts) == known + 1


@pytest.mark.generations("automations")
def test_a_search_that_runs_out_of_time_continues_soon_and_is_no_failure(
    worker: Function, in_doubt: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_doubt.project.ittybit("POST", "tasks", json={"url": "https://example.test/a.mp4", "kind": "speech"})
    failures = in_doubt["failures"]
    with monkeypatch.context() as hurried:
        hurried.setattr(ittybit_requests, "PAGE", 1)
        hurried.setattr(ittybit_requests.Api, "is_late", True)
        for _ in range(3):
            in_doubt.now()
            assert worker.drain() == RETRY
            assert (in_doubt["reason"], in_doubt["failures"]) == ("searching", failures)
            assert in_doubt["in_doubt_since"]
            soon = "select due_at - now() between interval '5 s' and interval '15 s' from ittybit.jobs where id = %s"
            assert in_doubt.project.stack.sql(soon, [in_doubt.id]) == [(True,)]
    in_doubt.now()
    assert (STARTED if in_doubt.starts else REPEATED) == worker.drain()
    assert in_doubt.start.idempotency_key == in_doubt.mark


@pytest.mark.generations("automations")
def test_the_ledger_keeps_what_a_search_has_read(
    worker: Function, in_doubt: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        in_doubt.project.ittybit("POST", "tasks", json={"url": "https://example.test/a.mp4", "kind": "speech"})
    *_, older, _ = in_doubt.project.stack.ittybit._records.tasks
    monkeypatch.setattr(ittybit_requests, "PAGE", 1)
    with monkeypatch.context() as hurried:
        late = iter([False, True])
        hurried.setattr(ittybit_requests.Api, "is_late", property(lambda _: next(late)))
        assert worker.drain() == RETRY
    assert in_doubt["searched"]["down_to"] == older

    asked = in_doubt.project.stack.ittybit_api.requests = []
    in_doubt.now()
    assert (STARTED if in_doubt.starts else REPEATED) == worker.drain()
    in_doubt.project.stack.ittybit_api.requests = None
    pages = [parse_qs(one.query).get("after") for one in asked if one.method == "GET" and "order=desc" in one.query]
    assert pages[0] == [older]
    assert in_doubt["searched"] is None


@pytest.mark.generations("automations")
def test_a_start_that_is_found_without_its_run_is_not_repeated(project: Project, on_upload: Function) -> None:
    job = Job.of_automation(project, "found without run.mp4")
    project.stack.ittybit_api.add("POST", RUN, drop="after")
    assert on_upload.drain() == RETRY
    task = {"id": "task_1", "status": "processing", "url": job.starts[0].url}
    project.stack.ittybit_api.add("GET", STARTS, status=200, body={"data": [task]})
    job.now()
    assert on_upload.drain() == RETRY
    assert job["in_doubt_since"]
    assert len(job.starts) == 1


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch, in_doubt: Job) -> Job:
    """A job in doubt at an ittybit that has more work than a search reads and honours Idempotency-Key."""
    never_ending(monkeypatch)
    monkeypatch.setattr(in_doubt.project.stack.ittybit._starting, "_honour_idempotency", True)
    for _ in range(2):
        in_doubt.project.ittybit("POST", "jobs", json={"input": "https://example.test/a.mp4", "kind": "audio"})
    return in_doubt


@pytest.mark.generations("jobs")
def test_an_undecided_start_is_repeated_once_with_the_same_key(worker: Function, unseen: Job) -> None:
    known = len(unseen.starts)
    assert worker.drain() == {"claimed": 2, "undecided": 1, "started": 1}
    assert unseen["undecided"]
    metadata = {"bucket": "private", "name": unseen.name, "version": unseen["version"], "job": unseen.mark}
    assert unseen.start.metadata == metadata
    # ittybit returns what was first started with the key.
    assert len(unseen.starts) == max(known, 1)


@pytest.mark.generations("jobs")
def test_while_paused_an_undecided_start_is_not_repeated(worker: Function, unseen: Job) -> None:
    known = len(unseen.starts)
    unseen.project.stack.sql("select ittybit.pause()")
    assert worker.drain() == {"claimed": 1, "undecided": 1}
    assert len(unseen.starts) == known


@pytest.mark.generations("jobs")
def test_a_key_conflict_leaves_the_start_in_doubt(worker: Function, job: Job) -> None:
    said = {"kind": "conflict", "message": "A request with this key is under way."}
    job.project.stack.ittybit_api.add("POST", "/jobs", status=409, body=said)
    assert worker.drain() == RETRY
    assert job["in_doubt_since"]
    job.now()
    assert worker.drain() == REPEATED
    assert job.start.idempotency_key == job.mark
