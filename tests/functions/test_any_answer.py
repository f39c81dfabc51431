"""For any answer of Supabase and ittybit, functions answer as documented and clients raise only our own errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from local.server import Server
from shared import objects
from shared.errors import Error, ServiceError, Unsupported
from shared.http import Deadline
from shared.ittybit import Ittybit
from shared.ittybit_models import Action, Searched, Task
from shared.settings import load
from tests.functions import openapi_check
from tests.functions.calling import NAMES, NOWHERE, WAKE_UP, Function
from tests.functions.ittybit_alone import RUN, client
from tests.functions.project import Job, Project
from tests.functions.scripted import (
    CLAIMS,
    ENVELOPED,
    ORIGIN,
    SIGNED,
    WORK,
    Answer,
    Scripted,
    answers_with,
    between,
    scripted_function,
)

APIS = st.sampled_from(["auto", "automations", "jobs"])
KEYS = {"access_key_id": "key-id", "secret_access_key": "key", "region": "local"}
REQUESTS: dict[str, list[Any]] = {
    "on-upload": [WAKE_UP, {"bucket": "private", "name": "a.mp4", "automation_id": "auto_1"}],
    "push-back": [
        WAKE_UP,
        {"bucket": "private", "name": "a.mp4", "kind": "video", "destination": "s3://private/processed/a.mp4"},
    ],
    "create-connection": [KEYS],
}


@pytest.fixture
def s3() -> Iterator[tuple[str, list[Answer], list[str]]]:
    """The address of an S3, its answers in order, of which the last is repeated, and the paths of its requests."""
    answers: list[Answer] = []
    asked: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        headers = [(name, value) for name, value in said.headers.items() if name != "Retry-After"]
        start_response(f"{said.status} Answer", [*headers, ("Content-Length", str(len(said.content)))])
        return [said.content]

    with Server(app) as server:
        yield server.origin, answers, asked


@given(
    request=st.sampled_from([(name, body) for name in NAMES for body in REQUESTS[name]]),
    claim=answers_with(CLAIMS),
    storage=answers_with(SIGNED),
    ittybit=answers_with(ENVELOPED),
    report=answers_with(st.just([])),
    api=APIS,
)
def test_every_answer_of_a_service_leads_to_a_documented_response(
    scripted: Scripted,
    request: tuple[str, Any],
    claim: list[Answer],
    storage: list[Answer],
    ittybit: list[Answer],
    report: list[Answer],
    api: str,
) -> None:
    scripted.script(claim=claim, storage=storage, ittybit=ittybit, report=report)
    name, body = request
    openapi_check.check(name, scripted_function(name, api=api).tell(body))
    assert scripted.requests


@given(answer=answers_with(st.sampled_from([b"<ListBucketResult/>", b"<Error><Code>AccessDenied</Code></Error>"])))
@settings(max_examples=20)
def test_every_answer_of_s3_leads_to_a_documented_response(
    scripted: Scripted, s3: tuple[str, list[Answer], list[str]], answer: list[Answer]
) -> None:
    scripted.script(ittybit=[Answer([]), Answer({"id": "con_1"})])
    origin, answers, asked = s3
    answers[:] = answer
    asked.clear()
    function = Function.make(
        "create-connection", NOWHERE, SUPABASE_URL=ORIGIN, ITTYBIT_API_URL=ORIGIN, SUPABASE_S3_ENDPOINT=origin
    )
    openapi_check.check("create-connection", function.ask(KEYS | {"buckets": ["private"]}))
    assert asked


TASK = Action(task=Task(kind="video", destination="s3://private/processed/a.mp4"))
READINGS: list[Callable[[Ittybit], object]] = [
    lambda client: client.work("runs/run_1"),
    lambda client: client.work("tasks/task_1"),
    lambda client: client.work("jobs/job_1"),
    lambda client: client.speaks("jobs"),
    lambda client: client.connections(),
    lambda client: client.connection_id,
    lambda client: client.start(RUN, "https://a/b", "a.1"),
    lambda client: client.start(TASK, "https://a/b", "a.1"),
    lambda client: client.find(RUN, "a.1", datetime.now(UTC), datetime.now(UTC), Searched()),
    lambda client: client.update_connection("con_1", {}),
]


@given(read=st.sampled_from(READINGS), ittybit=answers_with(ENVELOPED), api=APIS)
@example(read=READINGS[6], ittybit=[Answer({"id": "run_1"})], api="jobs")
def test_the_ittybit_client_raises_only_service_errors(
    scripted: Scripted, read: Callable[[Ittybit], object], ittybit: list[Answer], api: str
) -> None:
    scripted.script(ittybit=ittybit)
    try:
        read(client(ORIGIN, seconds=5, ITTYBIT_API=api))
    except Unsupported:
        return  # raised before any request
    except ServiceError:
        pass
    assert scripted.requests


@given(storage=answers_with(SIGNED))
def test_a_signed_address_always_points_to_the_requested_object(scripted: Scripted, storage: list[Answer]) -> None:
    scripted.script(storage=storage)
    settings = load(NOWHERE | {"SUPABASE_URL": ORIGIN})
    with suppress(Error):
        address = objects.signed_address(settings, "private", "a/b.mp4", "a.1", Deadline(5))
        assert address.startswith(f"{ORIGIN}/storage/v1/object/sign/private/a/b.mp4?token=")
    assert scripted.requests


@pytest.fixture
def on_upload_scripted(project: Project) -> Function:
    """on-upload with the real ledger and a scripted ittybit; there is one rule, and one object that it matches."""
    Job.of_automation(project, "any/answer.mp4", bucket="open")
    supabase = project.stack.supabase_url
    return between("on-upload", project.stack.environment, SUPABASE_URL=supabase)


@settings(max_examples=20)
@given(step=st.sampled_from(["start", "check"]), work=WORK, status=st.sampled_from([200, 202, 400, 402]))
@example(step="check", work={"id": "run_1", "status": "failed", "error": {"message": "a\0\ud83d"}}, status=200)
@example(step="check", work={"id": "run_1", "status": "queued", "progress": 1e300}, status=200)
def test_every_answer_of_ittybit_about_a_job_is_recorded_in_the_ledger(
    project: Project, on_upload_scripted: Function, scripted: Scripted, step: str, work: dict[str, Any], status: int
) -> None:
    project.stack.sql("truncate ittybit.jobs, ittybit.holds, ittybit.starts")  # no ceiling is reached
    [(one,)] = project.stack.sql(
        "insert into ittybit.jobs (rule, bucket_id, name, version, action, function, due_at)"
        " select r.name, o.bucket_id, o.name, o.version, jsonb_build_object('automation_id', r.automation_id),"
        " r.function, now()"
        " from ittybit.rules as r cross join storage.objects as o where o.name = 'any/answer.mp4' returning id"
    )
    job = Job(project, str(one), "any/answer.mp4")
    scripted.script(ittybit=[Answer({"id": "run_1", "status": "queued"})])
    if step == "check":
        assert on_upload_scripted.drain() == {"claimed": 1, "started": 1}
        job.now()
    scripted.script(ittybit=[Answer(work, status)])
    counts = on_upload_scripted.drain()
    assert scripted.requests
    [outcome] = counts.keys() - {"claimed"}
    assert outcome in ("started", "succeeded", "failed", "retry", "hold")
    assert (counts["claimed"], job["claimed_at"]) == (1, None)
