"""Every request that leaves: one deadline, one rule for repeating, one mapping of failures."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import Answered, Service, Unanswered

if TYPE_CHECKING:
    from shared import network

USER_AGENT = "supabase-ittybit/1"  # Supabase refuses secret keys from what looks like a browser
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_TRIES = 3
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# JSON has these as escapes alone: most answers need no second look.
_ESCAPED = re.compile(rb"\\u(?:0000|d[89a-f])", re.IGNORECASE)


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
            return _send_once(
                service, method, url, headers=headers, body=body, deadline=deadline, repeatable=repeatable
            )
        except (Answered, Unanswered) as error:
            again = not error.in_doubt and error.is_passing
            pause = error.retry_after or 0.2 * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 - jitter
            if not again or attempt == MAX_TRIES or pause >= deadline.left():
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _send_once(
    service: Service,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None,
    deadline: Deadline,
    repeatable: bool,
) -> Reply:
    from shared import network  # noqa: PLC0415 - httpx takes time to import, which a refused call does not need

    content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
    fixed = {"user-agent": USER_AGENT, "accept": "application/json", "accept-encoding": "identity"}
    typed = {} if content is None else {"content-type": "application/json"}
    answer = network.exchange(
        service,
        method,
        url,
        headers={**fixed, **typed, **headers},
        content=content,
        deadline=deadline,
        in_doubt=not repeatable,
    )
    if not 200 <= answer.status < 300:
        raise _answered(service, answer, repeatable)
    try:
        return Reply(answer.status, answer.headers, _parsed(answer.body) if answer.body else None)
    except (ValueError, RecursionError):
        raise Unanswered(service, "the answer was not JSON", in_doubt=not repeatable) from None


def _parsed(answer: bytes) -> Any:
    """Read JSON, and of its texts what a database can store: no NUL, and no half of a character that was cut in two."""
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


def _answered(service: Service, answer: network.Answer, repeatable: bool) -> Answered:
    """Make an error of an answer, whatever its body is; this cannot fail."""
    try:
        told = _parsed(answer.body)
    except (ValueError, RecursionError):
        told = None
    told = told if isinstance(told, dict) else {}
    if isinstance(told.get("error"), dict):  # ittybit before its bare {kind, message}
        told = told["error"]
    kind = told.get("kind") or told.get("code") or told.get("error")
    message = told.get("message") or f"HTTP {answer.status}"
    status = answer.status
    if service == "storage" and told.get("statusCode") in ("404", 404):
        status = 404  # Storage says "not found" as HTTP 400 with the status in the body
    after = answer.headers.get("retry-after", "")
    return Answered(
        service,
        str(message),
        status=status,
        kind=str(kind) if kind else None,
        in_doubt=not repeatable and (status == 408 or status >= 500) and status != 503,
        retry_after=int(after[:9]) if after.isascii() and after.isdigit() else None,
    )
