"""Idempotency, the journal, and the JSON of started runs and tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local.ittybit_server import Ittybit, Shapes
from tests.local.ittybit_server.stack import KEY, Stack
from tests.waiting import until

WORKFLOW = [{"kind": "video"}]


def starts(stack: Stack) -> list[tuple[str, dict[str, Any]]]:
    """The three calls that start something."""
    url = stack.file("clip.mp4")
    automation = stack.post("/automations", {"name": "a", "workflow": WORKFLOW})
    return [
        ("/tasks", {"url": url, "kind": "video"}),
        ("/runs", {"tasks": [{"url": url, "kind": "video"}]}),
        (f"/automations/{automation['id']}/run", {"url": url}),
    ]


def test_the_same_key_starts_once_and_repeats_the_answer(copying: Stack) -> None:
    for path, body in starts(copying):
        headers = {"Idempotency-Key": "one"}
        first = copying.http.post(path, json=body, headers=headers)
        again = copying.http.post(path, json=body, headers=headers)
        other = copying.http.post(path, json=body, headers={"Idempotency-Key": "two"})
        assert [first.status_code, again.status_code, other.status_code] == [201, 200, 201]
        assert again.json() == first.json()
        assert other.json()["id"] != first.json()["id"]
    assert [entry.replay for entry in copying.ittybit.journal] == [False, True, False] * 3
    assert len(copying.get("/tasks")) == 6


def test_a_refused_start_leaves_its_key_free(copying: Stack) -> None:
    headers = {"Idempotency-Key": "one"}
    body = {"url": copying.file("clip.mp4"), "kind": "video"}
    copying.ittybit.require_payment(True)
    assert copying.http.post("/tasks", json=body, headers=headers).status_code == 402
    copying.ittybit.require_payment(False)
    assert copying.http.post("/tasks", json=body, headers=headers).status_code == 201


def test_keys_can_be_ignored(media: Path, tmp_path: Path) -> None:
    ittybit = Ittybit(api_key=KEY, directory=tmp_path, encode=False, honour_idempotency=False)
    with Stack(media, ittybit) as stack:
        body = {"url": stack.file("clip.mp4"), "kind": "video"}
        headers = {"Idempotency-Key": "one"}
        answers = [stack.http.post("/tasks", json=body, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert [entry.replay for entry in ittybit.journal] == [False, False]


def test_the_journal_records_what_was_started(copying: Stack) -> None:
    url = copying.file("clip.mp4")
    connection_id = copying.connect()
    automation_id = copying.post("/automations", {"name": "a", "workflow": WORKFLOW})["id"]
    body = {"url": url, "kind": "image", "connection_id": connection_id, "destination": "s3://b/k"}
    task = copying.http.post("/tasks", json=body, headers={"Idempotency-Key": "one"}).json()
    run = copying.post(f"/automations/{automation_id}/run", {"url": f"{url}?job=1"})
    first, second = copying.ittybit.journal
    assert (first.call, first.id, first.url) == ("POST /tasks", task["id"], url)
    assert (first.connection_id, first.destination) == (connection_id, "s3://b/k")
    assert (first.idempotency_key, first.automation_id) == ("one", None)
    assert (second.call, second.id) == ("POST /automations/:id/run", run["id"])
    assert (second.url, second.automation_id) == (f"{url}?job=1", automation_id)
    assert first.time <= second.time


def test_a_run_of_an_automation(copying: Stack) -> None:
    workflow = [{"kind": "video", "next": [{"kind": "image"}]}, {"kind": "audio"}]
    automation = copying.post("/automations", {"name": "a", "workflow": workflow})
    run = copying.post(f"/automations/{automation['id']}/run", {"url": copying.file("clip.mp4")})
    assert run["id"].startswith("run_")
    assert (run["object"], run["status"], run["progress"]) == ("run", "waiting", 0)
    assert run["created_by"] == automation["id"]
    assert [set(task) for task in run["tasks"]] == [{"id", "kind", "status", "progress"}] * 3
    done = copying.ended(f"/runs/{run['id']}")
    assert (done["status"], done["progress"], done["error"]) == ("succeeded", 100, None)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"] <= done["updated_at"]
    video, image, audio = (copying.get(f"/tasks/{task['id']}") for task in done["tasks"])
    assert [video["parent_id"], image["parent_id"], audio["parent_id"]] == [None, video["id"], None]
    assert image["inputs"][0]["url"] == video["outputs"][0]["url"]
    assert (video["inputs"][0]["kind"], image["inputs"][0]["kind"]) == ("url", "internal")
    assert len(copying.get("/tasks", run_id=run["id"])) == 3


def test_a_task_looks_as_in_the_overview(copying: Stack) -> None:
    url = copying.file("clip.mp4") + "?token=a&job=1"
    created = copying.post("/tasks", {"url": url, "kind": "video", "options": {"width": 160}})
    assert created["id"].startswith("task_")
    assert created["run_id"].startswith("run_")
    assert (created["status"], created["progress"], created["outputs"]) == ("waiting", 0, [])
    assert created["inputs"][0]["url"] == url
    assert created["inputs"][0]["filename"] == "clip.mp4"
    done = copying.ended(f"/tasks/{created['id']}")
    assert (done["status"], done["progress"], done["error"]) == ("succeeded", 100, None)
    assert done["options"] == {"width": 160}
    assert isinstance(done["finished_at"], int)
    assert done["outputs"][0]["filesize"] == done["inputs"][0]["filesize"]
    assert copying.get(f"/runs/{done['run_id']}")["status"] == "succeeded"


@pytest.mark.parametrize(
    "shapes",
    [Shapes(singular=True), Shapes(envelope=True), Shapes(legacy_status=True), Shapes(text_error=True)],
    ids=["singular", "envelope", "legacy_status", "text_error"],
)
def test_the_other_shapes(media: Path, tmp_path: Path, shapes: Shapes) -> None:
    ittybit = Ittybit(api_key=KEY, directory=tmp_path, encode=False, shapes=shapes)
    with Stack(media, ittybit) as stack:
        good = stack.post("/tasks", {"url": stack.file("clip.mp4"), "kind": "video"})
        bad = stack.post("/tasks", {"url": stack.file("none.mp4"), "kind": "video"})
        if shapes.envelope:
            assert set(good) == {"data"}
            assert len(stack.get("/tasks")["data"]) == 2
            assert stack.http.get("/tasks/task_0").json()["kind"] == "task_not_found"
            return
        ends = {"succeeded", "ready", "failed"}
        task, failed = (wait_for(stack, one["id"], ends) for one in (good, bad))
        assert task["status"] == ("ready" if shapes.legacy_status else "succeeded")
        assert stack.get(f"/runs/{task['run_id']}")["status"] == task["status"]
        assert [one["id"] for one in stack.get("/tasks", status=task["status"])] == [task["id"]]
        assert ("output" in task, "outputs" in task) == (shapes.singular, not shapes.singular)
        if shapes.singular:
            assert task["output"]["filename"] == task["input"]["filename"] == "clip.mp4"
            assert failed["output"] is None
        message = "The source answered 404."
        error = message if shapes.text_error else {"kind": "request_invalid", "message": message}
        assert failed["error"] == error


def wait_for(stack: Stack, task_id: str, ends: set[str]) -> Any:
    return until(lambda: (task := stack.get(f"/tasks/{task_id}"))["status"] in ends and task)
