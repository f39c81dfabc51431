from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug import Response
from werkzeug.test import TestResponse

from local.server import Server
from shared.settings import Settings
from tests.functions.calling import JSON, NAMES, NOWHERE, Function, sign
from tests.functions.project import Project

Logged = Callable[[], list[dict[str, Any]]]

LIMIT = 64 * 1024
# A body that each function accepts.
TAKEN: Mapping[str, dict[str, Any]] = {
    "on-upload": {"bucket": "private", "name": "a.mp4", "automation_id": "auto_1"},
    "push-back": {
        "bucket": "private",
        "name": "a.mp4",
        "kind": "video",
        "destination": "s3://private/processed/a.mp4",
    },
    "create-connection": {},
}


def problem(answer: TestResponse, status: int) -> dict[str, Any]:
    """The body of an error, which must be a complete problem (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    body: dict[str, Any] = json.loads(answer.text)
    assert {"type", "title", "status", "detail", "id"} <= body.keys()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["detail"]
    assert answer.headers["X-Correlation-Id"] == body["id"]
    return body


@pytest.mark.usefixtures("nobody_called")
class TestRefused:
    def test_a_method_other_than_post_gets_405_with_allow_post(self, function: Function) -> None:
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
            answer = function.client.open("/", method=method, headers=function.bearer | JSON, data=b"{}")
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST"), method
            if method != "HEAD":
                problem(answer, 405)

    def test_every_failed_authentication_gets_the_same_401(self, function: Function) -> None:
        body = json.dumps(TAKEN[function.name]).encode()
        right = sign(function.environment["FUNCTIONS_SECRET"], body)
        other = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        signature = right["webhook-signature"]
        malformed = ["", " ", ",", "v1", "v1,", "v1,!", "v1,é", "v1,AAAA", "a,b,c", "v2" + signature[2:], signature[3:]]
        lacking = [
            {},
            *({name: value for name, value in right.items() if name != left_out} for left_out in right),
            *({**right, "webhook-signature": value} for value in malformed),
            *({**right, "webhook-timestamp": value} for value in ("", "now", "nan", "inf", "1e400", "-1", "9" * 400)),
            {**right, "webhook-id": ""},
            {**right, "webhook-id": "msg_2"},
            sign(function.environment["FUNCTIONS_SECRET"], body, at=time.time() - 301),
            sign(function.environment["FUNCTIONS_SECRET"], body, at=time.time() + 310),
            sign(function.environment["FUNCTIONS_SECRET"], body + b" "),
            sign(other, body),
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer"},
            {"Authorization": ""},
            {"Authorization": "Basic " + function.environment["FUNCTIONS_TOKEN"]},
            {"Authorization": function.environment["FUNCTIONS_TOKEN"]},
            {"Authorization": "Bearer " + function.environment["FUNCTIONS_SECRET"]},
            {"Authorization": "Bearer é" + function.environment["FUNCTIONS_TOKEN"]},
            # With a bearer token in the request, only that counts.
            {**right, "Authorization": "Bearer wrong"},
        ]
        answers = [function.send(body, headers) for headers in lacking]
        bodies = [problem(answer, 401) for answer in answers]
        assert len({body["id"] for body in bodies}) == len(lacking)
        assert len({json.dumps(body | {"id": ""}) for body in bodies}) == 1
        assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}

    def test_without_a_secret_and_a_token_every_call_is_refused(self, function: Function) -> None:
        closed = Function.make(function.name, function.environment, FUNCTIONS_SECRET=None, FUNCTIONS_TOKEN=None)
        body = json.dumps(TAKEN[function.name]).encode()
        for headers in ({}, function.bearer, sign(function.environment["FUNCTIONS_SECRET"], body)):
            problem(closed.send(body, headers), 401)

    def test_a_body_over_64_kib_gets_413_with_and_without_authentication(self, function: Function) -> None:
        for size in (LIMIT + 1, 3 * 1024 * 1024, 11 * 1024 * 1024):
            body = b" " * size
            problem(function.send(body, function.bearer), 413)
            problem(function.send(body, sign(function.environment["FUNCTIONS_SECRET"], body)), 413)
            problem(function.send(body, {}), 413)

    def test_a_body_that_is_not_json_gets_400(self, function: Function) -> None:
        for body in (b"", b" ", b"{", b"{'bucket': 1}", b"\xff\xfe{}", b'"\xed\xa0\x80"', b"[" * 60000):
            problem(function.send(body, function.bearer), 400)

    def test_another_content_type_gets_415(self, function: Function) -> None:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "", "é"):
            answer = function.send(b"{}", function.bearer | {"Content-Type": content_type})
            assert "application/json" in problem(answer, 415)["detail"]

    def test_json_that_is_not_an_object_gets_422(self, function: Function) -> None:
        bodies: tuple[Any, ...] = ([], "text", 1, None, True)
        for body in bodies:
            assert problem(function.ask(body), 422)["errors"][0]["field"] == "body"

    def test_an_unknown_field_is_named_in_a_422(self, function: Function) -> None:
        answer = function.ask(TAKEN[function.name] | {"endpoint": "https://example.com"})
        fault = problem(answer, 422)
        assert [error["field"] for error in fault["errors"]] == ["endpoint"]
        assert "endpoint" in fault["detail"]

    @pytest.mark.parametrize("name", ["on-upload", "push-back"])
    def test_each_missing_field_is_named_in_a_422(self, name: str) -> None:
        fault = problem(nowhere(name).ask({}), 422)
        assert {error["field"] for error in fault["errors"]} == set(TAKEN[name])
        assert all(field in fault["detail"] for field in TAKEN[name])

    @pytest.mark.parametrize(
        ("name", "changes"),
        [
            ("on-upload", {"bucket": 1}),
            ("on-upload", {"name": ["a.mp4"]}),
            ("on-upload", {"name": "ä.mp4"}),
            ("on-upload", {"name": "../a.mp4"}),
            ("on-upload", {"bucket": "a/b"}),
            ("on-upload", {"automation_id": "a/../b"}),
            ("on-upload", {"automation_id": ""}),
            ("push-back", {"kind": "Video!"}),
            ("push-back", {"options": "height=1"}),
            ("push-back", {"destination": "https://example.com/a.mp4"}),
            ("create-connection", {"is_default": "yes"}),
            ("create-connection", {"region": "eu west"}),
            ("create-connection", {"secret_access_key": 1}),
        ],
    )
    def test_an_invalid_field_is_named_in_a_422(self, name: str, changes: dict[str, Any]) -> None:
        fault = problem(nowhere(name).ask(TAKEN[name] | changes), 422)
        assert [error["field"] for error in fault["errors"]] == list(changes)

    @pytest.mark.parametrize("name", ["on-upload", "push-back"])
    @pytest.mark.parametrize(
        "body",
        [
            {"type": "jobs"},
            {"type": None},
            {"type": ["jobs.due"]},
            {"type": "jobs.due", "job": "6c2f1f6e-0d6e-4d0e-9f10-c0ffee000000"},
            {"job": "6c2f1f6e-0d6e-4d0e-9f10-c0ffee000000", "attempt": 1},
        ],
    )
    def test_a_body_that_is_neither_a_wake_up_nor_a_request_gets_422(self, name: str, body: dict[str, Any]) -> None:
        fault = problem(nowhere(name).tell(body), 422)
        assert {"type", "job"} & {error["field"] for error in fault["errors"]}


def test_both_secrets_are_accepted_during_a_rotation(function: Function) -> None:
    new = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    old = function.environment["FUNCTIONS_SECRET"]
    turning = Function.make(function.name, function.environment, FUNCTIONS_SECRET=f"{new}, {old}")
    for secret in (old, new):
        # It is authenticated: the 422 is about the body.
        problem(turning.send(b"[]", sign(secret, b"[]")), 422)
    problem(turning.send(b"[]", sign(NOWHERE["FUNCTIONS_SECRET"], b"[]")), 401)


def test_exactly_64_kib_and_a_charset_are_accepted(function: Function) -> None:
    body = b"[]" + b" " * (LIMIT - 2)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    problem(function.send(body, sign(function.environment["FUNCTIONS_SECRET"], body) | headers), 422)


KEYS = {"access_key_id": "key-id", "secret_access_key": "key", "region": "local"}


@pytest.mark.parametrize("name", NAMES)
def test_the_message_of_an_unexpected_exception_is_in_neither_the_500_nor_the_log(
    name: str, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    def fail(_: object) -> None:
        raise LookupError("what nobody may read")

    function = nowhere(name)
    monkeypatch.setattr(Settings, "supabase_headers", property(fail))
    monkeypatch.setattr(Settings, "s3_endpoint", property(fail))
    answer = function.ask(TAKEN[name] or KEYS)
    fault = problem(answer, 500)
    [line] = logged()
    assert "nobody" not in answer.text + json.dumps(line)
    assert (line["severity"], line["error"], line["id"]) == ("ERROR", "LookupError", fault["id"])


def test_each_request_is_one_log_line_without_body_token_or_key(function: Function, logged: Logged) -> None:
    logged()
    target = function.name.replace("-", "_")
    body = {"note": "a body that is nobody's business"}
    asked = function.ask(body)
    refused = function.send(b"{}", {"Authorization": "Bearer some-wrong-token"})
    got = function.client.get("/")
    lines = logged()
    assert [line["message"] for line in lines] == [f"{target} 422", f"{target} 401", f"{target} 405"]
    assert [line["id"] for line in lines] == [answer.headers["X-Correlation-Id"] for answer in (asked, refused, got)]
    assert {line["severity"] for line in lines} == {"WARNING"}
    assert all(line["ms"] >= 0 for line in lines)
    assert (lines[0]["authentication"], lines[1]["reason"]) == ("bearer", "wrong bearer token")
    text = json.dumps(lines)
    keys = [value for name, value in function.environment.items() if name.endswith(("KEY", "SECRET", "TOKEN"))]
    assert not [value for value in [*keys, "business", "some-wrong-token"] if value in text]


def test_a_token_in_an_objects_name_is_redacted_in_the_log(project: Project, logged: Logged) -> None:
    name = f"a/{project.stack.token}.mp4"
    project.upload("private", name)
    function = Function.make("on-upload", project.stack.environment)
    function.ask({"bucket": "private", "name": name, "automation_id": project.automation})
    [line] = logged()
    assert line["name"] == "a/***.mp4"


HOSTILE = ["\n", "\r\n", "\u2028", "\u2029", "\x85", "\x1b[2J", "\0", "\x7f", '"}', '\\"', "\U0001f600"]


def test_a_request_can_neither_forge_nor_hide_a_log_line(name_: str, logged: Logged) -> None:
    function = nowhere(name_)
    for text in HOSTILE:
        forged = f'{text}{{"severity": "INFO", "message": "forged"}}'
        raw = [
            function.ask({forged: 1}),
            function.ask(TAKEN[name_] | {"name": forged, "bucket": forged, "destination": forged, "region": forged}),
            function.client.post("/?" + quote(forged), headers=function.bearer, data=forged.encode()),
            function.send(b"{}", {"Authorization": "Bearer " + quote(forged)}),
        ]
        lines = logged()
        assert [line["id"] for line in lines] == [answer.headers["X-Correlation-Id"] for answer in raw]
        assert {line["severity"] for line in lines} == {"WARNING"}


def test_every_log_line_is_shorter_than_20_000_characters(capfd: pytest.CaptureFixture[str], name_: str) -> None:
    function = nowhere(name_)
    long = "\x01" * 9000
    assert function.ask({long[:4000]: 1, **{f"{number}{long[:100]}": 1 for number in range(60)}}).status_code == 422
    function.ask(
        TAKEN[name_] | dict.fromkeys(("name", "bucket", "destination", "kind", "region", "automation_id"), long)
    )
    function.client.open("/" + "x" * 9000, method="X" * 3000)
    function.send(b"{}", {"Authorization": "Bearer " + "x" * 60000})
    uploads = [{"kind": "upload", "options": {"url": f"s3://private/processed/{number:0900}"}} for number in range(60)]
    function.ask({"bucket": "private", "name": "a", "tasks": uploads})
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) < 20_000


@pytest.fixture(params=NAMES)
def name_(request: pytest.FixtureRequest) -> str:
    """Each function's name, without the stack."""
    name: str = request.param
    return name


def test_secrets_are_compared_in_constant_time_and_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[object, object]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return compare_digest(left, right)

    compare_digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    function, body = nowhere("on-upload"), b"[]"
    signed = sign(NOWHERE["FUNCTIONS_SECRET"], body)
    wrong = signed | {"webhook-signature": "v1," + base64.b64encode(bytes(32)).decode()}
    wrongs = [{"Authorization": f"Bearer {token}"} for token in ("x", "é", NOWHERE["FUNCTIONS_TOKEN"][:-1])]
    statuses = [function.send(body, headers).status_code for headers in (*wrongs, function.bearer, wrong, signed)]
    assert statuses == [401, 401, 401, 422, 401, 422]
    # Each call was decided by the comparison, and none before it.
    assert len(compared) == len(statuses)
    assert all(isinstance(left, bytes) and isinstance(right, bytes) for left, right in compared)


@cache
def nowhere(name: str) -> Function:
    """A function without services at its addresses."""
    return Function.make(name, NOWHERE)


def test_a_key_with_quotes_is_redacted_and_the_log_line_stays_json(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.s3_probe.probe", lambda *_: [])
    key = 'ittybit"key\\of"the\\tests'
    answer = Response(json.dumps({"kind": key, "message": f'{"m" * 490}{key} token=a"b'}), status=400)
    with Server(answer) as server:
        function = Function.make("create-connection", NOWHERE, ITTYBIT_API_KEY=key, ITTYBIT_API_URL=server.origin)
        fault = problem(function.ask(KEYS), 422)
    [line] = logged()
    # No part of it either.
    assert "itty" not in json.dumps([fault["upstream"]["message"], line["upstream"]["message"]])
    assert fault["upstream"] == line["upstream"]
    assert fault["upstream"]["kind"] == "***"
