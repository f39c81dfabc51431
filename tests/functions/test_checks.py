from __future__ import annotations

import pytest

from tests.functions.calling import Function, outcome
from tests.functions.project import Job


def test_a_check_reports_progress(worker: Function, job: Job) -> None:
    outcome(worker.tell(job.send()), 202, "started")
    going = {"id": job["ittybit_id"], "status": "processing", "progress": 42.5}
    job.project.stack.ittybit_api.add("GET", f".*/{job['ittybit_id']}", status=200, body=going)
    outcome(worker.tell(job.send()), 202, "started")
    assert (job["state"], job["progress"], len(job.starts)) == ("started", 42.5, 1)


def test_a_check_reports_success_with_the_outputs(worker: Function, job: Job) -> None:
    outcome(worker.tell(job.send()), 202, "started")
    job.ended_at_ittybit()
    outcome(worker.tell(job.send()), 200, "succeeded")
    assert (job["state"], job["progress"], job["due_at"]) == ("succeeded", 100, None)
    [output] = job["outputs"]
    if worker.name == "push-back":
        assert output == f"s3://private/processed/{job.name}"
    else:
        assert output.startswith(f"{job.project.stack.ittybit_url}/results/")


def test_a_check_reports_failure_in_ittybit_s_words_without_a_token(worker: Function, job: Job) -> None:
    outcome(worker.tell(job.send()), 202, "started")
    message = f"Could not read {job.starts[0].url}"
    failed = {"id": job["ittybit_id"], "status": "failed", "error": {"kind": "unreadable", "message": message}}
    job.project.stack.ittybit_api.add("GET", f".*/{job['ittybit_id']}", status=200, body=failed)
    outcome(worker.tell(job.send()), 200, "failed")
    assert (job["state"], job["error"]["kind"]) == ("failed", "unreadable")
    assert job["error"]["message"].startswith("Could not read http")
    assert "token=***" in job["error"]["message"]


def test_what_ittybit_no_longer_knows_has_failed(worker: Function, job: Job) -> None:
    outcome(worker.tell(job.send()), 202, "started")
    job.project.stack.ittybit_api.add("GET", f".*/{job['ittybit_id']}", status=404, body={"kind": "run_not_found"})
    outcome(worker.tell(job.send()), 200, "failed")
    assert (job["state"], job["error"]["kind"]) == ("failed", "run_not_found")


@pytest.mark.parametrize("status", [401, 402, 403, 500])
def test_a_check_that_is_refused_for_now_is_made_again(worker: Function, job: Job, status: int) -> None:
    outcome(worker.tell(job.send()), 202, "started")
    job.project.stack.ittybit_api.add("GET", ".*", status=status, headers={"Retry-After": "60"})
    outcome(worker.tell(job.send()), 200, "retry")
    assert job["state"] == "started"
    job.project.stack.ittybit_api.clear()
    job.ended_at_ittybit()
    outcome(worker.tell(job.send()), 200, "succeeded")
    assert len(job.starts) == 1
