"""The outcomes of a check of a started job."""

from __future__ import annotations

import pytest

from tests.functions.calling import Function
from tests.functions.project import Job
from tests.functions.test_job_steps import FAILED, RETRY, STARTED

pytestmark = pytest.mark.generations("automations", "jobs")

GONE = {"kind": "run_not_found", "message": "There is no such run."}


@pytest.fixture
def started(worker: Function, job: Job) -> Job:
    """A started job whose check is due."""
    assert worker.drain() == STARTED
    job.now()
    return job


def test_a_check_reports_progress(worker: Function, started: Job) -> None:
    going = {"id": started.start.id, "status": "processing", "progress": 42.5}
    started.project.stack.ittybit_api.add("GET", f".*/{going['id']}", status=200, body=going)
    assert worker.drain() == STARTED
    assert (started["state"], started["progress"], len(started.starts)) == ("started", 42.5, 1)


def test_a_check_reports_success_with_the_outputs(worker: Function, started: Job) -> None:
    started.ended_at_ittybit()
    assert worker.drain() == {"claimed": 1, "succeeded": 1}
    assert (started["state"], started["progress"], started["due_at"]) == ("succeeded", 100, None)
    [output] = started["outputs"]
    if worker.name == "push-back":
        assert output == f"s3://private/processed/{started.name}"
    else:
        assert output.startswith(f"{started.project.stack.ittybit_url}/results/")


@pytest.mark.parametrize(("number", "outcome"), [(20_000, "succeeded"), (200_000, "retry")])
def test_a_job_records_tens_of_thousands_of_results_and_a_larger_answer_is_retried(
    worker: Function, started: Job, number: int, outcome: str
) -> None:
    outputs = [f"https://results.test/{one}.ts" for one in range(number)]
    done = {"id": started.start.id, "status": "succeeded", "outputs": outputs}
    started.project.stack.ittybit_api.add("GET", f".*/{done['id']}", times=9, status=200, body=done)
    assert worker.drain() == {"claimed": 1, outcome: 1}
    if outcome == "succeeded":
        assert started["outputs"][:number] == outputs
    else:
        # It checks again: an answer that it could not read ends no job.
        assert started["state"] == "started"


def test_a_check_reports_ittybits_error_with_the_token_redacted(worker: Function, started: Job) -> None:
    message = f"Could not read {started.start.url}"
    failed = {"id": started.start.id, "status": "failed", "error": {"kind": "unreadable", "message": message}}
    started.project.stack.ittybit_api.add("GET", f".*/{failed['id']}", status=200, body=failed)
    assert worker.drain() == FAILED
    assert (started["state"], started["error"]["kind"]) == ("failed", "unreadable")
    assert started["error"]["message"].startswith("Could not read http")
    assert "token=***" in started["error"]["message"]


def test_a_run_that_ittybit_no_longer_knows_has_failed(worker: Function, started: Job) -> None:
    started.project.stack.ittybit_api.add("GET", ".*/(run|task|job)_.*", status=404, body=GONE)
    assert worker.drain() == FAILED
    assert (started["state"], started["error"]["kind"]) == ("failed", "run_not_found")


@pytest.mark.parametrize("status", [400, 404])
def test_a_gateways_answer_to_a_check_does_not_count_as_ittybits(worker: Function, started: Job, status: int) -> None:
    refusals = started.project.stack.ittybit_api.add("GET", ".*", times=3, status=status, body={})
    assert worker.drain() == RETRY
    assert (started["state"], refusals.seen) == ("started", 3)


@pytest.mark.parametrize("status", [401, 402, 403, 500])
def test_a_check_that_ittybit_refuses_for_now_is_retried(worker: Function, started: Job, status: int) -> None:
    refusal = started.project.stack.ittybit_api.add("GET", ".*", status=status, headers={"Retry-After": "60"})
    assert worker.drain() == RETRY
    assert (started["state"], refusal.seen) == ("started", 1)
    started.ended_at_ittybit()
    started.now()
    assert worker.drain() == {"claimed": 1, "succeeded": 1}
    assert len(started.starts) == 1
