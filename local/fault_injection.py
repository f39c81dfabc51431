"""Fault injection for an HTTP stand-in: errors, hangs and dropped connections on demand.

``Faults`` is WSGI middleware between a stand-in's application and ``local.server.Server``. It works with that server
only: to drop a connection it needs the socket, which werkzeug passes in ``environ['werkzeug.socket']``.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from werkzeug.wsgi import get_input_stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass
class Fault:
    """What happens to the next requests that match; made by ``Faults.add``.

    Attributes:
        met: How many requests have matched so far, hit by the fault or not, counted as they arrive.
        seen: How many of them the fault has hit.
    """

    method: str | None
    path: re.Pattern[str]
    times: int
    at: Collection[int] | None
    status: int | None
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None
    hang: float | None
    drop: Literal["before", "after"] | None
    met: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)

    def wants(self, request: Request) -> bool:
        """Whether this request gets the fault; a request that matches is counted."""
        if self.method not in {None, request.method} or self.path.fullmatch(request.path) is None:
            return False
        self.met += 1
        return self.seen < self.times if self.at is None else self.met - 1 in self.at


@dataclass
class Request:
    """One request as it arrived; ``Faults.requests`` lists them. Times are in Unix seconds.

    Attributes:
        path: Decoded, without the query.
        query: As it was sent.
        idempotency_key: The header, or None.
        arrived: When its head was read.
        passed: When it was passed on to the application; None before that, or if it never is.
    """

    method: str
    path: str
    query: str
    idempotency_key: str | None
    arrived: float
    passed: float | None = None


class Faults:
    """A WSGI application that injects faults in front of another one; safe from any thread.

    Args:
        app: The other application.
        words: Returns the body of the other application's own error answer, by path and status.

    Attributes:
        requests: The requests in the order of their arrival; recorded once this is set to a list.
    """

    def __init__(self, app: WSGIApplication, words: Callable[[str, int], Mapping[str, Any]] | None = None) -> None:
        self._words = words
        self.requests: list[Request] | None = None
        self._app = app
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._under_way = 0
        self._faults: list[Fault] = []
        self._closed = threading.Event()

    def add(
        self,
        method: str | None,
        path: str,
        *,
        times: int = 1,
        at: Collection[int] | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        hang: float | None = None,
        drop: Literal["before", "after"] | None = None,
    ) -> Fault:
        """Add a fault for the next requests that match; if several faults match, the oldest is used up first.

        Args:
            method: The request's method, in capitals, or None for any.
            path: A regular expression for the whole decoded path, without the query.
            times: It hits so many requests: the next ones.
            at: The requests that it hits instead: their places among all that match from now on, from 0. If an older
                fault hits the same request, only the older one happens.
            status: Answer with this status instead of asking the application.
            headers: More headers of that answer, such as ``Retry-After``.
            body: That answer's JSON body. The default is the service's own error, from ``words``, or an empty body
                without ``words``. ``{}`` is an answer that is not the service's own, such as a gateway's.
            hang: Wait this many seconds first, or until ``close``, which then drops the connection. By
                itself it only makes the answer late.
            drop: Close the connection without an answer: ``before`` the application has seen the request,
                or ``after`` it has carried it out.

        Returns:
            The fault; its ``seen`` counts the requests that it has hit.

        Raises:
            ValueError: If both ``status`` and ``drop`` are given, or none of ``status``, ``hang`` and ``drop``.
        """
        if (status is not None and drop is not None) or (status is None and drop is None and hang is None):
            raise ValueError("a fault answers with a status, or drops, or only hangs")
        fault = Fault(method, re.compile(path), times, at, status, headers or {}, body, hang, drop)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Remove every fault; a request that already hangs continues to hang."""
        with self._lock:
            self._faults.clear()

    def close(self) -> None:
        """Drop every connection that hangs, now and from now on."""
        self._closed.set()

    def wait_until_idle(self, seconds: float) -> bool:
        """Return True as soon as no request is in progress that could still take effect; False when time is over."""
        with self._idle:
            return self._idle.wait_for(lambda: self._under_way == 0, seconds)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, with or without a fault."""
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),
            environ.get("QUERY_STRING", ""),
            environ.get("HTTP_IDEMPOTENCY_KEY"),
            time.time(),
        )
        fault = self._admit(request)
        try:
            return self._disturb(fault, request, environ, start_response)
        finally:
            with self._idle:
                self._under_way -= 1
                self._idle.notify_all()

    def _admit(self, request: Request) -> Fault | None:
        with self._lock:
            self._under_way += 1
            if self.requests is not None:
                self.requests.append(request)
            # Every fault that matches counts the request; the oldest one hits it.
            wanting = [fault for fault in self._faults if fault.wants(request)]
            if not wanting:
                return None
            wanting[0].seen += 1
            return wanting[0]

    def _disturb(
        self, fault: Fault | None, request: Request, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        if fault is not None:
            cut_short = fault.hang is not None and self._closed.wait(fault.hang)
            if cut_short or fault.drop == "before":
                _read_body(environ)
                _drop(environ)
            if fault.status is not None:
                body = fault.body
                if body is None and self._words is not None and fault.status >= 400:
                    body = self._words(request.path, fault.status)
                return _answer(fault.status, fault.headers, body, start_response)
        request.passed = time.time()
        if fault is not None and fault.drop == "after":
            _carry_out(self._app, environ)
            _drop(environ)
        return self._app(environ, start_response)


def _answer(
    status: int, more: Mapping[str, str], body: Mapping[str, Any] | None, start_response: StartResponse
) -> Iterable[bytes]:
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **more}
    start_response(f"{status} {_phrase(status)}", list(headers.items()))
    return [content]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # such as a proxy's own 520
        return "Unknown"


def _carry_out(app: WSGIApplication, environ: WSGIEnvironment) -> None:
    """Let the application run to the end of its answer, and throw the answer away."""
    answer = app(environ, lambda *_: lambda _: None)
    try:
        for _ in answer:
            pass
    finally:
        if hasattr(answer, "close"):
            answer.close()


def _drop(environ: WSGIEnvironment) -> None:
    """Close the connection, and raise the error that werkzeug takes for a client that has gone away."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("dropped on demand")


def _read_body(environ: WSGIEnvironment) -> None:
    """Read the request's body: if it stayed unread, closing the connection would sometimes send a reset."""
    stream = get_input_stream(environ)
    while stream.read(65536):
        pass
