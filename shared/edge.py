"""The HTTP edge of every function: authentication, size limit, validation, JSON answers and errors, one log line.

The checks run in this order: method, bearer token, bounded read, signature, media type, JSON, fields. The handler
runs, and calls other services, only after all have passed.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import flask
from flask.typing import ResponseReturnValue
from pydantic import TypeAdapter, ValidationError
from werkzeug.exceptions import BadRequest, HTTPException

from shared import __version__, authentication
from shared.errors import Refused, ServiceError, Skipped
from shared.http import Deadline
from shared.redaction import Redactor
from shared.settings import Settings

# An invocation answers within this: hosts grant 10 s between SIGTERM and SIGKILL.
DEADLINE_SECONDS = 8.0
MAX_BODY_BYTES = 64 * 1024
# Most clients read an answer only after they have sent their body. A refused body is read up to this size.
MAX_DISCARDED_BYTES = 16 * MAX_BODY_BYTES

Body = TypeVar("Body")
Function = Callable[[flask.Request], ResponseReturnValue]


@dataclass(frozen=True, slots=True)
class Answer:
    """A handler's answer: 200 done or nothing to do, 202 started."""

    status: int
    body: Mapping[str, Any]


@dataclass(slots=True)
class Call:
    """One invocation.

    Attributes:
        id: names it in the answer, in the log and, where a person calls, at ittybit.
        body_bytes: the size of the request's body.
        redact: removes every key from a text.
    """

    settings: Settings
    redact: Redactor
    deadline: Deadline = field(default_factory=lambda: Deadline(DEADLINE_SECONDS))
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    body_bytes: int = 0
    noted: dict[str, Any] = field(default_factory=dict)

    def quote(self, kind: str | None, message: str) -> dict[str, Any]:
        """Quote a service's error: first without keys, then cut, as a cut could leave half of a key."""
        return {"kind": kind and self.redact(kind)[:100], "message": self.redact(message)[:500]}

    def note(self, **fields: Any) -> None:
        """Add fields to the call's log line. Never a body, never a key."""
        self.noted.update(fields)


def endpoint(
    settings: Settings, takes: Any, *, max_body: int = MAX_BODY_BYTES
) -> Callable[[Callable[[Body, Call], Answer]], Function]:
    """Make an HTTP function of ``handler(body, call)``.

    The database authenticates with a signature, other callers with the bearer token. Where neither is configured, every
    call is refused.

    Args:
        settings: the environment's.
        takes: the pydantic type of the body: a model or a tagged union of several.
        max_body: bytes that a caller with the bearer token may send. A signed body is read before its signature can be
            verified, and may have 64 KiB.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(takes)
    redact = Redactor(settings.secrets)

    def decorate(handler: Callable[[Body, Call], Answer]) -> Function:
        @functools.wraps(handler)
        def function(request: flask.Request) -> ResponseReturnValue:
            call = Call(settings, redact)
            return _answered(
                handler.__name__, request, call, lambda: handler(_admit(request, call, adapter, max_body), call)
            )

        return function

    return decorate


def by_path(settings: Settings, functions: Mapping[str, Function]) -> Function:
    """Make one HTTP function of several, each at its path; any other path is answered 404."""
    redact = Redactor(settings.secrets)

    def refuse() -> Answer:
        raise Refused(404, f"No function is at this path. There are: {', '.join(functions)}.")

    def function(request: flask.Request) -> ResponseReturnValue:
        found = functions.get(request.path)
        return found(request) if found else _answered("elsewhere", request, Call(settings, redact), refuse)

    return function


def _answered(name: str, request: flask.Request, call: Call, work: Callable[[], Answer]) -> flask.Response:
    """Do the work of a call, answer with its result or its error, and write the call's log line."""
    began = time.monotonic()
    try:
        answer = work()
        response = _json(answer.status, answer.body)
        call.note(**{key: answer.body[key] for key in ("outcome", "reason") if key in answer.body})
    except Exception as error:  # noqa: BLE001 - at the edge every error becomes an answer
        response = _without_the_rest(request, _problem(error, call))
    response.headers["X-Correlation-Id"] = call.id
    if response.status_code < 400:
        response.headers["X-Version"] = __version__
    _log(name, response.status_code, call, time.monotonic() - began)
    return response


def _admit(request: flask.Request, call: Call, adapter: TypeAdapter[Any], max_body: int) -> Any:
    """Authenticate the caller and return the parsed body, or raise Refused."""
    if request.method != "POST":
        raise Refused(405, f"Send a POST, not a {request.method}.")
    bearer = authentication.has_bearer(request.headers, call.settings)
    limit = max_body if bearer else MAX_BODY_BYTES
    # One byte over the limit shows that a body is too large, with or without a Content-Length.
    try:
        raw = request.stream.read(limit + 1)
    except Exception:  # noqa: BLE001 - the server's own errors: the caller has hung up, or its chunks are malformed
        raise BadRequest from None
    if len(raw) > limit:
        raise Refused(413, f"The body is over {limit} bytes.")
    if not bearer:
        authentication.check_signature(request.headers, raw, call.settings)
    call.note(authentication="bearer" if bearer else "signature")
    if request.mimetype != "application/json":
        raise Refused(415, "Send JSON with Content-Type: application/json.")
    call.body_bytes = len(raw)
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
    if faults[0]["type"] == "json_invalid":
        raise Refused(400, "The body is not JSON.")
    fields = tuple((_path(fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in faults[:20])
    raise Refused(422, "; ".join(f"{path}: {message}" for path, message in fields), fields=fields)


def _path(location: tuple[int | str, ...]) -> str:
    """The field's path without the tags of unions, cut because a caller may send a field name of any length."""
    return ".".join(str(part) for part in location if not str(part).startswith("<"))[:100] or "body"


def _without_the_rest(request: flask.Request, response: flask.Response) -> flask.Response:
    """Read and drop the rest of a refused request's body. If it is too long, leave it unread and answer with a stream.

    After an answer that is no stream, functions-framework reads the rest into memory (``read_request``).
    """
    try:
        for _ in range(MAX_DISCARDED_BYTES // MAX_BODY_BYTES):
            if not request.stream.read(MAX_BODY_BYTES):
                return response
    except Exception:  # noqa: BLE001, S110 - the caller has hung up; the refusal is answered all the same
        pass
    content = response.get_data()
    response.content_length = len(content)
    response.response = iter([content])
    return response


def _problem(error: Exception, call: Call) -> flask.Response:
    """Answer an error as RFC 9457 says, with what to do about it."""
    match error:
        case Refused():
            call.note(reason=error.reason)
            faults = [{"field": path, "message": message} for path, message in error.fields]
            response = _details(error.status, error.detail, call, **({"errors": faults} if faults else {}))
            if error.status == 405:
                response.headers["Allow"] = "POST"
            if error.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            return response
        case Skipped():
            call.note(outcome="skipped", reason=error.reason)
            detail = {"detail": error.detail} if error.detail else {}
            return _json(200, {"outcome": "skipped", "reason": error.reason, **detail})
        case ServiceError():
            upstream = {"service": error.service, "status": error.status, **call.quote(error.kind, error.message)}
            call.note(upstream=upstream)
            status = 422 if error.effect == "fail" else 503
            response = _details(
                status, f"{error.service}: {upstream['message'].rstrip('.')}. {error.remedy}", call, upstream=upstream
            )
            if status == 503:
                response.headers["Retry-After"] = str(error.retry_after or (300 if error.effect == "hold" else 15))
            return response
        case HTTPException(code=int(code)):
            call.note(reason=error.name)
            return _details(code, "The request could not be read.", call)
        case _:
            call.note(**fault(error))
            return _details(500, "Internal error; the log has it under this id.", call)


def fault(error: Exception) -> dict[str, Any]:
    """The log's fields for an internal error: its type and place. Its message could contain a key or a body."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return {"error": type(error).__name__, "at": [f"{frame.name}:{frame.lineno}" for frame in frames]}


def _details(status: int, detail: str, call: Call, **extra: Any) -> flask.Response:
    title = HTTPStatus(status).phrase
    return _json(
        status, {"type": "about:blank", "title": title, "status": status, "detail": detail, "id": call.id, **extra}
    )


def _json(status: int, body: Mapping[str, Any]) -> flask.Response:
    mimetype = "application/problem+json" if status >= 400 else "application/json"
    return flask.Response(json.dumps(body) + "\n", status=status, mimetype=mimetype)


def _log(function: str, status: int, call: Call, seconds: float) -> None:
    """Write the call's log line: JSON, which Cloud Logging and other collectors read."""
    severity = "ERROR" if {"error", "faults"} & call.noted.keys() else "WARNING" if status >= 400 else "INFO"
    line = {
        "severity": severity,
        "message": f"{function} {status}",
        "id": call.id,
        "ms": round(seconds * 1000, 1),
        **call.redact.within({key: value for key, value in call.noted.items() if value is not None}),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
