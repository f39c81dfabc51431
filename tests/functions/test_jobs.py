from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.functions.calling import Function, outcome
from tests.functions.project import Job, Project

RUN, TASKS = r"/automations/[^/]+/run", "/tasks"
CLAIM, REPORT, SIGN = "/rest/v1/rpc/ittybit_claim", "/rest/v1/rpc/ittybit_report", "/storage/v1/object/sign/.*"
# Longer than there is: what would be asked again comes back at once.
AT_ONCE = {"Retry-After": "60"}


def test_a_message_starts_the_job_with_its_mark(worker: Function, job: Job) -> None:
    answer = worker.tell(job.send())
    body = outcome(answer, 202, "started")
    [entry] = job.starts
    assert (job["state"], job["ittybit_id"]) == ("started", entry.id)
    assert entry.idempotency_key == job.mark
    assert (body["job"], body["ittybit_id"]) == (job.id, entry.id)
    assert answer.headers["X-Correlation-Id"] == job.id
    if worker.name == "push-back":
        assert entry.destination == f"s3://private/processed/{job.name}"
        assert entry.connection_id == job.project.connection


@pytest.mark.parametrize("name", ["on-upload", "push-back"])
def test_an_object_of_a_public_bucket_is_read_without_a_signature(project: Project, name: str) -> None:
    make = Job.of_automation if name == "on-upload" else Job.of_task
    job = make(project, f"public source/{name}?.mp4", bucket="open")
    signed = project.stack.supabase.add("POST", SIGN, times=9, status=500)
    outcome(Function.make(name, project.stack.environment).tell(job.send()), 202, "started")
    [entry] = job.starts
    assert (
        entry.url
        == f"{project.stack.supabase_url}/storage/v1/object/public/open/public%20source/{name}%3F.mp4?job={job.mark}"
    )
    assert signed.seen == 0


def test_a_message_delivered_twice_starts_once(worker: Function, job: Job) -> None:
    message = job.send()
    outcome(worker.tell(message), 202, "started")
    assert outcome(worker.tell(message), 200, "nothing to do")["reason"] == "lost"
    assert len(job.starts) == 1


def test_a_message_delivered_many_times_at_once_starts_once(worker: Function, job: Job) -> None:
    message = job.send()
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.get_json() for answer in pool.map(lambda _: worker.tell(message), range(8))]
    assert sorted(answer["outcome"] for answer in answers) == ["nothing to do"] * 7 + ["started"]
    assert len(job.starts) == 1


def test_a_job_that_nobody_knows_is_nothing_to_do(worker: Function) -> None:
    message = {"job": "6c2f1f6e-0d6e-4d0e-9f10-c0ffee000000", "attempt": 1}
    assert outcome(worker.tell(message), 200, "nothing to do")["reason"] == "unknown"


def test_a_database_that_was_moved_goes_on_by_the_first_message_that_is_claimed_in_it(
    worker: Function, job: Job
) -> None:
    job.project.stack.sql("update ittybit.settings set home = 'elsewhere/5'")
    outcome(worker.tell(job.send()), 202, "started")
    assert len(job.starts) == 1
    assert job.project.stack.sql("select ittybit.is_copy(), home = ittybit.here() from ittybit.settings") == [
        (False, True)
    ]


def test_after_a_claim_whose_answer_is_lost_the_next_attempt_starts_once(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", CLAIM, drop="after")
    assert worker.tell(job.send()).status_code == 503
    assert (job["claimed"], job["state"]) == (1, "queued")
    looked = job.project.stack.ittybit_api.add("GET", TASKS, times=1, hang=0)
    outcome(worker.tell(job.send()), 202, "started")
    assert looked.seen == 1
    assert len(job.starts) == 1


def test_a_start_in_doubt_that_happened_is_adopted(worker: Function, job: Job, start: str) -> None:
    job.project.stack.ittybit_api.add("POST", start, drop="after")
    outcome(worker.tell(job.send()), 200, "retry")
    assert (job["state"], job["ittybit_id"]) == ("queued", None)
    assert job["doubt_since"]
    body = outcome(worker.tell(job.send()), 202, "started")
    [entry] = job.starts
    assert (job["state"], job["ittybit_id"], job["doubt_since"]) == ("started", entry.id, None)
    assert body["ittybit_id"] == entry.id


def test_a_start_in_doubt_that_did_not_happen_is_made_up_for_once(worker: Function, job: Job, start: str) -> None:
    job.project.stack.ittybit_api.add("POST", start, drop="before")
    outcome(worker.tell(job.send()), 200, "retry")
    assert job["doubt_since"]
    assert not job.starts
    outcome(worker.tell(job.send()), 202, "started")
    assert len(job.starts) == 1
    assert job["state"] == "started"


def test_while_ittybit_cannot_be_searched_a_doubt_stays_and_nothing_starts(
    worker: Function, job: Job, start: str
) -> None:
    job.project.stack.ittybit_api.add("POST", start, drop="after")
    outcome(worker.tell(job.send()), 200, "retry")
    since = job["doubt_since"]
    for status in (500, 401):
        job.project.stack.ittybit_api.add("GET", TASKS, status=status, headers=AT_ONCE)
        outcome(worker.tell(job.send()), 200, "retry" if status == 500 else "hold")
        assert job["doubt_since"] == since
    job.project.stack.sql("delete from ittybit.holds")
    outcome(worker.tell(job.send()), 202, "started")
    assert len(job.starts) == 1


def test_a_start_that_is_found_without_its_run_is_not_paid_for_again(project: Project) -> None:
    job = Job.of_automation(project, "found without run.mp4")
    on_upload = Function.make("on-upload", project.stack.environment)
    project.stack.ittybit_api.add("POST", RUN, drop="after")
    outcome(on_upload.tell(job.send()), 200, "retry")
    task = {"id": "task_1", "status": "processing", "url": job.starts[0].url}
    project.stack.ittybit_api.add("GET", TASKS, status=200, body={"data": [task]})
    outcome(on_upload.tell(job.send()), 200, "retry")
    assert job["doubt_since"]
    assert len(job.starts) == 1


def test_after_a_report_that_is_lost_the_next_attempt_adopts_what_was_started(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", REPORT, times=3, drop="before")
    assert worker.tell(job.send()).status_code == 503
    assert job["state"] == "queued"
    outcome(worker.tell(job.send()), 202, "started")
    assert len(job.starts) == 1
    assert job["ittybit_id"] == job.starts[0].id


def test_a_report_whose_answer_is_lost_is_made_again(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", REPORT, drop="after")
    outcome(worker.tell(job.send()), 202, "started")
    assert (job["state"], len(job.starts)) == ("started", 1)


@pytest.mark.parametrize(("status", "scope"), [(402, "all"), (401, "function:"), (403, "rule:")])
def test_what_only_a_person_can_mend_holds_the_job(
    worker: Function, job: Job, start: str, status: int, scope: str
) -> None:
    job.project.stack.ittybit_api.add("POST", start, status=status, body={"kind": "some_kind", "message": "Pay first."})
    body = outcome(worker.tell(job.send()), 200, "hold")
    assert body["error"] == {"service": "ittybit", "status": status, "kind": "some_kind", "message": "Pay first."}
    assert (job["state"], job["failures"], job["doubt_since"]) == ("queued", 0, None)
    [(held,)] = job.project.stack.sql("select scope from ittybit.holds")
    assert held.startswith(scope)


def test_what_can_never_work_fails_with_ittybit_s_words(worker: Function, job: Job, start: str) -> None:
    body = {"kind": "format_unsupported", "message": "Not this one."}
    job.project.stack.ittybit_api.add("POST", start, status=400, body=body)
    outcome(worker.tell(job.send()), 200, "failed")
    assert (job["state"], job["due_at"]) == ("failed", None)
    assert job["error"] == {"service": "ittybit", "status": 400, **body}


def test_what_may_pass_is_tried_again_not_before_it_was_asked_to(worker: Function, job: Job, start: str) -> None:
    job.project.stack.ittybit_api.add("POST", start, times=9, status=503, headers={"Retry-After": "600"})
    outcome(worker.tell(job.send()), 200, "retry")
    assert (job["state"], job["failures"], job["doubt_since"]) == ("queued", 1, None)
    [(soon,)] = job.project.stack.sql("select due_at < now() + interval '590 s' from ittybit.jobs")
    assert not soon


def test_an_object_deleted_before_it_is_claimed_is_skipped(worker: Function, job: Job) -> None:
    job.project.remove("private", job.name)
    assert outcome(worker.tell(job.send()), 200, "nothing to do")["reason"] == "skipped"
    assert (job["state"], job["reason"], job.starts) == ("skipped", "gone", [])


def test_an_object_deleted_after_it_is_claimed_is_skipped(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", SIGN, status=200, body={"0": 1})  # not the answer that was asked for
    outcome(worker.tell(job.send()), 200, "retry")
    missing = {"statusCode": "404", "error": "not_found", "message": "Object not found"}
    job.project.stack.supabase.add("POST", SIGN, status=400, body=missing)
    assert outcome(worker.tell(job.send()), 200, "skipped")["reason"] == "gone"
    assert (job["state"], job["reason"], job.starts) == ("skipped", "gone", [])


def test_storage_that_does_not_sign_is_tried_again_without_a_start(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", SIGN, status=500, headers=AT_ONCE)
    body = outcome(worker.tell(job.send()), 200, "retry")
    assert body["error"]["service"] == "storage"
    assert (job["state"], job["doubt_since"], job.starts) == ("queued", None, [])


def test_a_job_of_the_other_function_is_not_lost(project: Project) -> None:
    job = Job.of_task(project, "addresses mixed up.mp4")
    body = outcome(Function.make("on-upload", project.stack.environment).tell(job.send()), 200, "retry")
    assert "addresses mixed up" in body["error"]["message"]
    outcome(Function.make("push-back", project.stack.environment).tell(job.send()), 202, "started")


def test_without_the_ledger_s_functions_the_answer_says_what_to_do(worker: Function, job: Job) -> None:
    job.project.stack.supabase.add("POST", CLAIM, status=404, body={"code": "PGRST202", "message": "Could not find it"})
    answer = worker.tell(job.send())
    assert answer.status_code >= 400
    assert "apply the migrations" in answer.get_json()["detail"]


def test_an_ittybit_that_hangs_leaves_time_to_report(project: Project) -> None:
    job = Job.of_automation(project, "hangs.mp4")
    project.stack.ittybit_api.add("POST", RUN, hang=30)
    began = time.monotonic()
    outcome(Function.make("on-upload", project.stack.environment).tell(job.send()), 200, "retry")
    assert time.monotonic() - began < 8
    assert job["doubt_since"]
    assert job["failures"] == 1


@pytest.mark.parametrize("moment", ["2026-01-01T00:00:00", "soon"])
def test_a_claim_without_a_moment_that_can_be_compared_is_no_answer(
    worker: Function, job: Job, project: Project, moment: str
) -> None:
    claim = {
        "claimed": True, "step": "start", "mark": job.mark, "look_since": moment, "now": moment, "bucket": "private",
        "name": job.name, "public": False, "automation_id": None, "task": None,
    }  # fmt: skip
    project.stack.supabase.add("POST", ".*/ittybit_claim", status=200, body=claim)
    answer = worker.tell(job.send())
    assert (answer.status_code, answer.get_json()["upstream"]["service"]) == (503, "ledger")


def test_half_a_character_and_a_nul_in_what_ittybit_says_do_not_keep_the_report_from_the_ledger(
    worker: Function, job: Job, start: str, project: Project
) -> None:
    said = {"kind": "cut\ud83d", "message": "a\0b \ud83d"}
    project.stack.ittybit_api.add("POST", start, status=400, body=said)
    outcome(worker.tell(job.send()), 200, "failed")
    assert job["state"] == "failed"
    assert (job["error"]["kind"], job["error"]["message"]) == ("cut\ufffd", "a\ufffdb \ufffd")


def test_a_run_that_failed_with_the_key_in_its_words_leaves_it_out_of_the_ledger(project: Project) -> None:
    job, function = Job.of_automation(project, "key/a.mp4"), Function.make("on-upload", project.stack.environment)
    outcome(function.tell(job.send()), 202, "started")
    key = project.stack.ittybit_key
    said = {"kind": f"kind {key}", "message": "m" * (500 - len(key) // 2) + key}
    run = {"id": job["ittybit_id"], "status": "failed", "error": said}
    project.stack.ittybit_api.add("GET", "/runs/.*", status=200, body=run)
    outcome(function.tell(job.send()), 200, "failed")
    assert job["error"]["kind"] == "kind ***"
    assert key[: len(key) // 2 - 1] not in json.dumps(job["error"])
