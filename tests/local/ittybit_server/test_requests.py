"""Refused requests and their errors; connections and automations as resources."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.local.ittybit_server.stack import SECRET, Stack

URL = "https://example.com/a.mp4"
CONNECTION = {
    "name": "supabase",
    "kind": "s3",
    "endpoint": "http://127.0.0.1:1/storage/v1/s3",
    "region": "eu-west-1",
    "access_key_id": "id",
    "secret_access_key": SECRET,
}
AUTOMATION = {"name": "small", "workflow": [{"kind": "video", "options": {"width": 160}, "next": []}]}


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert set(body) == {"kind", "message"}
    return answer.status_code, body["kind"], body["message"]


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, "token_missing"),
        ({"Authorization": "Basic abc"}, "token_missing"),
        ({"Authorization": "Bearer nö".encode()}, "token_invalid"),
        ({"Authorization": b"Bearer wrong"}, "token_invalid"),
    ],
)
def test_a_call_without_the_key_is_refused(stack: Stack, headers: dict[str, Any], kind: str) -> None:
    for path in ("/tasks", "/nowhere"):
        assert refusal(httpx.get(f"{stack.origin}{path}", headers=headers))[:2] == (401, kind)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/tasks/task_0", (404, "task_not_found")),
        ("GET", "/runs/run_0", (404, "run_not_found")),
        ("GET", "/automations/auto_0", (404, "automation_not_found")),
        ("PATCH", "/automations/auto_0", (404, "automation_not_found")),
        ("POST", "/automations/auto_0/run", (404, "automation_not_found")),
        ("GET", "/connections/con_0", (404, "connection_not_found")),
        ("PATCH", "/connections/con_0", (404, "connection_not_found")),
        ("DELETE", "/connections/con_0", (404, "connection_not_found")),
        ("GET", "/nowhere", (404, "not_found")),
        ("DELETE", "/tasks/task_0", (405, "method_not_allowed")),
    ],
)
def test_unknown_ids_and_methods_are_refused(stack: Stack, method: str, path: str, expected: tuple[int, str]) -> None:
    body = None if method in {"GET", "DELETE"} else {"url": URL}
    assert refusal(stack.http.request(method, path, json=body))[:2] == expected


@pytest.mark.parametrize(
    ("body", "kind", "about"),
    [
        ({"kind": "video"}, "url_required", "url"),
        ({"kind": "video", "url": ""}, "url_required", "url"),
        ({"kind": "video", "url": "ftp://example.com/a"}, "request_invalid", "url"),
        ({"kind": "video", "url": "http://["}, "request_invalid", "url"),
        ({"kind": "video", "url": "s3://bucket"}, "request_invalid", "url"),
        ({"url": URL}, "request_invalid", "kind is required"),
        ({"kind": "thumbnails", "url": URL}, "request_invalid", "kind"),
        ({"kind": "video", "url": URL, "options": []}, "request_invalid", "options"),
        ({"kind": "video", "url": URL, "options": {"width": "160"}}, "request_invalid", "options.width"),
        ({"kind": "video", "url": URL, "options": {"start": 2, "end": 1}}, "request_invalid", "later than"),
        ({"kind": "video", "url": URL, "options": {"format": "gif"}}, "format_unsupported", "options.format"),
        ({"kind": "image", "url": URL, "options": {"format": "mp4"}}, "format_unsupported", "options.format"),
        ({"kind": "upload", "url": URL}, "request_invalid", "options.url is required"),
        ({"kind": "video", "url": URL, "destination": "bucket/key"}, "request_invalid", "destination"),
        ({"kind": "video", "url": URL, "destination": "s3://bucket/a/"}, "request_invalid", "destination"),
    ],
)
def test_an_invalid_task_is_refused(stack: Stack, body: dict[str, Any], kind: str, about: str) -> None:
    status, found, message = refusal(stack.http.post("/tasks", json=body))
    assert (status, found) == (400, kind)
    assert about in message


def test_a_task_with_an_unknown_connection_is_refused(stack: Stack) -> None:
    body = {"kind": "video", "url": URL, "connection_id": "con_0", "destination": "s3://a/b"}
    assert refusal(stack.http.post("/tasks", json=body))[:2] == (404, "connection_not_found")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"'])
def test_a_body_that_is_not_an_object_is_refused(stack: Stack, content: bytes) -> None:
    assert refusal(stack.http.post("/tasks", content=content))[:2] == (400, "request_invalid")


@pytest.mark.parametrize(
    "body", [{}, {"tasks": []}, {"tasks": [{"kind": "video", "url": URL, "next": [{"kind": "x"}]}]}]
)
def test_an_invalid_run_is_refused(stack: Stack, body: dict[str, Any]) -> None:
    status, kind, message = refusal(stack.http.post("/runs", json=body))
    assert (status, kind) == (400, "request_invalid")
    assert "tasks" in message


def test_a_run_whose_first_task_has_no_source_is_refused(stack: Stack) -> None:
    body = {"tasks": [{"kind": "video"}]}
    assert refusal(stack.http.post("/runs", json=body))[:2] == (400, "url_required")


def test_a_connection_shows_its_secret_and_text_timestamps(stack: Stack) -> None:
    created = stack.post("/connections", CONNECTION)
    assert created["id"].startswith("con_")
    assert created["object"] == "storage_connection"
    assert {name: created[name] for name in CONNECTION} == CONNECTION
    assert created["is_default"] is False
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created["created_at"])
    assert stack.get(f"/connections/{created['id']}") == created
    assert created in stack.get("/connections")


@pytest.mark.parametrize("field", sorted(CONNECTION))
def test_a_connection_with_a_missing_or_empty_field_is_refused(stack: Stack, field: str) -> None:
    without = {name: value for name, value in CONNECTION.items() if name != field}
    for body in (without, CONNECTION | {field: ""}):
        status, kind, message = refusal(stack.http.post("/connections", json=body))
        assert (status, kind) == (400, "request_invalid")
        assert message.startswith(field)
        assert SECRET not in message


def test_names_of_connections_may_repeat_and_the_default_moves(copying: Stack) -> None:
    first = copying.post("/connections", CONNECTION | {"is_default": True})
    second = copying.post("/connections", CONNECTION)
    changed = copying.http.patch(f"/connections/{second['id']}", json={"is_default": True}).json()
    assert changed["is_default"] is True
    assert changed["secret_access_key"] == SECRET
    assert copying.get(f"/connections/{first['id']}")["is_default"] is False


def test_a_connection_is_changed_and_deleted(stack: Stack) -> None:
    path = f"/connections/{stack.post('/connections', CONNECTION)['id']}"
    assert stack.http.patch(path, json={"region": "auto"}).json()["region"] == "auto"
    assert refusal(stack.http.patch(path, json={"region": 1}))[:2] == (400, "request_invalid")
    assert stack.get(path)["region"] == "auto"
    assert stack.http.delete(path).status_code == 200
    assert stack.http.get(path).status_code == 404


def test_an_automation_is_kept_as_it_was_sent(stack: Stack) -> None:
    created = stack.post("/automations", AUTOMATION)
    assert created["id"].startswith("auto_")
    assert created["object"] == "automation"
    assert created["workflow"] == AUTOMATION["workflow"]
    assert created["status"] == "active"
    assert isinstance(created["created_at"], int)
    assert stack.get(f"/automations/{created['id']}") == created
    assert created in stack.get("/automations")


def test_an_automation_is_changed(stack: Stack) -> None:
    path = f"/automations/{stack.post('/automations', AUTOMATION)['id']}"
    assert stack.http.patch(path, json={"status": "paused"}).json()["status"] == "paused"
    bad = {"workflow": [{"kind": "video", "options": {"format": "gif"}}]}
    assert refusal(stack.http.patch(path, json=bad))[:2] == (400, "format_unsupported")


@pytest.mark.parametrize(
    ("status", "url", "kind"),
    [
        ("paused", URL, "request_invalid"),
        ("active", None, "url_required"),
    ],
)
def test_a_paused_automation_or_a_missing_url_is_refused(stack: Stack, status: str, url: str | None, kind: str) -> None:
    automation = stack.post("/automations", AUTOMATION | {"status": status})
    answer = stack.http.post(f"/automations/{automation['id']}/run", json={"url": url})
    assert refusal(answer)[:2] == (400, kind)


def test_an_error_of_the_server_itself(copying: Stack) -> None:
    copying.ittybit._records.tasks["task_0"] = None  # type: ignore[assignment] # so that rendering fails
    assert refusal(copying.http.get("/tasks/task_0"))[:2] == (500, "internal_error")


def test_refused_starts_are_not_in_the_journal(copying: Stack) -> None:
    copying.http.post("/tasks", json={"kind": "video"})
    copying.ittybit.require_payment(True)
    body = {"kind": "video", "url": URL}
    assert refusal(copying.http.post("/tasks", json=body))[:2] == (402, "payment_required")
    assert copying.ittybit.journal == []
    copying.ittybit.require_payment(False)
    copying.post("/tasks", body)
    assert len(copying.ittybit.journal) == 1
