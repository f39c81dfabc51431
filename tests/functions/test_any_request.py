"""For any request, a function gives a documented answer, and calls no service without authentication."""

from __future__ import annotations

import json
import re
import time
from base64 import b64encode
from typing import Any

import pytest
import schemathesis
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st
from schemathesis.errors import InvalidSchema
from schemathesis.specs.openapi.checks import negative_data_rejection
from werkzeug.test import TestResponse

from tests.functions import openapi_check
from tests.functions.calling import NAMES, WAKE_UP, Function, sign
from tests.functions.scripted import MAKE, START, WATCHING, Answer, Scripted, scripted_function
from tests.inputs import ANY_TEXT, JSON, nasty, nearly, some

TASK = {"kind": "video", "destination": "s3://private/processed/a.mp4"}
ROW = {"bucket_id": "private", "name": "a.mp4", "version": "v1", "metadata": {"size": 1, "mimetype": "video/mp4"}}
ROWS = nearly(
    ROW,
    bucket_id=nasty(),
    name=nasty(),
    version=nasty(),
    metadata=nearly({"size": 1}, size=JSON, mimetype=nasty(), eTag=ANY_TEXT),
    is_delete_marker=st.booleans(),
    user_metadata=JSON,
)
WAKE_UPS = nearly(WAKE_UP, type=nasty(), more=JSON)
RUNS = nearly(
    {"bucket": "private", "name": "a.mp4", "automation_id": "auto_1"},
    bucket=nasty(),
    name=nasty(),
    automation_id=nasty(),
)
TASKS = nearly(
    {"bucket": "private", "name": "a.mp4", **TASK},
    bucket=nasty(),
    name=nasty(),
    kind=nasty(),
    options=st.dictionaries(ANY_TEXT, st.floats() | JSON, max_size=3),
    destination=nasty().map(lambda key: f"s3://private/processed/{key}") | nasty(),
)
CREDENTIALS = {"access_key_id": "id", "secret_access_key": "a-secret-of-somebody", "region": "local"}
KEYS = nearly(
    CREDENTIALS,
    access_key_id=nasty(),
    secret_access_key=nasty(),
    region=nasty(),
    is_default=st.booleans(),
)
ORDINARY = {"on-upload": WAKE_UP, "push-back": WAKE_UP, "create-connection": CREDENTIALS}
WEBHOOKS = nearly(
    {"type": "INSERT", "table": "objects", "schema": "storage", "record": ROW, "old_record": None},
    type=st.sampled_from(["UPDATE", "DELETE"]),
    record=ROWS,
    old_record=ROWS,
)
# As Python's json module writes them: with infinities and lone surrogates.
WRITTEN = {
    "on-upload": st.one_of([WAKE_UPS, RUNS, TASKS, WEBHOOKS]).map(json.dumps),
    "push-back": st.one_of([WAKE_UPS, TASKS, TASKS]).map(json.dumps),
    "create-connection": KEYS.map(json.dumps),
}
INFINITE = json.dumps({"bucket": "private", "name": "a", "options": {"a": [float("nan")]}, **TASK}).encode()
RAW = st.binary(max_size=100) | st.builds(str.encode, JSON.map(json.dumps), st.sampled_from(["utf-8", "utf-16"]))
REQUESTS = st.one_of(
    [st.tuples(st.just(name), written.map(str.encode)) for name, written in WRITTEN.items()]
    + [
        st.tuples(st.just(name), RAW | written.map(lambda text: text.encode("utf-16")))
        for name, written in WRITTEN.items()
    ]
)
VALUES = st.text(st.characters(codec="latin-1", min_codepoint=32, exclude_characters="\x7f"), max_size=60)
CODES = st.binary(min_size=31, max_size=33).map(lambda code: f"v1,{b64encode(code).decode()}")
NUMBERS = st.integers(-5, 10**12).map(str)
HEADERS = some(
    {
        "Authorization": VALUES | VALUES.map(lambda text: f"Bearer {text}"),
        "Content-Type": st.sampled_from(["application/json", "application/json; charset=x", "text/plain"]) | VALUES,
        "webhook-id": VALUES,
        "webhook-timestamp": NUMBERS | VALUES,
        "webhook-signature": VALUES | VALUES.map(lambda text: f"v1,{text}"),
        # Headers that the runtime or a proxy in front of it reads.
        "X-Cloud-Trace-Context": VALUES | st.just("105445aa7843bc8bf206b12000100000/1;o=1"),
        "Function-Execution-Id": VALUES,
        "X-Forwarded-For": VALUES,
        "X-Forwarded-Proto": VALUES,
        "Accept": VALUES,
        "Expect": VALUES,
        "Cookie": VALUES,
        "Range": VALUES,
    },
    at_most=3,
)
METHODS = st.just("POST") | st.sampled_from(["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
# The framework itself answers 404 to these paths, and to paths with a line break.
NOT_OURS = re.compile(r"\n|robots\.txt|favicon\.ico")
PATHS = nasty().map(lambda text: "/" + NOT_OURS.sub("", text))


def answering(scripted: Scripted, name: str) -> None:
    """Let both services answer with success."""
    work = Answer({"id": "run_1", "status": "queued", "name": "supabase-scripted"})
    signed = Answer([{"signedURL": "/object/sign/private/a.mp4?token=t"}])
    claim = Answer({"jobs": [START if name == "on-upload" else MAKE], "more": False})
    scripted.script(
        claim=[claim], storage=[signed], ittybit=[Answer([]), work] if name == "create-connection" else [work]
    )


# Statuses that concern the request itself, not how its processing went.
REFUSALS = (400, 413, 415, 422)


def assert_not_called(scripted: Scripted, function: Function) -> None:
    """Assert that no service was called. To show that this could be seen, an ordinary request does call one."""
    assert scripted.requests == []
    function.tell(ORDINARY[function.name])
    assert scripted.requests


def assert_called(scripted: Scripted, answer: TestResponse) -> None:
    """Assert that a service was called, unless the request was refused or skipped."""
    assert scripted.requests or answer.status_code in REFUSALS or answer.get_json().get("outcome") == "skipped"


@given(request=REQUESTS, method=METHODS, path=PATHS, headers=HEADERS, forged=st.none() | VALUES | CODES)
def test_an_unauthenticated_request_is_refused_and_calls_no_service(
    scripted: Scripted, request: tuple[str, bytes], method: str, path: str, headers: dict[str, str], forged: str | None
) -> None:
    name, body = request
    if forged is not None:
        now = str(int(time.time()))
        headers = {"webhook-id": "1", "webhook-timestamp": now, "webhook-signature": forged} | headers
    answering(scripted, name)
    function = scripted_function(name)
    place = {"PATH_INFO": path.encode().decode("latin-1")}
    answer = function.client.open(method=method, headers=headers, data=body, environ_overrides=place)
    assert answer.status_code == (401 if method == "POST" else 405)
    openapi_check.check(name, answer, method=method)
    assert_not_called(scripted, function)


@given(request=REQUESTS, is_signed=st.booleans(), headers=HEADERS)
@example(request=("push-back", INFINITE), is_signed=False, headers={})
def test_every_authenticated_request_gets_a_documented_response(
    scripted: Scripted, request: tuple[str, bytes], is_signed: bool, headers: dict[str, str]
) -> None:
    name, body = request
    answering(scripted, name)
    function = scripted_function(name, *WATCHING)
    secret = function.environment["FUNCTIONS_SECRET"]
    # A signature covers text: other bytes cannot have a valid one.
    text = body.decode("utf-8", "ignore").encode()
    authentication = sign(secret, text) if is_signed and text == body else function.bearer
    others = {key: value for key, value in headers.items() if key not in {"Authorization", *authentication}}
    answer = function.send(body, others | authentication)
    openapi_check.check(name, answer)
    assert answer.status_code != 401
    assert_called(scripted, answer)
    # Every body that the function sends is JSON.
    for _, _, asked in scripted.requests:
        assert not asked or json.loads(asked, parse_constant=pytest.fail)


OPERATIONS = [openapi_check.SCHEMA[f"/{name}"]["POST"] for name in NAMES]
DOCUMENTED = st.one_of([one.as_strategy() for one in OPERATIONS])
UNDOCUMENTED = st.one_of([one.as_strategy(schemathesis.GenerationMode.NEGATIVE) for one in OPERATIONS])


@st.composite
def undocumented(draw: st.DrawFn) -> schemathesis.Case[Any]:
    """A request that breaks the document."""
    try:
        return draw(UNDOCUMENTED)
    except InvalidSchema:
        # schemathesis cannot make some that break a recursive type (schemathesis/schemathesis#4440).
        reject()


def sent(case: schemathesis.Case[Any], function: Function) -> Any:
    """Send a case of schemathesis with the token, and return the function's answer."""
    transported = case.as_transport_kwargs(base_url="http://localhost")
    body = transported.get("data") or b""
    if "json" in transported:
        body = json.dumps(transported["json"]).encode()
    return function.send(body if isinstance(body, bytes) else str(body).encode(), function.bearer)


@settings(max_examples=25)
@given(case=DOCUMENTED)
def test_a_documented_request_is_understood(scripted: Scripted, case: schemathesis.Case[Any]) -> None:
    name = case.path.strip("/")
    answering(scripted, name)
    answer = sent(case, scripted_function(name, *WATCHING))
    openapi_check.check(name, answer)
    # It may still be refused for what a document cannot express: where results may go, or a missing key.
    assert answer.status_code in (200, 202, 422, 503), answer.text
    assert_called(scripted, answer)


@settings(max_examples=25)
@given(case=undocumented())
def test_an_undocumented_request_is_refused(scripted: Scripted, case: schemathesis.Case[Any]) -> None:
    name = case.path.strip("/")
    answering(scripted, name)
    function = scripted_function(name, *WATCHING)
    answer = sent(case, function)
    openapi_check.check(name, answer)
    # A request whose fault is in the headers or the query alone is accepted: the function does not read them.
    if answer.status_code in REFUSALS:
        assert_not_called(scripted, function)
    assert_called(scripted, answer)
    case.validate_response(openapi_check.response(answer), checks=[negative_data_rejection])
