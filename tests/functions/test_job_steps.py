"""The outcomes of one step of one job."""

from __future__ import annotations

import json

import pytest
from psycopg.types.json import Jsonb

from tests.functions.calling import Function
from tests.functions.project import Job, Project

pytestmark = pytest.mark.generations("automations", "jobs")

# The paths of a start for on-upload, and of the list that a search for a start in doubt reads.
RUN, STARTS = r"/automations/[^/]+/run|/jobs", "/tasks|/jobs"
CLAIM, REPORT, SIGN = "/rest/v1/rpc/ittybit_claim", "/rest/v1/rpc/ittybit_report", "/storage/v1/object/sign/.*"
# Longer than the deadline: the client does not repeat the request, but fails at once.
AT_ONCE = {"Retry-After": "60"}
STARTED, RETRY, FAILED, HOLD = ({"claimed": 1, outcome: 1} for outcome in ("started", "retry", "failed", "hold"))
# The search for a start in doubt found nothing, and the next claim started the job.
REPEATED = {"claimed": 2, "retry": 1, "started": 1}


def test_a_job_is_started_with_its_mark(worker: Function, job: Job) -> None:
    assert worker.drain() == STARTED
    entry = job.start
    assert entry.idempotency_key == job.mark
    assert (job["lost"], job["in_doubt_since"], job["claimed_at"]) == (0, None, None)
    if worker.name == "push-back":
        assert entry.destination == f"s3://private/processed/{job.name}"
        assert entry.connection_id == job.project.connection


def test_a_task_without_a_destination_is_started_by_on_upload(project: Project, on_upload: Function) -> None:
    task = Jsonb({"kind": "video", "options": {"height": 240}})
    project.stack.sql("insert into ittybit.rules (name, bucket_id, task) values ('kept', 'private', %s)", (task,))
    project.upload("private", "jobs/kept.mp4")
    assert on_upload.drain() == STARTED
    [entry] = project.starts("jobs/kept.mp4")
    assert (entry.destination, entry.connection_id) == (None, None)
    resource = "jobs" if project.speaks_jobs else "tasks"
    assert project.stack.sql("select ittybit_id from ittybit.jobs") == [(f"{resource}/{entry.id}",)]


STILL = {"kind": "image", "next": [{"kind": "upload", "options": {"url": "s3://private/processed/{name}.jpeg"}}]}


def test_a_run_records_all_its_results_or_fails_where_ittybit_has_no_runs(
    project: Project, push_back: Function
) -> None:
    job = Job.of_run(project, "jobs/several.mp4", STILL, {"kind": "audio"})
    if project.speaks_jobs:
        assert push_back.drain() == FAILED
        assert (job["state"], job["reason"], job.starts) == ("failed", "unsupported", [])
        assert job["error"]["message"].startswith("a job of this ittybit is one task and one upload of its result")
        return
    assert push_back.drain() == STARTED
    entry = job.start
    assert entry.metadata == {"bucket": "private", "name": job.name, "version": job["version"], "job": job.mark}
    tasks = project.ittybit("GET", f"tasks?run_id={entry.id}&order=asc")
    assert [task["kind"] for task in tasks] == ["ingest", "video", "upload", "image", "upload", "audio"]
    assert {task["options"]["connection_id"] for task in tasks if task["kind"] == "upload"} == {project.connection}
    job.ended_at_ittybit()
    job.now()
    assert push_back.drain() == {"claimed": 1, "succeeded": 1}
    # Each upload is listed once, and the fetched source is not a result.
    *uploaded, kept = job["outputs"]
    assert uploaded == [f"s3://private/processed/{job.name}", f"s3://private/processed/{job.name}.jpeg"]
    assert kept.startswith(f"{project.stack.ittybit_url}/results/")
    assert project.stack.sql("select count(*) from ittybit.jobs") == [(1,)]


def test_a_start_that_was_made_but_not_reported_is_adopted(worker: Function, job: Job) -> None:
    for path in (CLAIM, REPORT):
        job.project.stack.supabase.add("POST", path, times=9, at=range(path == CLAIM, 9), drop="before")
    assert worker.tell({"type": "jobs.due"}).status_code == 503
    assert (job["state"], len(job.starts)) == ("queued", 1)
    job.project.stack.supabase.clear()
    job.now()
    assert worker.drain() == STARTED
    assert job.start.idempotency_key == job.mark


@pytest.mark.parametrize(("status", "scope"), [(402, "all"), (401, "function:"), (403, "rule:")])
def test_a_failure_that_only_a_person_can_mend_holds_the_job(
    worker: Function, job: Job, start: str, status: int, scope: str
) -> None:
    said = {"kind": "some_kind", "message": "Pay first."}
    job.project.stack.ittybit_api.add("POST", start, status=status, body=said)
    assert worker.drain() == HOLD
    assert (job["state"], job["failures"], job["in_doubt_since"]) == ("queued", 0, None)
    [(held, error)] = job.project.stack.sql("select scope, error from ittybit.holds")
    assert held.startswith(scope)
    assert error == {"service": "ittybit", "status": status, **said}


def test_a_request_that_can_never_work_fails_with_ittybits_words(worker: Function, job: Job, start: str) -> None:
    # A database stores neither a lone surrogate nor a NUL.
    body = {"kind": "format\ud83d", "message": "Not\0this one."}
    job.project.stack.ittybit_api.add("POST", start, status=400, body=body)
    assert worker.drain() == FAILED
    assert (job["state"], job["due_at"]) == ("failed", None)
    assert job["error"] == {
        "service": "ittybit", "status": 400, "kind": "format\ufffd", "message": "Not\ufffdthis one."
    }  # fmt: skip


def test_a_job_that_storage_refuses_to_sign_fails_with_storages_error(worker: Function, job: Job) -> None:
    said = {"statusCode": "400", "error": "InvalidRequest", "message": "No."}
    job.project.stack.supabase.add("POST", "/storage/v1/object/sign/private", status=400, body=said)
    assert worker.drain() == FAILED
    assert (job["state"], job["reason"], job["error"]["service"]) == ("failed", "not_signed", "storage")
    assert not job.starts


def test_a_temporary_failure_is_retried_after_the_time_that_it_asks_for(worker: Function, job: Job, start: str) -> None:
    job.project.stack.ittybit_api.add("POST", start, times=9, status=503, headers={"Retry-After": "600"})
    assert worker.drain() == RETRY
    assert (job["state"], job["failures"], job["in_doubt_since"]) == ("queued", 1, None)
    assert job.project.stack.sql("select due_at > now() + interval '590 s' from ittybit.jobs") == [(True,)]


def test_a_redirect_is_retried_and_fails_no_job(worker: Function, job: Job, start: str) -> None:
    job.project.stack.ittybit_api.add("POST", start, status=302, headers={"Location": "https://example.test/"})
    assert worker.drain() == RETRY
    job.now()
    assert worker.drain() == STARTED


def test_an_object_that_storage_does_not_find_is_skipped_only_if_the_ledger_agrees(worker: Function, job: Job) -> None:
    missing = {"statusCode": "404", "error": "not_found", "message": "Object not found"}
    job.project.stack.supabase.add("POST", SIGN, status=400, body=missing)
    assert worker.drain() == {"claimed": 1, "skipped": 1}
    assert (job["state"], job["in_doubt_since"], job.starts) == ("queued", None, [])
    job.project.remove("private", job.name)
    assert worker.drain() == {"claimed": 0}
    assert (job["state"], job["reason"], job.starts) == ("skipped", "gone", [])


@pytest.mark.parametrize(("status", "body"), [(500, None), (200, {"0": 1})])
def test_a_job_that_storage_does_not_sign_is_retried_without_a_start(
    worker: Function, job: Job, status: int, body: dict[str, int] | None
) -> None:
    job.project.stack.supabase.add("POST", SIGN, times=9, status=status, headers=AT_ONCE, body=body)
    assert worker.drain() == RETRY
    assert job["error"]["service"] == "storage"
    assert (job["state"], job["in_doubt_since"], job.starts) == ("queued", None, [])


@pytest.mark.parametrize(
    "claim",
    [{}, {"jobs": [{"step": "check"}]}, {"claimed": True, "step": "start"}],
)
def test_a_malformed_claim_counts_as_no_answer(worker: Function, job: Job, claim: dict[str, object]) -> None:
    job.project.stack.supabase.add("POST", CLAIM, status=200, body=claim)
    answer = worker.tell({"type": "jobs.due"})
    assert (answer.status_code, answer.get_json()["upstream"]["service"]) == (503, "ledger")
    assert "apply the newest migrations" in answer.get_json()["detail"]


def test_without_the_ledger_s_functions_the_answer_says_what_to_do(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", CLAIM, status=404, body={"code": "PGRST202", "message": "Could not find it"})
    answer = worker.tell({"type": "jobs.due"})
    assert answer.status_code == 503
    assert "apply the migrations" in answer.get_json()["detail"]


def test_a_key_in_the_error_of_a_failed_run_is_redacted_in_the_ledger(project: Project, on_upload: Function) -> None:
    job = Job.of_automation(project, "key/a.mp4")
    assert on_upload.drain() == STARTED
    key = project.stack.ittybit_key
    said = {"kind": f"kind {key}", "message": "m" * (500 - len(key) // 2) + key}
    run = {"id": job.start.id, "status": "failed", "error": said}
    project.stack.ittybit_api.add("GET", "/(runs|jobs)/.*", status=200, body=run)
    job.now()
    assert on_upload.drain() == FAILED
    assert job["error"]["kind"] == "kind ***"
    assert key[: len(key) // 2 - 1] not in json.dumps(job["error"])
