"""Sends the requests of ``shared.http`` over kept connections, on which no step outlasts the deadline.

This is the only module that knows httpx. It is imported at the first request, so a refused call does not pay for the
import. It uses httpx's transport alone: a Client adds cookies, redirects and authentication, and takes another quarter
of a request's processor time.

httpx's time-outs apply to one read of a socket. A peer that sends its headers a byte at a time, or endless interim
answers, would never exceed them. So each step on a socket gets only the time that is left.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

import httpcore
import httpx

from shared.errors import Service, Unanswered

MAX_ANSWER_BYTES = 4 * 1024 * 1024

_tls = httpx.create_ssl_context(trust_env=False)
# Free transports, each with a connection to each host. The one used last is taken first, so that a quiet instance uses
# few connections. One transport for all threads would go through all of their connections at every request.
_idle: list[httpx.BaseTransport] = []
_sending = threading.local()


def exchange(
    service: Service,
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes | None,
    *,
    left: Callable[[], float],
    in_doubt: bool,
) -> tuple[int, Mapping[str, str], bytes]:
    """Send one request once, and return any answer: its status, its headers (names in any case) and its body.

    The arguments are those of ``shared.http.send``, and ``left``, which returns the seconds left.

    Raises:
        Unanswered: an address that cannot be called, no connection, no time left, a broken or too large answer.
            ``in_doubt`` where it may have arrived.
    """
    try:
        request = httpx.Request(method, url, headers=dict(headers), content=content)
    except (httpx.InvalidURL, UnicodeError):  # UnicodeError: a host that is no domain name
        raise Unanswered(service, "the address cannot be called", effect="fail") from None
    if left() == 0:
        raise Unanswered(service, "no time was left for the call")
    _sending.left = left
    answer = bytearray()
    try:
        with _transport() as transport, contextlib.closing(transport.handle_request(request)) as response:
            # Raw: an answer that is compressed against the request's wish is not unpacked, as it may grow to any size.
            for chunk in response.iter_raw():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES or left() == 0:
                    raise Unanswered(service, "the answer was too large or too slow", in_doubt=in_doubt)
    except (httpx.ConnectError, httpx.ConnectTimeout, UnicodeError) as error:
        raise Unanswered(service, f"could not connect ({type(error).__name__})") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise Unanswered(service, f"no answer ({type(error).__name__})", in_doubt=in_doubt) from None
    return response.status_code, response.headers, bytes(answer)


@contextlib.contextmanager
def _transport() -> Iterator[httpx.BaseTransport]:
    """Lend a transport to one thread."""
    try:
        transport = _idle.pop()
    except IndexError:
        # Without trust_env, the environment's proxies are ignored.
        made = httpx.HTTPTransport(verify=_tls, trust_env=False, limits=httpx.Limits(keepalive_expiry=30))
        made._pool._network_backend = _Backend()  # noqa: SLF001 - httpx has no argument for it
        transport = made
    try:
        yield transport
    finally:
        _idle.append(transport)


def _left(late: type[httpcore.TimeoutException]) -> float:
    """Seconds left for this thread's request."""
    seconds: float = _sending.left()
    if seconds <= 0:
        raise late("no time is left")
    return seconds


class _Backend(httpcore.NetworkBackend):
    """Opens connections on which no step waits longer than the time left."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to one of the host's addresses. They share the time that is left: the first one may not answer."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError("the host has no address")
        for untried, (*_, address) in zip(range(len(found), 0, -1), found, strict=True):
            share = _left(httpcore.ConnectTimeout) / untried
            try:
                stream = httpcore.SyncBackend().connect_tcp(str(address[0]), port, share, local_address, socket_options)
                return _Stream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # httpcore's stream would start a new time-out for each part that a slow peer accepts.
        connected, rest = self._stream.get_extra_info("socket"), memoryview(buffer)
        try:
            while rest:
                connected.settimeout(_left(httpcore.WriteTimeout))
                rest = rest[connected.send(rest) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
