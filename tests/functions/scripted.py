"""Supabase and ittybit with scripted answers. They run in this process, so that a test can try many inputs."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal
from unittest.mock import patch
from urllib.parse import unquote

import httpx
from hypothesis import strategies as st

from shared import ittybit
from tests.functions.calling import NOWHERE, Function
from tests.inputs import ANY_TEXT, JSON, NUMBERS, nasty, nearly, some

Who = Literal["claim", "report", "storage", "ittybit"]
ORIGIN = "http://scripted"
JOB = "6c2f1f6e-0d6e-4d0e-9f10-c0ffee000000"


class _Switch(httpx.BaseTransport):
    def __init__(self, scripted: httpx.BaseTransport) -> None:
        self._scripted = scripted
        self._real = httpx.HTTPTransport(trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        is_scripted = str(request.url).startswith(f"{ORIGIN}/")
        return (self._scripted if is_scripted else self._real).handle_request(request)

    def close(self) -> None:
        self._real.close()


@dataclass(frozen=True)
class Answer:
    """One answer. A body that is not bytes is sent as JSON, as Python's json module writes it."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Scripted:
    """Answers every request to ``ORIGIN`` instead of the network.

    Attributes:
        answers: the answers of each service, in order; the last one is repeated.
        requests: the service, the decoded path and the body of each request since ``script``.
    """

    def __init__(self) -> None:
        self.answers: dict[Who, list[Answer]] = {}
        self.requests: list[tuple[Who, str, bytes]] = []
        self._lock = threading.Lock()

    def transport(self) -> httpx.BaseTransport:
        """A transport for the functions: requests to ``ORIGIN`` are answered here, others go to the network."""
        return _Switch(httpx.MockTransport(self._answer))

    def script(self, **answers: list[Answer]) -> None:
        """Forget all requests, and give these answers from now on."""
        ittybit._spoken.clear()
        self.answers = {"report": [Answer([])], **answers}  # type: ignore[dict-item] # their names are Who's
        self.requests = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = unquote(request.url.raw_path.partition(b"?")[0].decode())
        who: Who = "ittybit"
        if path.startswith("/rest/v1/rpc/"):
            who = "claim" if path.endswith("claim") else "report"
        elif path.startswith("/storage/v1/"):
            who = "storage"
        with self._lock:
            self.requests.append((who, path, request.read()))
            answers = self.answers[who]
            answer = answers.pop(0)
            if not answers:
                # Without its headers: a list that always has another page would go on until the deadline.
                answers.append(replace(answer, headers={}))
        # As from the network: header by header, with a body that is read on demand.
        headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
        return httpx.Response(answer.status, headers=headers, stream=httpx.ByteStream(answer.content))


WATCHING = ("private", "auto_1")


def between(name: str, environment: Mapping[str, str] = NOWHERE, **changes: str | None) -> Function:
    """Make a function that calls scripted services. S3 keys always work, as the probe has a client of its own.

    It claims once: a script never runs out of jobs.
    """
    scripted = {"SUPABASE_URL": ORIGIN, "ITTYBIT_API_URL": ORIGIN, "ITTYBIT_API": "automations", "DRAIN_SECONDS": "0"}
    with patch("shared.s3_probe.probe", return_value=[]):
        return Function.make(name, environment, **{**scripted, **changes})


@cache
def scripted_function(
    name: str, watched: str | None = None, automation: str | None = None, api: str = "automations"
) -> Function:
    """One of the functions with scripted services; on-upload is in plain mode if it has a bucket to watch."""
    # Without a connection id, push-back asks for the connection first.
    changes = {"ITTYBIT_CONNECTION_ID": "con_1" if watched else None, "ITTYBIT_API": api}
    if name == "on-upload":
        changes |= {"WATCH_BUCKET": watched, "ITTYBIT_AUTOMATION_ID": automation}
    return between(name, NOWHERE, **changes)


ERRORS = st.sampled_from(
    [301, 302, 304, 400, 401, 402, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504, 511]
)
STATUSES = st.sampled_from([200, 201, 202, 204]) | st.just(200) | ERRORS
LATIN = st.text(st.characters(codec="latin-1", min_codepoint=32, exclude_characters="\x7f"), max_size=30)
MOMENTS = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "0001-01-01T00:00:00+00:00",
        "9999-12-31T23:59:59-23:59",
        1767225600,
        -1e11,
        2e11,
    ]
)
DATES = st.sampled_from(
    [
        "Thu, 01 Jan 2026 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Thu, 99999999999999999999 Jan 2026 00:00:00 GMT",
        "Thu, 01 Jan 2026 00:00:00 +999999999999",
        "Thu, 01 Jan 99999999999999999999 00:00:00 GMT",
    ]
)
HEADERS = some(
    {
        "Date": DATES | LATIN,
        "Retry-After": st.integers(0, 10**12).map(str) | LATIN,
        "Has-More": st.sampled_from(["true", "TRUE", "false"]) | LATIN,
        "Content-Encoding": st.sampled_from(["identity", "gzip", "deflate"]),
        "Location": st.sampled_from(["http://127.0.0.1:9/elsewhere", "/loop", "//", "http://[", ""]) | LATIN,
    },
    at_most=2,
)

URLS = nasty() | st.just(f"https://a/b?token=x&job={JOB}.1")
FAULTS = nearly({}, kind=ANY_TEXT, code=ANY_TEXT, message=ANY_TEXT, error=ANY_TEXT, statusCode=st.just("404"))
WORK = nearly(
    {"id": "run_1", "status": "queued"},
    id=nasty(),
    status=st.sampled_from(["processing", "succeeded", "failed", "ready", "error"]),
    progress=NUMBERS,
    run_id=st.just("run_1"),
    url=URLS,
    input=URLS,
    inputs=st.lists(URLS, max_size=2),
    output=URLS,
    outputs=st.lists(URLS | st.fixed_dictionaries({"url": URLS}), max_size=3),
    options=st.fixed_dictionaries({"url": URLS}),
    error=FAULTS | ANY_TEXT,
    tasks=st.lists(nearly({"id": "task_1", "status": "failed"}, error=FAULTS), max_size=3),
    created_at=MOMENTS,
    # Fields of a connection.
    name=st.just("supabase-scripted"),
    is_default=st.booleans(),
    secret_access_key=st.just("key"),
)
ENVELOPED = WORK | st.fixed_dictionaries({"data": WORK}) | st.lists(WORK, max_size=3)
SIGNED = st.just([{"signedURL": "/object/sign/private/a?token=t"}]) | st.just([{"error": "not found"}])
START = {
    "job": JOB,
    "generation": 1,
    "attempt": 1,
    "step": "start",
    "mark": f"{JOB}.1",
    "bucket": "private",
    "name": "a.mp4",
    "public": True,
    "action": {"automation_id": "auto_1"},
}
SEARCH = {
    "job": JOB,
    "generation": 1,
    "attempt": 2,
    "step": "search",
    "mark": f"{JOB}.1",
    "action": {"automation_id": "auto_1"},
    "since": "2026-01-01T00:00:00+00:00",
    "now": "2026-01-01T00:01:00+00:00",
    "searched": {},
}
MAKE = START | {"action": {"task": {"kind": "video", "options": {}, "destination": "s3://private/processed/a"}}}
_TASK = nearly({"kind": "video", "destination": "s3://a/b"}, kind=ANY_TEXT, options=JSON, destination=nasty())
LEASES = st.one_of(
    [
        nearly(
            kind,
            job=st.uuids().map(str),
            attempt=st.integers(),
            since=MOMENTS,
            now=MOMENTS,
            searched=st.fixed_dictionaries({"down_to": ANY_TEXT, "oldest": MOMENTS}),
            mark=nasty(),
            bucket=nasty(),
            name=nasty(),
            action=st.fixed_dictionaries({"automation_id": nasty()}) | st.fixed_dictionaries({"task": _TASK}),
            ittybit_id=nasty(),
        )
        for kind in (
            START,
            START | {"public": False},
            SEARCH,
            MAKE,
            {"job": JOB, "generation": 1, "attempt": 1, "step": "check", "ittybit_id": "runs/run_1"},
        )
    ]
)
CLAIMS = st.builds(lambda jobs: {"jobs": jobs, "more": False, "reports": []}, st.lists(LEASES, max_size=3))


def answers_with(bodies: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Answer]]:
    """One to three answers, many of them with one of these bodies."""
    body = bodies | bodies | JSON | FAULTS | st.binary(max_size=20)
    return st.lists(st.builds(Answer, body, STATUSES, HEADERS), min_size=1, max_size=3)
