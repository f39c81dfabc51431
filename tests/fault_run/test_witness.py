"""Each broken promise is counted: made-up journals, each with one fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from local.fault_injection import Request
from local.fault_run.witness import Evidence, Finding, Job, examine, mark_of, source_name
from local.ittybit_server import Entry

JOB = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
TAG = '"aaaa"'


def entry(mark: str = f"{JOB}.1", name: str = "in/a b?.mp4", *, time: float = 100, **fields: Any) -> Entry:
    quoted = name.replace(" ", "%20").replace("?", "%3F")
    url = f"http://127.0.0.1:1/storage/v1/object/sign/media/{quoted}?token=t.t.t&job={mark}"
    values: dict[str, Any] = {"idempotency_key": mark, "id": f"task_{mark}_{time}", "time": time, **fields}
    return Entry("POST /tasks", url, destination="s3://media/processed/in/a b?.mp4", **values)


def request(arrived: float, passed: float, mark: str = f"{JOB}.1") -> Request:
    return Request("POST", "/tasks", "", mark, arrived, passed)


def search(arrived: float, query: str = "limit=100&order=desc") -> Request:
    return Request("GET", "/tasks", query, None, arrived, arrived)


def job(state: str = "succeeded", **fields: Any) -> Job:
    row = Job(JOB, "copied", "in/a b?.mp4", TAG, state, None, None)
    return row._replace(**fields)


GOOD = Evidence(
    journal=[entry()],
    requests=[request(99, 99)],
    failed=set(),
    jobs=[job()],
    stored={"in/a b?.mp4": TAG, "processed/in/a b?.mp4": TAG},
    rules=["copied"],
    results="processed/",
)


def counts(finding: Finding) -> dict[str, int]:
    return {name: len(found) for name, found in vars(finding).items() if found}


def test_a_starts_mark_and_source_are_read() -> None:
    assert mark_of(entry()) == f"{JOB}.1"
    assert source_name(entry()) == "in/a b?.mp4"
    assert mark_of(Entry("POST /tasks", "https://example.com/x", id="task_1")) == "task_1"


def test_nothing_is_found_when_no_promise_is_broken() -> None:
    replayed = replace(entry(time=101), replay=True)
    assert counts(examine(GOOD)) == {}
    assert counts(examine(replace(GOOD, journal=[entry(), replayed]))) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"journal": []}, id="never started, though the ledger says succeeded"),
        pytest.param({"journal": [entry(f"{OTHER}.1")]}, id="started with another job's mark"),
        pytest.param({"jobs": []}, id="the ledger has no row"),
        pytest.param({"jobs": [job("skipped", reason="superseded")]}, id="skipped for a false reason"),
        pytest.param({"jobs": [job("started")]}, id="not finished"),
        pytest.param({"jobs": [job("failed", reason="gave_up", error={"message": "x"})]}, id="given up"),
        pytest.param({"jobs": [job("failed", error={"service": "storage", "message": "x"})]}, id="failed by Storage"),
        pytest.param({"jobs": [job("failed")]}, id="failed without a message"),
        pytest.param({"jobs": [job(etag='"bbbb"')]}, id="another content"),
        pytest.param({"jobs": [job(name="in/b.mp4")]}, id="another key"),
    ],
)
def test_a_lost_file_is_found(wrong: dict[str, Any]) -> None:
    assert counts(examine(replace(GOOD, **wrong))) == {"lost": 1}


def test_each_finding_has_its_row_of_the_ledger() -> None:
    row = job("skipped", reason="gone", whole='{"attempt": 3}')
    [lost] = examine(replace(GOOD, jobs=[row])).lost
    assert lost == f'copied: in/a b?.mp4 {TAG}; in the ledger: {{"attempt": 3}}'
    [twice] = examine(
        replace(GOOD, journal=[entry(), entry(time=200)], jobs=[job(whole='{"attempt": 2}')])
    ).started_twice
    assert twice.endswith('; in the ledger: {"attempt": 2}')
    [other_mark] = examine(
        replace(
            GOOD,
            journal=[entry(), entry(f"{OTHER}.1", time=200)],
            jobs=[job(), job(id=OTHER, name="b.mp4", whole='{"attempt": 4}')],
        )
    ).started_twice
    assert other_mark.endswith('; in the ledger: {"attempt": 4}')
    [self_started] = examine(replace(GOOD, journal=[entry(), entry(f"{OTHER}.1", "processed/b.mp4")])).self_started
    assert self_started.endswith("; in the ledger: nothing")


@pytest.mark.parametrize(
    "row",
    [
        job("failed", reason="ittybit_failed", error={"kind": "request_invalid", "message": "no"}),
        job("failed", error={"service": "ittybit", "status": 400, "message": "no"}),
    ],
)
def test_a_file_that_ittybit_refuses_is_not_lost(row: Job) -> None:
    assert counts(examine(replace(GOOD, journal=[], jobs=[row]))) == {}


def test_a_file_is_lost_for_each_matching_rule_that_did_not_process_it() -> None:
    assert counts(examine(replace(GOOD, rules=["copied", "automated"]))) == {"lost": 1}


def test_a_deleted_file_is_not_lost() -> None:
    assert counts(examine(replace(GOOD, journal=[], jobs=[job("skipped", reason="gone")], stored={}))) == {}


def test_a_second_start_with_the_same_mark_is_found() -> None:
    requests = [request(99, 99), search(199), request(200, 200)]
    double = replace(GOOD, journal=[entry(), entry(time=200)], requests=requests)
    assert counts(examine(double)) == {"started_twice": 1}
    assert counts(examine(replace(double, journal=[*double.journal, entry(time=201)]))) == {"started_twice": 2}


def test_a_second_start_of_the_same_content_with_another_jobs_mark_is_found() -> None:
    jobs = [job(), job(id=OTHER, name="renamed/a.mp4")]
    double = replace(GOOD, journal=[entry(), entry(f"{OTHER}.1", time=200)], jobs=jobs)
    assert counts(examine(double)) == {"started_twice": 1}
    # The same bytes for another rule, or tried again because ittybit failed the first start, do not count.
    assert counts(examine(replace(double, jobs=[job(), job(id=OTHER, rule="automated")]))) == {}
    assert counts(examine(replace(double, failed={entry().id}))) == {}


def test_a_start_of_a_second_generation_without_a_retry_counts_as_started_twice() -> None:
    assert counts(examine(replace(GOOD, journal=[entry(), entry(f"{JOB}.2", time=200)]))) == {"started_twice": 1}


@pytest.mark.parametrize(
    ("requests", "found"),
    [
        pytest.param([request(99, 205), search(199), request(200, 200)], "ambiguous", id="the first was accepted last"),
        pytest.param([request(99, 205), request(200, 200)], "started_twice", id="no search"),
        pytest.param([request(99, 205), search(150), request(200, 200)], "started_twice", id="search too long before"),
        pytest.param(
            [request(99, 205), search(199, "run_id=run_1"), request(200, 200)], "started_twice", id="another search"
        ),
    ],
)
def test_an_ambiguous_start_is_counted_separately(requests: list[Request], found: str) -> None:
    journal = [entry(time=200.001), entry(time=205.001)]
    assert counts(examine(replace(GOOD, journal=journal, requests=requests))) == {found: 1}


@pytest.mark.parametrize("source", ["processed/in/a b?.mp4", "processed/else.mp4", "kept/a.mp4"])
def test_a_start_by_a_result_is_found(source: str) -> None:
    journal = [entry(), entry(f"{OTHER}.1", source, time=200)]
    assert counts(examine(replace(GOOD, journal=journal, renamed_results={"kept/a.mp4"}))) == {"self_started": 1}


def test_a_result_outside_the_prefix_is_recognised_by_its_destination() -> None:
    first = replace(entry(), destination="s3://media/thumbs/a.mp4")
    journal = [first, entry(f"{OTHER}.1", "thumbs/a.mp4", time=200)]
    assert counts(examine(replace(GOOD, journal=journal))) == {"self_started": 1}
