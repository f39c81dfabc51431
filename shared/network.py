"""The sockets beneath httpx, on which nothing lasts longer than the invocation has left.

httpx's own time-outs are for one read of a socket: headers that come a byte at a time, or interim answers without end,
would keep it waiting for ever. Imported when the first connection is needed, as httpcore is.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable

import httpcore


class Backend(httpcore.NetworkBackend):
    """Opens connections each of whose steps waits no longer than ``left()`` seconds, asked for at that step."""

    def __init__(self, left: Callable[[], float]) -> None:
        self._sockets = httpcore.SyncBackend()
        self._left = left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - httpcore's name and place
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, and return the stream."""
        left = _seconds(self._left, httpcore.ConnectTimeout)
        return _Stream(self._sockets.connect_tcp(host, port, left, local_address, socket_options), self._left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _seconds(self._left, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, _seconds(self._left, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        left = _seconds(self._left, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._left)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _seconds(left: Callable[[], float], late: type[httpcore.TimeoutException]) -> float:
    seconds = left()
    if seconds <= 0:
        raise late("no time is left")
    return seconds
