"""The drain with many jobs, slow services and several calls at once."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from shared import worker
from shared.ittybit import Ittybit
from tests.functions.calling import WAKE_UP, Function
from tests.functions.project import Job, Project
from tests.functions.test_job_steps import CLAIM, REPEATED, REPORT, RUN, SIGN, STARTED, STARTS
from tests.waiting import until

pytestmark = pytest.mark.generations("automations", "jobs")


def many(project: Project, count: int, *, bucket: str = "private", folder: str = "many") -> list[Job]:
    """Jobs for on-upload."""
    return [Job.of_automation(project, f"{folder}/{number}.mp4", bucket=bucket) for number in range(count)]


def calls(project: Project) -> Counter[str]:
    """How often each endpoint was called since ``note_calls``."""
    noted = [*(project.stack.supabase.requests or []), *(project.stack.ittybit_api.requests or [])]
    # Other requests are ittybit's own: it fetches sources and stores results.
    kinds = [
        re.fullmatch(r".*/rpc/ittybit_(\w+)|.*/object/(sign)/private|.*/(run|jobs)", one.path)
        for one in noted
        if one.method == "POST"
    ]
    return Counter(next(filter(None, kind.groups())).replace("jobs", "run") for kind in kinds if kind)


def note_calls(project: Project) -> None:
    project.stack.supabase.requests, project.stack.ittybit_api.requests = [], []


@contextmanager
def draining(function: Function) -> Iterator[Callable[[], Any]]:
    """Wake it in a thread; the function that this gives waits for the answer."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function.tell, WAKE_UP).result


@pytest.mark.parametrize("by", ["signature", "bearer"])
def test_a_wake_up_drains_due_jobs_and_answers_in_counts(on_upload: Function, project: Project, by: str) -> None:
    due = many(project, 3)
    project.stack.ittybit_api.add("POST", RUN, status=400, body={"kind": "unreadable", "message": "No."})
    answer = on_upload.tell(WAKE_UP) if by == "signature" else on_upload.ask(WAKE_UP)
    assert (answer.status_code, answer.get_json()) == (200, {"claimed": 3, "started": 2, "failed": 1})
    assert sorted(job["state"] for job in due) == ["failed", "started", "started"]
    assert on_upload.drain() == {"claimed": 0}


def test_a_single_upload_costs_four_calls(project: Project, on_upload: Function) -> None:
    job = Job.of_automation(project, "lone.mp4")
    note_calls(project)
    assert on_upload.drain() == STARTED
    assert calls(project) == {"claim": 2, "sign": 1, "run": 1}
    assert job.start.idempotency_key == job.mark


def test_many_uploads_cost_a_start_each_and_few_other_calls(project: Project, on_upload: Function) -> None:
    due = many(project, 2 * worker.BATCH)
    note_calls(project)
    assert on_upload.drain() == {"claimed": 64, "started": 64}
    made = calls(project)
    assert (made["run"], made["sign"]) == (64, 2)
    assert made["claim"] + made["report"] <= 8
    assert all(len(job.starts) == 1 for job in due)


def test_a_buckets_sources_are_signed_in_one_call_and_public_ones_in_none(
    project: Project, on_upload: Function
) -> None:
    note_calls(project)
    private, public = many(project, 3), many(project, 2, bucket="open", folder="public source?")
    assert on_upload.drain() == {"claimed": 5, "started": 5}
    assert calls(project)["sign"] == 1
    assert all("/object/sign/private/many/" in str(job.start.url) for job in private)
    place = f"{project.stack.supabase_url}/storage/v1/object/public/open/public%20source%3F"
    assert [job.start.url for job in public] == [f"{place}/{n}.mp4?job={job.mark}" for n, job in enumerate(public)]


def test_an_object_that_is_not_signed_holds_up_no_other_of_its_bucket(project: Project, on_upload: Function) -> None:
    due = many(project, 3)
    answers = [{"error": "not found", "signedURL": None}, {"signedURL": "/a?token=t"}, {"signedURL": 1}]
    project.stack.supabase.add("POST", SIGN, status=200, body=answers)  # type: ignore[arg-type] # a list will do
    assert on_upload.drain() == {"claimed": 3, "skipped": 1, "started": 1, "retry": 1}
    assert Counter(job["state"] for job in due) == {"queued": 2, "started": 1}


def test_slow_signing_for_a_bucket_holds_up_neither_other_buckets_nor_checks(
    project: Project, on_upload: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.edge.DEADLINE_SECONDS", 5.0)
    [checked] = many(project, 1, folder="checked")
    assert on_upload.drain() == STARTED
    checked.now()
    private, public = many(project, 2), many(project, 2, bucket="open")
    project.stack.supabase.add("POST", SIGN, hang=4)
    with draining(on_upload) as answer:
        until(lambda: all(job["state"] == "started" for job in public) and checked["claimed_at"] is None, seconds=4)
        assert answer().get_json()["retry"] == 2
    assert {job["state"] for job in private} == {"queued"}


def test_a_slow_ittybit_call_holds_up_neither_the_others_nor_their_reports(
    project: Project, on_upload: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.edge.DEADLINE_SECONDS", 5.0)
    due = many(project, 5)
    slow = project.stack.ittybit_api.add("POST", RUN, hang=4)
    with draining(on_upload) as answer:
        until(lambda: Counter(job["state"] for job in due) == {"started": 4, "queued": 1}, seconds=4)
        # A later upload starts meanwhile.
        until(lambda: slow.seen)
        late = Job.of_automation(project, "late.mp4")
        assert on_upload.drain() == STARTED
        assert late.start.idempotency_key == late.mark
        assert answer().get_json() == {"claimed": 5, "started": 4, "retry": 1}
    [held_up] = [job for job in due if job["state"] == "queued"]
    assert held_up["in_doubt_since"]


@pytest.mark.parametrize("path", [RUN, SIGN, CLAIM, REPORT])
def test_the_deadline_holds_when_any_service_hangs(
    project: Project, on_upload: Function, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("shared.edge.DEADLINE_SECONDS", 3.0)
    due = many(project, 3)
    for faults in (project.stack.supabase, project.stack.ittybit_api):
        faults.add("POST", path, times=9, hang=4)
    began = time.monotonic()
    answer = Function.make("on-upload", on_upload.environment, DRAIN_SECONDS="0").tell(WAKE_UP)
    assert time.monotonic() - began < 3.3
    assert answer.status_code == (503 if path in (CLAIM, REPORT) else 200)
    # A claim that hung is still made: wait for it here, not in the next test.
    until(lambda: all(job["attempt"] == 1 and job["due_at"] for job in due))


def test_a_step_that_ignores_the_deadline_is_abandoned_and_named_in_the_log(
    project: Project, on_upload: Function, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    monkeypatch.setattr("shared.edge.DEADLINE_SECONDS", 3.0)
    released = threading.Event()
    begin = Ittybit.start

    def start(self: Ittybit, *arguments: Any, **metadata: Any) -> Any:
        if "many/1" in arguments[1]:
            released.wait(20)
        return begin(self, *arguments, **metadata)

    monkeypatch.setattr(Ittybit, "start", start)
    due = many(project, 3)
    began = time.monotonic()
    try:
        assert on_upload.drain() == {"claimed": 3, "started": 2, "lost": 1}
        assert time.monotonic() - began < 3
        [line] = logged()
        assert line["unfinished"] == [due[1].id]
    finally:
        released.set()
    assert [job["state"] for job in due] == ["started", "queued", "started"]


def test_an_exception_in_a_step_loses_no_other_job_and_is_in_the_log(
    project: Project,
    on_upload: Function,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    due = many(project, 3)
    begin = Ittybit.start

    def start(self: Ittybit, *arguments: Any, **metadata: Any) -> Any:
        if "many/0" not in arguments[1]:
            raise LookupError("what nobody may read")
        return begin(self, *arguments, **metadata)

    with monkeypatch.context() as patch:
        patch.setattr(Ittybit, "start", start)
        assert on_upload.drain() == {"claimed": 3, "started": 1, "lost": 2}
    [line] = logged()
    assert (line["severity"], line["started"], line["lost"]) == ("ERROR", 1, 2)
    assert {fault["job"]: fault["error"] for fault in line["faults"]} == dict.fromkeys(
        (due[1].id, due[2].id), "LookupError"
    )
    assert "nobody" not in str(line)
    assert due[1]["claimed_at"]
    due[1].now()
    assert on_upload.drain() == REPEATED
    assert len(due[1].starts) == 1


def test_while_the_ledger_is_down_the_answer_says_so_and_nothing_is_lost(project: Project, on_upload: Function) -> None:
    job = Job.of_automation(project, "down.mp4")
    answer = Function.make("on-upload", on_upload.environment, SUPABASE_URL="http://127.0.0.1:9").tell(WAKE_UP)
    assert answer.status_code == 503
    assert "check SUPABASE_URL" in answer.get_json()["detail"]
    assert answer.headers["Retry-After"]
    assert on_upload.drain() == STARTED
    assert job.start.idempotency_key == job.mark


def test_after_a_claim_whose_answer_is_lost_the_next_one_searches_and_starts_once(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", CLAIM, drop="after")
    assert worker.tell(WAKE_UP).status_code == 503
    assert (job["attempt"], job["state"]) == (1, "queued")
    assert worker.drain() == {"claimed": 0}
    job.now()
    looked = job.project.stack.ittybit_api.add("GET", STARTS, hang=0)
    assert worker.drain() == REPEATED
    assert looked.seen == 1
    assert len(job.starts) == 1


@pytest.mark.parametrize("fault", [{"status": 500}, {"drop": "before"}, {"drop": "after"}])
def test_reports_in_a_claim_that_fails_are_sent_again_and_count_once(
    worker: Function, job: Job, fault: dict[str, Any]
) -> None:
    job.project.stack.supabase.add("POST", CLAIM, at=[1], times=1, **fault)
    assert worker.drain() == STARTED
    assert job.start.idempotency_key == job.mark
    assert job.project.stack.sql("select started from ittybit.starts") == [(1,)]


@pytest.mark.parametrize("fault", [{"status": 500}, {"drop": "after"}])
def test_a_report_that_fails_is_sent_again_with_the_next(
    project: Project, on_upload: Function, fault: dict[str, Any]
) -> None:
    due = many(project, 3)
    project.stack.ittybit_api.add("POST", RUN, hang=2)
    # As often as one report is tried.
    failing = project.stack.supabase.add("POST", REPORT, times=3, **fault)
    function = Function.make("on-upload", on_upload.environment, DRAIN_SECONDS="0")
    assert function.drain() == {"claimed": 3, "started": 3}
    assert failing.seen == 3
    assert [job.start.idempotency_key for job in due] == [job.mark for job in due]


def test_concurrent_wake_ups_start_each_job_once(project: Project, on_upload: Function) -> None:
    due = many(project, 50)
    with ThreadPoolExecutor(worker.DRAINS) as pool:
        answers = [answer.get_json() for answer in pool.map(on_upload.tell, [WAKE_UP] * worker.DRAINS)]
    assert sum(answer["claimed"] for answer in answers) == 50
    assert [len(job.starts) for job in due] == [1] * 50


def test_a_drain_over_the_limit_answers_busy(project: Project, on_upload: Function) -> None:
    slow = project.stack.supabase.add("POST", CLAIM, times=worker.DRAINS, hang=1)
    with ThreadPoolExecutor(worker.DRAINS) as pool:
        running = [pool.submit(on_upload.tell, WAKE_UP) for _ in range(worker.DRAINS)]
        until(lambda: slow.seen == worker.DRAINS)
        assert on_upload.drain() == {"claimed": 0, "busy": True}
        assert {answer.result().status_code for answer in running} == {200}
    assert on_upload.drain() == {"claimed": 0}


def test_one_functions_slow_drains_hold_up_no_other_function_of_the_process(
    project: Project, on_upload: Function, push_back: Function
) -> None:
    slow = project.stack.supabase.add("POST", CLAIM, times=worker.DRAINS, hang=1)
    with ThreadPoolExecutor(worker.DRAINS) as pool:
        running = [pool.submit(on_upload.tell, WAKE_UP) for _ in range(worker.DRAINS)]
        until(lambda: slow.seen == worker.DRAINS)
        assert push_back.drain() == {"claimed": 0}
        assert {answer.result().status_code for answer in running} == {200}


def test_a_drain_whose_time_is_over_leaves_a_wake_up_for_the_rest(project: Project, on_upload: Function) -> None:
    many(project, worker.BATCH + 3)
    project.stack.sql("update ittybit.functions set url = 'http://127.0.0.1:9' where name = 'on-upload'")
    drain = Function.make("on-upload", on_upload.environment, DRAIN_SECONDS="0").drain
    queued = "select convert_from(body, 'UTF8') from net.http_request_queue"
    assert drain() == {"claimed": worker.BATCH, "started": worker.BATCH}
    # One with each report that leaves work; on a busy machine there are several.
    woken = project.stack.sql(queued)
    assert set(woken) == {('{"type": "jobs.due"}',)}
    assert drain() == {"claimed": 3, "started": 3}
    assert project.stack.sql(queued) == woken


@pytest.mark.parametrize("meanwhile", ["gone", "renamed", "claimed again", "trimmed"])
def test_a_start_succeeds_although_its_job_changes(project: Project, on_upload: Function, meanwhile: str) -> None:
    job = Job.of_automation(project, f"meanwhile/{meanwhile}.mp4")
    starting = project.stack.ittybit_api.add("POST", RUN, hang=1)
    with draining(on_upload) as answer:
        until(lambda: starting.seen)
        match meanwhile:
            case "gone":
                project.remove("private", job.name)
            case "renamed":
                move = {"bucketId": "private", "sourceKey": job.name, "destinationKey": "meanwhile/new.mp4"}
                project.storage("POST", "object/move", json=move)
            case "claimed again":
                project.stack.sql("update ittybit.jobs set attempt = attempt + 1")
            case "trimmed":
                project.stack.sql("delete from ittybit.jobs")
        assert answer().get_json() == STARTED
    if meanwhile != "trimmed":
        assert job.start.idempotency_key == job.mark
        assert job["name"] == ("meanwhile/new.mp4" if meanwhile == "renamed" else job.name)


def test_a_ledger_of_another_project_is_left_alone_and_both_are_named(project: Project, on_upload: Function) -> None:
    job = Job.of_automation(project, "another.mp4")
    project.stack.sql("update ittybit.settings set project = 'https://other.supabase.co'")
    answer = on_upload.tell(WAKE_UP)
    detail = answer.get_json()["detail"]
    assert answer.status_code == 503
    assert all(said in detail for said in ("https://other.supabase.co", project.stack.supabase_url))
    assert "Correct SUPABASE_URL, or run ./deploy.sh database" in detail
    assert (job["attempt"], job.starts) == (0, [])
