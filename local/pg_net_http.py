"""One batch of HTTP requests as pg_net sends it: all at once, in libcurl's manner and with libcurl's error texts.

Follows pg_net 0.20.4. Leaves out: connections kept open from one batch to the next, international host names, and
the division of a time-out's duration into name lookup, handshake and answer: all of it is given as the answer's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import httpx
from psycopg.types.json import Jsonb

VERSION: Final = "0.20.4"
# An error's class, a part of its text, and what libcurl says of the same failure.
_CURL_SAYS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (httpx.ConnectError, "", "Couldn't connect to server"),
    (httpx.UnsupportedProtocol, "", "Unsupported protocol"),
    (httpx.TooManyRedirects, "", "Number of redirects hit maximum amount"),
    (httpx.RemoteProtocolError, "without sending a response", "Server returned nothing (no headers, no data)"),
    (httpx.RemoteProtocolError, "complete message body", "Transferred a partial file"),
    (httpx.ReadError, "", "Failure when receiving data from the peer"),
)


class Queued(NamedTuple):
    """A row of ``net.http_request_queue``."""

    id: int
    method: str
    url: str
    headers: dict[str, Any] | None
    body: bytes | None
    timeout_milliseconds: int


class Answer(NamedTuple):
    """A row of ``net._http_response``, without its time."""

    id: int
    status_code: int | None = None
    content_type: str | None = None
    headers: Jsonb | None = None
    content: str | None = None
    timed_out: bool = False
    error_msg: str | None = None


def send_batch(batch: Sequence[Queued], tls: ssl.SSLContext) -> list[Answer]:
    """Send every request of the batch at once; return when the last one has its answer or its error."""
    return asyncio.run(_send_all(batch, tls))


async def _send_all(batch: Sequence[Queued], tls: ssl.SSLContext) -> list[Answer]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        verify=tls, trust_env=False, limits=limits, follow_redirects=True, max_redirects=30
    ) as client:
        return await asyncio.gather(*(_exchange(client, queued) for queued in batch))


async def _exchange(client: httpx.AsyncClient, queued: Queued) -> Answer:
    limit = queued.timeout_milliseconds
    started = time.monotonic()
    try:
        async with asyncio.timeout(limit / 1000 if limit > 0 else None):
            # Made here and not by the client, the request has no header that the original does not send.
            headers = list(_headers(queued))
            response = await client.send(httpx.Request(queued.method, queued.url, headers=headers, content=queued.body))
    except TimeoutError:
        took = (time.monotonic() - started) * 1000
        parts = f"DNS time: {0:f} ms, TCP/SSL handshake time: {0:f} ms, HTTP Request/Response time: {took:f} ms"
        text = f"Timeout of {limit} ms reached. Total time: {took:f} ms ({parts})"
        return Answer(queued.id, timed_out=True, error_msg=text)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Answer(queued.id, error_msg=_explain(error))
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers.raw}
    return Answer(
        queued.id,
        status_code=response.status_code,
        content_type=response.headers.get("content-type"),
        headers=Jsonb(fields),
        # The original takes the body for a C string.
        content=response.content.decode(errors="replace").partition("\0")[0] or None,
    )


def _headers(queued: Queued) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers that libcurl sends: those without a value are dropped silently."""
    given = {name: value for name, value in (queued.headers or {}).items() if value not in {None, ""}}
    for name, value in given.items():
        yield name.encode(), str(value).encode()
    yield b"User-Agent", f"pg_net/{VERSION}".encode()
    names = {name.lower() for name in given}
    if "accept" not in names:
        yield b"Accept", b"*/*"
    if "content-type" not in names and (queued.method.upper() == "POST" or queued.body is not None):
        yield b"Content-Type", b"application/x-www-form-urlencoded"


def _explain(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "Couldn't resolve host name"
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    said = (words for kind, part, words in _CURL_SAYS if isinstance(error, kind) and part in text)
    return next(said, text)
