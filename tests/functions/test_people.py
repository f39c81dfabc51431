from __future__ import annotations

import json
from typing import Any

import pytest

from local.ittybit_server import Entry
from tests.functions.calling import Function, outcome
from tests.functions.project import Project

pytestmark = pytest.mark.generations("automations", "jobs")

RUN = r"/automations/[^/]+/run|/jobs"


def a_run(project: Project, name: str, **changes: Any) -> dict[str, Any]:
    """A request for on-upload: an automation, or a task where ittybit has no automations."""
    action = {"kind": "video"} if project.speaks_jobs else {"automation_id": project.automation}
    return {"bucket": "private", "name": name, **action} | changes


def body_of_a_start(project: Project, entry: Entry, made: str = "task") -> dict[str, Any]:
    """The body of the answer to a start."""
    if project.speaks_jobs:
        return {"outcome": "started", "job": {"id": entry.id, "status": "queued"}}
    return {"outcome": "started", made: {"id": entry.id, "status": "waiting"}}


def a_task(name: str, **changes: Any) -> dict[str, Any]:
    destination = f"s3://private/processed/{name}"
    return {"bucket": "private", "name": name, "kind": "video", "destination": destination} | changes


def test_on_upload_starts_work_for_one_object_at_once(project: Project, on_upload: Function) -> None:
    project.upload("private", "people/run me.mp4")
    answer = on_upload.ask(a_run(project, "people/run me.mp4"))
    body = outcome(answer, 202, "started")
    [entry] = project.starts("people/run me.mp4")
    assert body == body_of_a_start(project, entry, "run")
    assert entry.automation_id == (project.automation or None)
    call = answer.headers["X-Correlation-Id"]
    assert entry.idempotency_key == call
    assert entry.url
    assert entry.url.endswith(f"&job={call}")


def test_push_back_starts_a_task_for_one_object_at_once(project: Project, push_back: Function) -> None:
    project.upload("private", "people/make me.mp4")
    body = outcome(push_back.ask(a_task("people/make me.mp4", options={"height": 240})), 202, "started")
    [entry] = project.starts("people/make me.mp4")
    assert body == body_of_a_start(project, entry)
    assert (entry.connection_id, entry.destination) == (
        project.connection,
        "s3://private/processed/people/make me.mp4",
    )
    made = project.ittybit("GET", f"{'jobs' if project.speaks_jobs else 'tasks'}/{entry.id}")
    assert {**made["options"], "connection_id": None} == {"height": 240, "connection_id": None}


def test_the_result_of_an_on_upload_task_stays_at_ittybit(project: Project, on_upload: Function) -> None:
    project.upload("private", "people/keep me.mp4")
    asked = {"bucket": "private", "name": "people/keep me.mp4", "kind": "video", "options": {"height": 240}}
    body = outcome(on_upload.ask(asked), 202, "started")
    [entry] = project.starts("people/keep me.mp4")
    assert body == body_of_a_start(project, entry)
    assert (entry.connection_id, entry.destination) == (None, None)
    refused = on_upload.ask(asked | {"destination": "s3://private/processed/keep me.mp4"})
    assert [error["field"] for error in refused.get_json()["errors"]] == ["destination"]


def a_workflow(name: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"bucket": "private", "name": name, "tasks": list(tasks)}


def an_upload(key: str, **options: str) -> dict[str, Any]:
    return {"kind": "upload", "options": {"url": f"s3://private/processed/{key}", **options}}


def test_one_encode_and_its_upload_are_a_run_or_a_job(project: Project, push_back: Function) -> None:
    name = "people/workflow.mp4"
    project.upload("private", name)
    encode = {"kind": "video", "options": {"height": 240}, "next": [an_upload(name)]}
    body = outcome(push_back.ask(a_workflow(name, encode)), 202, "started")
    [entry] = project.starts(name)
    assert body == body_of_a_start(project, entry, "run")
    assert (entry.connection_id, entry.destination) == (project.connection, f"s3://private/processed/{name}")
    assert entry.metadata == {"bucket": "private", "name": name, "job": entry.idempotency_key}
    project.wait_for_ittybit()
    result = f"{project.stack.supabase_url}/storage/v1/object/private/processed/{name}"
    assert project.http.get(result, headers=project.key).is_success


def test_a_run_writes_several_results_and_a_job_cannot(project: Project, push_back: Function) -> None:
    name = "people/several.mp4"
    project.upload("private", name)
    ask = a_workflow(
        name,
        {
            "kind": "video",
            "next": [an_upload("several/a.mp4"), {"kind": "image", "next": [an_upload("several/b.jpeg")]}],
        },
        an_upload("several/c.mp4"),
    )
    answer = push_back.ask(ask)
    if project.speaks_jobs:
        assert answer.status_code == 422
        assert "a job of this ittybit is one task and one upload" in answer.get_json()["detail"]
        assert project.starts(name) == []
        return
    run = outcome(answer, 202, "started")["run"]["id"]
    tasks = project.ittybit("GET", f"tasks?run_id={run}&order=asc")
    assert [task["kind"] for task in tasks] == ["ingest", "video", "upload", "image", "upload", "upload"]
    assert {task["options"].get("connection_id") for task in tasks if task["kind"] == "upload"} == {project.connection}


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize(
    ("tasks", "field", "reason"),
    [
        ([], "tasks", "at least 1"),
        ([{"kind": "video", "next": [{"kind": "upload", "options": {}}]}], "tasks.0.next.0.options.url", "required"),
        ([{"kind": "upload", "options": {"url": "https://a/b"}}], "tasks.0.options.url", "s3://bucket/key"),
        (
            [{"kind": "upload", "options": {"url": "s3://open/processed/a"}}],
            "tasks.0.options.url",
            "DESTINATION_BUCKETS",
        ),
        ([{"kind": "upload", "options": {"url": "s3://private/a"}}], "tasks.0.options.url", "OUTPUT_PREFIXES"),
        ([an_upload("source.mp4")], "tasks.0.options.url", "object itself"),
        ([an_upload("a"), {"kind": "video", "next": [an_upload("a")]}], "tasks.1.next.0.options.url", "another upload"),
        ([{"kind": "video", "more": 1}], "tasks.0.more", "not permitted"),
        ([an_upload("a", connection_id="con_1")], "tasks.0.options.connection_id", "not permitted"),
        ([{"kind": "ingest", "options": {"url": "https://a/b"}}], "tasks.0.options", "name no other"),
        ([{"kind": "video"}] * 65, "tasks", "at most 64 steps"),
        ([{"kind": "video", "next": [{"kind": "image"}] * 64}], "tasks", "at most 64 steps"),
    ],
)
def test_an_invalid_workflow_is_refused_with_its_field(
    push_back: Function, tasks: list[dict[str, Any]], field: str, reason: str
) -> None:
    answer = push_back.ask(a_workflow("processed/source.mp4", *tasks))
    assert answer.status_code == 422
    [fault] = answer.get_json()["errors"]
    assert fault["field"] == field
    assert reason in fault["message"]


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize("depth", [65, 150, 1500])
def test_a_workflow_that_is_nested_too_deep_is_refused(push_back: Function, depth: int) -> None:
    steps = '{"kind":"video","next":[' * depth + "]}" * depth
    body = f'{{"bucket":"private","name":"a.mp4","tasks":[{steps}]}}'
    assert push_back.send(body.encode(), push_back.bearer).status_code in (400, 422)


def test_the_same_request_twice_starts_twice(project: Project, on_upload: Function) -> None:
    project.upload("private", "people/twice.mp4")
    for _ in range(2):
        outcome(on_upload.ask(a_run(project, "people/twice.mp4")), 202, "started")
    first, second = project.starts("people/twice.mp4")
    assert first.idempotency_key != second.idempotency_key


def test_a_request_for_a_missing_object_is_skipped(project: Project, on_upload: Function, push_back: Function) -> None:
    for answer in (on_upload.ask(a_run(project, "people/gone.mp4")), push_back.ask(a_task("people/gone.mp4"))):
        body = outcome(answer, 200, "skipped")
        assert body["reason"] == "gone"
        assert "people/gone.mp4" in body["detail"]
    assert project.starts("people/gone.mp4") == []


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("s3://open/processed/a.mp4", "DESTINATION_BUCKETS"),
        ("s3://private/a.mp4", "OUTPUT_PREFIXES"),
        ("s3://private/processedx/a.mp4", "OUTPUT_PREFIXES"),
        ("s3://private/processed", "OUTPUT_PREFIXES"),
        ("s3://private/processed/../a.mp4", "part"),
        ("s3://private/processed/..", "part"),
        ("s3://private/processed//a.mp4", "slash"),
        ("s3://private//processed/a.mp4", "slash"),
        ("https://private/processed/a.mp4", "s3://bucket/key"),
        ("s3://my videos/processed/a.mp4", "cannot name bucket 'my videos' in S3"),
        ("s3://o'brien/processed/a.mp4", "cannot name bucket"),
        ("s3://private/processed/source.mp4", "object itself"),
    ],
)
def test_a_destination_that_is_not_allowed_is_refused(push_back: Function, destination: str, reason: str) -> None:
    answer = push_back.ask(a_task("processed/source.mp4", destination=destination))
    assert answer.status_code == 422
    [fault] = answer.get_json()["errors"]
    assert fault["field"] == "destination"
    assert reason in fault["message"]


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize("field", ["url", "connection_id", "input_connection_id", "output_connection_id"])
def test_options_with_another_source_or_connection_are_refused(
    on_upload: Function, push_back: Function, field: str
) -> None:
    ask = a_task("a.mp4", options={field: "s3://open/a.mp4"})
    without_destination = {name: value for name, value in ask.items() if name != "destination"}
    for answer in (push_back.ask(ask), on_upload.ask(without_destination)):
        assert answer.status_code == 422
        assert [fault["field"] for fault in answer.get_json()["errors"]] == ["options"]


def test_a_result_may_go_where_the_environment_allows(project: Project) -> None:
    project.upload("private", "people/elsewhere.mp4")
    changes = {"DESTINATION_BUCKETS": "results,open", "OUTPUT_PREFIXES": "web/, small/"}
    push_back = Function.make("push-back", project.stack.environment, **changes)
    for place, status in (("open/web", 202), ("private/small", 202), ("open/processed", 422), ("other/web", 422)):
        answer = push_back.ask(a_task("people/elsewhere.mp4", destination=f"s3://{place}/elsewhere.mp4"))
        assert answer.status_code == status
    assert len(project.starts("people/elsewhere.mp4")) == 2


@pytest.mark.parametrize("status", [400, 404])
def test_a_refusal_by_ittybit_has_its_kind_and_a_remedy(project: Project, on_upload: Function, status: int) -> None:
    project.upload("private", "people/refused.mp4")
    body = {"kind": "some_kind", "message": "Not this one."}
    project.stack.ittybit_api.add("POST", RUN, status=status, body=body)
    answer = on_upload.ask(a_run(project, "people/refused.mp4"))
    fault = answer.get_json()
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert fault["upstream"] == {"service": "ittybit", "status": status, **body}
    said, _, remedy = fault["detail"].partition("Not this one. ")
    assert said == "ittybit: "
    assert len(remedy) > 20


def test_an_unknown_automation_is_reported(project: Project, on_upload: Function) -> None:
    project.upload("private", "people/no automation.mp4")
    answer = on_upload.ask({"bucket": "private", "name": "people/no automation.mp4", "automation_id": "auto_none"})
    assert answer.status_code == 422
    if project.speaks_jobs:
        assert "this ittybit has no automations; write a task" in answer.get_json()["detail"]
    else:
        assert answer.get_json()["upstream"]["kind"] == "automation_not_found"
    assert project.starts("people/no automation.mp4") == []


@pytest.mark.parametrize(("status", "wait"), [(402, "300"), (401, "300"), (503, "60"), (500, "60")])
def test_a_temporary_failure_is_503_with_the_time_to_wait(
    project: Project, on_upload: Function, status: int, wait: str
) -> None:
    project.upload("private", "people/later.mp4")
    headers = {"Retry-After": "60"} if status >= 500 else {}
    project.stack.ittybit_api.add("POST", RUN, status=status, headers=headers)
    answer = on_upload.ask(a_run(project, "people/later.mp4"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, wait)


def test_without_a_connection_the_answer_says_how_to_make_one(project: Project, push_back: Function) -> None:
    project.upload("private", "people/too early.mp4")
    project.stack.ittybit_api.add("GET", "/connections", status=200, body={"data": []})
    answer = push_back.ask(a_task("people/too early.mp4"))
    assert answer.status_code == 503
    assert "call create-connection" in answer.get_json()["detail"]
    assert project.starts("people/too early.mp4") == []


def test_a_connection_of_the_environment_is_used_without_asking_ittybit(project: Project) -> None:
    project.upload("private", "people/named.mp4")
    looked = project.stack.ittybit_api.add("GET", "/connections", times=9, status=500)
    push_back = Function.make("push-back", project.stack.environment, ITTYBIT_CONNECTION_ID=project.connection)
    outcome(push_back.ask(a_task("people/named.mp4")), 202, "started")
    assert looked.seen == 0
    assert project.starts("people/named.mp4")[0].connection_id == project.connection


def test_a_key_with_every_special_character_reaches_ittybit_unchanged(project: Project, on_upload: Function) -> None:
    name = "people/a!*'() &$@=;:+,?-b.mp4"
    project.upload("private", name, b"the very object")
    outcome(on_upload.ask(a_run(project, name)), 202, "started")
    [entry] = project.starts(name)
    assert entry.url
    assert project.http.get(entry.url).content == b"the very object"


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_options_that_are_not_json_are_refused(push_back: Function, number: str) -> None:
    body = json.dumps(a_task("a.mp4", options={"deep": ["here"]})).replace('"here"', number)
    answer = push_back.send(body.encode(), push_back.bearer)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == ["options"]
