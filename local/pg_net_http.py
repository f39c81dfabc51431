"""One batch of HTTP requests as pg_net sends it: with libcurl, all at once.

Follows pg_net 0.20.4, with its settings of libcurl. Leaves out: connections kept open from one batch to the next,
methods other than POST, and the details of where a time-out's time was spent.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

import certifi
import pycurl
from psycopg.types.json import Jsonb

VERSION: Final = "0.20.4"
_LONGEST_WAIT: Final = 0.1  # seconds between two looks at libcurl
# The recorded messages, where this libcurl's own differ.
_WORDS: Final = {
    pycurl.E_COULDNT_CONNECT: "Couldn't connect to server",
    pycurl.E_COULDNT_RESOLVE_HOST: "Couldn't resolve host name",
}


class Queued(NamedTuple):
    """A row of ``net.http_request_queue``."""

    id: int
    method: str
    url: str
    headers: list[str | None]
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


class _Exchange:
    """One request and its outcome."""

    def __init__(self, queued: Queued) -> None:
        self.curl = pycurl.Curl()
        self._queued = queued
        self._content = io.BytesIO()
        self._headers: dict[str, str] = {}
        curl = self.curl
        curl.setopt(pycurl.URL, queued.url.encode())
        # A header whose value is null is dropped silently.
        lines = [line.encode() for line in queued.headers if line is not None]
        curl.setopt(pycurl.HTTPHEADER, [*lines, f"User-Agent: pg_net/{VERSION}".encode()])
        curl.setopt(pycurl.POSTFIELDS, queued.body or b"")
        curl.setopt(pycurl.TIMEOUT_MS, queued.timeout_milliseconds)
        curl.setopt(pycurl.FOLLOWLOCATION, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.CAINFO, os.fsencode(certifi.where()))
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.WRITEFUNCTION, self._content.write)
        curl.setopt(pycurl.HEADERFUNCTION, self._read_header)

    def _read_header(self, line: bytes) -> None:
        name, colon, value = line.decode("latin-1").partition(":")
        if line.startswith(b"HTTP/"):
            self._headers.clear()  # those of the redirect before
        elif colon:
            self._headers[name] = value.strip()

    def answer(self, error: int | None) -> Answer:
        """The outcome as pg_net records it: the response, or a message for libcurl's error."""
        queued, curl = self._queued, self.curl
        if error == pycurl.E_OPERATION_TIMEDOUT:
            return Answer(queued.id, timed_out=True, error_msg=f"Timeout of {queued.timeout_milliseconds} ms reached.")
        if error is not None:
            return Answer(queued.id, error_msg=_WORDS.get(error) or pycurl.easy_strerror(error))
        return Answer(
            queued.id,
            status_code=curl.getinfo(pycurl.RESPONSE_CODE),
            content_type=curl.getinfo(pycurl.CONTENT_TYPE),
            headers=Jsonb(self._headers),
            # The original reads the body as a C string, up to its first zero byte.
            content=self._content.getvalue().decode(errors="replace").partition("\0")[0] or None,
        )


def send_batch(batch: Sequence[Queued]) -> list[Answer]:
    """Send every request of the batch at once; return when the last one has its answer or its error."""
    multi = pycurl.CurlMulti()
    exchanges = [_Exchange(queued) for queued in batch]
    for exchange in exchanges:
        multi.add_handle(exchange.curl)
    errors: dict[pycurl.Curl, int] = {}
    try:
        under_way = len(exchanges)
        while under_way:
            _, under_way = multi.perform()
            left = 1
            while left:
                left, _, failed = multi.info_read()
                errors |= {curl: error for curl, error, _ in failed}
            due = multi.timeout() / 1000  # negative if nothing is
            multi.select(min(due, _LONGEST_WAIT) if due >= 0 else _LONGEST_WAIT)
        return [exchange.answer(errors.get(exchange.curl)) for exchange in exchanges]
    finally:
        for exchange in exchanges:
            multi.remove_handle(exchange.curl)
            exchange.curl.close()
        multi.close()
