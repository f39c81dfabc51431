"""Every outgoing request: one deadline, one rule for retries, one mapping of failures to errors."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared import __version__
from shared.errors import Answered, Service, Unanswered

USER_AGENT = f"supabase-ittybit/{__version__}"  # Supabase refuses secret keys from what looks like a browser
MAX_TRIES = 3
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# JSON can contain these characters only as escapes. An answer without such escapes needs no replacement.
_ESCAPED = re.compile(rb"\\u(?:0000|d[89a-f])", re.IGNORECASE)


class Deadline:
    """The moment by which an invocation, or a part of it, must be done."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    def reserving(self, seconds: float) -> Deadline:
        """An earlier deadline that leaves ``seconds`` for what comes after it."""
        return Deadline(max(0.0, self.left() - seconds))


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer: any 2xx. Header names are lower-case."""

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
        deadline: the invocation's, or an earlier one.
        headers: the service's authentication.
        body: sent as JSON.
        repeatable: whether sending it twice has the same effect as sending it once. If not, it is retried only when it
            never arrived or was refused: 425, 429, or 503 if the service itself sent it. Another 5xx, a 408 or no
            usable answer leaves it in doubt.

    Raises:
        Answered: any status but 2xx.
        Unanswered: no connection, no time left, a broken, too large or unreadable answer, or an error that a gateway
            sent in the service's place.
    """
    from shared import transport  # noqa: PLC0415 - importing httpx takes time, and a refused call needs none of it

    content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
    fixed = {"user-agent": USER_AGENT, "accept": "application/json", "accept-encoding": "identity"}
    sent = {**fixed, **({"content-type": "application/json"} if content is not None else {}), **headers}
    for attempt in range(1, MAX_TRIES + 1):
        try:
            answer = transport.exchange(
                service, method, url, sent, content, left=deadline.left, in_doubt=not repeatable
            )
            return _reply(service, *answer, repeatable=repeatable)
        except (Answered, Unanswered) as error:
            again = not error.in_doubt and error.is_transient
            pause = error.retry_after or 0.2 * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 - jitter
            if not again or attempt == MAX_TRIES or pause >= deadline.left():
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _reply(service: Service, status: int, headers: Mapping[str, str], body: bytes, *, repeatable: bool) -> Reply:
    """Return a success as a reply; raise anything else as an error."""
    try:
        data = _parsed(body) if body else None
    except (ValueError, RecursionError):
        if 200 <= status < 300:
            raise Unanswered(service, "the answer was not JSON", in_doubt=not repeatable) from None
        data = None
    if 200 <= status < 300:
        return Reply(headers, data)
    words = _own_words(service, data)
    fields = words or (data if isinstance(data, dict) else {})
    if service == "storage" and words and str(words["statusCode"]).isdecimal():
        status = int(words["statusCode"])  # Storage answers most errors with HTTP 400
    kind = fields.get("kind") or fields.get("code") or fields.get("error")
    after = headers.get("retry-after", "")
    retry_after = int(after[:9]) if after.isascii() and after.isdigit() else None
    error = Answered(
        service,
        str(fields.get("message") or f"HTTP {status}"),
        status=status,
        kind=str(kind) if kind else None,
        in_doubt=not repeatable and (status == 408 or status >= 500) and status != 503,
        retry_after=retry_after,
    )
    if words is None and (error.effect != "retry" or error.is_transient):
        # A gateway or a proxy has answered in the service's place. Only a rate limit says that it passed nothing on.
        in_doubt = not repeatable and status not in (425, 429)
        raise Unanswered(
            service, f"HTTP {status}, but not from {service} itself", in_doubt=in_doubt, retry_after=retry_after
        )
    raise error


# A body with these fields is the service's own, not a gateway's: ittybit's ``{kind, message}`` (changelog
# 2026-01-15), Storage's ``{statusCode, error, message}``, PostgREST's ``{code, message, details, hint}``.
_FIELDS: Mapping[Service, tuple[str, ...]] = {
    "ittybit": ("kind", "message"),
    "storage": ("statusCode", "message"),
    "ledger": ("code", "message"),
}


def _own_words(service: Service, data: Any) -> Mapping[str, Any] | None:
    """An error's body if the service itself wrote it; None if a gateway or a proxy did."""
    if not isinstance(data, dict):
        return None
    if service == "ittybit" and isinstance(data.get("error"), dict):  # the form before {kind, message}
        return dict(data["error"])
    return data if all(field in data for field in _FIELDS.get(service, ())) else None


def _parsed(answer: bytes) -> Any:
    """Parse JSON and replace what PostgreSQL cannot store in a text: NUL, and half of a surrogate pair."""
    parsed = json.loads(answer, parse_constant=_refuse)
    return _storable(parsed) if _ESCAPED.search(answer) else parsed


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _storable(value: Any) -> Any:
    match value:
        case str():
            return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {_storable(name): _storable(item) for name, item in value.items()}
    return value
