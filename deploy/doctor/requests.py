"""One request and its answer, of any status, headers and body, within a time limit.

``shared.http`` is for calls that should succeed; here a refusal or a redirect is an answer too.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from shared.http import USER_AGENT

# A function without an instance may take some seconds to start, and then answers within 8.
LIMIT_SECONDS = 20.0
MAX_BYTES = 64 * 1024


class NoAnswerError(Exception):
    """There was no answer; the message says why, without the address."""


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        headers: names in lower case.
        ahead: seconds by which the server's clock (the Date header) is ahead of this machine's; None without it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    ahead: float | None


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Send a POST with a JSON body and return the answer of any status; redirects are not followed.

    Raises:
        NoAnswerError: no connection, no answer in time, or an address that cannot be called.
    """
    fixed = {"user-agent": USER_AGENT, "content-type": "application/json", "accept-encoding": "identity"}
    began, wall = time.monotonic(), time.time()
    try:
        with _client().stream("POST", url, content=body, headers={**fixed, **headers}) as response:
            read = bytearray()
            for chunk in response.iter_bytes():
                read += chunk
                if len(read) > MAX_BYTES:
                    break
                if time.monotonic() - began > LIMIT_SECONDS:
                    raise NoAnswerError(f"no whole answer within {LIMIT_SECONDS:.0f} s")
    except (httpx.InvalidURL, UnicodeError):
        raise NoAnswerError("the address cannot be called") from None
    except httpx.TimeoutException:
        raise NoAnswerError(f"no answer within {LIMIT_SECONDS:.0f} s") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise NoAnswerError(f"no answer ({type(error).__name__})") from None
    seconds = time.monotonic() - began
    date = _date(response.headers.get("date", ""))
    # A Date is truncated to the second, by half a second on average.
    ahead = None if date is None else date + 0.5 - (wall + seconds / 2)
    return Answer(response.status_code, response.headers, bytes(read), seconds, ahead)


@functools.cache
def _client() -> httpx.Client:
    # A new connection for each request: another process may be behind the address by then.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(follow_redirects=False, trust_env=False, timeout=LIMIT_SECONDS, limits=limits)


def _date(header: str) -> float | None:
    try:
        given = parsedate_to_datetime(header)
    except ValueError:
        return None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def now(ahead: float | None) -> datetime:
    """The time by a clock that is ``ahead`` seconds ahead of this machine's."""
    return datetime.fromtimestamp(time.time() + (ahead or 0), UTC)
