"""Every request that leaves: one pooled client, one deadline, one rule for repeating, one mapping of failures.

This is the only module that knows httpx.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from shared.errors import Answered, Service, Unanswered

USER_AGENT = "supabase-ittybit/1"  # Supabase refuses secret keys from what looks like a browser
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_TRIES = 3

_client_made = threading.Lock()
_client: httpx.Client | None = None
_sending = threading.local()


class Deadline:
    """The moment by which one invocation must have answered."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    def reserving(self, seconds: float) -> Deadline:
        """An earlier deadline, so that ``seconds`` are left for what must still be done after it."""
        return Deadline(max(0.0, self.left() - seconds))


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer: any 2xx. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    data: Any


def send(
    service: Service,
    method: str,
    url: str,
    *,
    deadline: Deadline,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None = None,
    repeatable: bool,
) -> Reply:
    """Send one request and return its JSON answer.

    Args:
        service: who is called, for errors.
        method: HTTP method.
        url: the whole address; redirects are not followed.
        deadline: shared by everything the invocation does.
        headers: the service's authentication.
        body: sent as JSON.
        repeatable: whether doing it twice is the same as once. If not, it is sent again only when it never arrived
            or was turned away (429, 503); whatever else fails leaves the outcome in doubt.

    Raises:
        Answered: any status but 2xx.
        Unanswered: no connection, no time left, a broken, too large or unreadable answer.
    """
    for attempt in range(1, MAX_TRIES + 1):
        try:
            return _send_once(service, _request(service, method, url, headers, body), deadline, repeatable)
        except (Answered, Unanswered) as error:
            again = not error.in_doubt and error.is_passing
            pause = error.retry_after or 0.2 * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 - jitter
            if not again or attempt == MAX_TRIES or pause >= deadline.left():
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _request(
    service: Service, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
) -> httpx.Request:
    content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
    fixed = {"user-agent": USER_AGENT, "accept": "application/json", "accept-encoding": "identity"}
    typed = {} if content is None else {"content-type": "application/json"}
    try:
        return httpx.Request(method, url, headers={**fixed, **typed, **headers}, content=content)
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: a host that is no domain name
        raise Unanswered(service, "the address cannot be called", effect="fail") from None


def _send_once(service: Service, request: httpx.Request, deadline: Deadline, repeatable: bool) -> Reply:
    if deadline.left() == 0:
        raise Unanswered(service, "no time was left to ask")
    # Waiting for a place in the pool; whatever is done on a connection asks for itself (shared/network.py).
    request.extensions["timeout"] = {"pool": deadline.left()}
    _sending.deadline = deadline
    answer = bytearray()
    try:
        response = _pool().send(request, stream=True)
        with contextlib.closing(response):
            # As it comes: what was compressed although it should not be is not unpacked, however large it would become.
            for chunk in response.iter_raw():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES or deadline.left() == 0:
                    raise Unanswered(service, "the answer was too large or too slow", in_doubt=not repeatable)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, UnicodeError) as error:
        raise Unanswered(service, f"could not connect ({type(error).__name__})") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise Unanswered(service, f"no answer ({type(error).__name__})", in_doubt=not repeatable) from None

    if response.is_success:
        try:
            return Reply(response.status_code, response.headers, json.loads(answer) if answer else None)
        except (ValueError, RecursionError):
            raise Unanswered(service, "the answer was not JSON", in_doubt=not repeatable) from None
    raise _answered(service, response, bytes(answer), repeatable)


def _answered(service: Service, response: httpx.Response, answer: bytes, repeatable: bool) -> Answered:
    """Make an error of an answer, whatever its body is; this cannot fail."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        told = None
    told = told if isinstance(told, dict) else {}
    if isinstance(told.get("error"), dict):  # ittybit before its bare {kind, message}
        told = told["error"]
    kind = told.get("kind") or told.get("code") or told.get("error")
    message = told.get("message") or f"HTTP {response.status_code}"
    status = response.status_code
    if service == "storage" and told.get("statusCode") in ("404", 404):
        status = 404  # Storage says "not found" as HTTP 400 with the status in the body
    after = response.headers.get("retry-after", "")
    return Answered(
        service,
        str(message),
        status=status,
        kind=str(kind) if kind else None,
        in_doubt=not repeatable and (status == 408 or status >= 500) and status != 503,
        retry_after=int(after[:9]) if after.isascii() and after.isdigit() else None,
    )


def _pool() -> httpx.Client:
    """Return the process's client, made on first use: its TLS context costs more than a refusal may."""
    global _client  # noqa: PLW0603 - one pool per process is the point
    with _client_made:
        if _client is None:
            from shared import network  # noqa: PLC0415 - it needs httpcore, which is not imported before

            size = max(32, int(os.environ.get("THREADS") or 0))
            limits = httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=30)
            # Only the configured origins are connected to, not a proxy that the environment happens to name.
            transport = httpx.HTTPTransport(trust_env=False, limits=limits)
            transport._pool._network_backend = network.Backend(_left)  # noqa: SLF001 - httpx passes on none
            _client = httpx.Client(transport=transport, trust_env=False, follow_redirects=False)
        return _client


def _left() -> float:
    """Seconds left for what this thread is sending."""
    deadline: Deadline = _sending.deadline
    return deadline.left()
