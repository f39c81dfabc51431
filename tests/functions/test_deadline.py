from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest

from shared.http import Deadline
from shared.ittybit_models import Action
from shared.transport import exchange
from tests.functions.ittybit_alone import RUN, Alone, client, fails, start


def test_a_start_without_an_answer_ends_at_the_deadline_in_doubt(ittybit: Alone, action: Action) -> None:
    ittybit.faults.add(None, ".*", times=9, hang=60)
    began = time.monotonic()
    assert fails(lambda: start(ittybit.within(0.4), action)).in_doubt
    assert not fails(ittybit.within(0.4).connections).in_doubt
    assert 0.8 <= time.monotonic() - began < 1.6


def test_without_time_left_no_request_is_sent(ittybit: Alone, action: Action) -> None:
    fault = ittybit.faults.add(None, ".*", times=9, status=500)
    error = fails(lambda: start(ittybit.within(0), action))
    assert (fault.seen, error.in_doubt, error.effect) == (0, False, "retry")


@contextmanager
def unanswered(*hosts: str, port: int = 0) -> Iterator[int]:
    """A port at which these addresses of this machine leave every connection unanswered: their queues are full."""
    with ExitStack() as stack:
        for host in hosts:
            listener = stack.enter_context(socket.socket())
            listener.bind((host, port))
            port = int(listener.getsockname()[1])
            listener.listen(0)
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex((host, port))
        yield port


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that lets the host ``several`` have these addresses."""

    def resolve(*hosts: str) -> None:
        def getaddrinfo(host: str, port: int, *more: Any, **options: Any) -> list[Any]:
            names = hosts if host == "several" else (host,)
            return [found for name in names for found in true(name, port, *more, **options)]

        true = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


def test_addresses_that_do_not_answer_share_the_time_to_the_deadline(resolve: Callable[..., None]) -> None:
    hosts = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    resolve(*hosts)
    with unanswered(*hosts) as port:
        began = time.monotonic()
        error = fails(client(f"http://several:{port}", seconds=0.9).connections)
        assert 0.8 < time.monotonic() - began < 1.5
    assert (error.in_doubt, error.message) == (False, "could not connect (ConnectTimeout)")


def test_an_address_that_does_not_answer_leaves_time_for_the_next(ittybit: Alone, resolve: Callable[..., None]) -> None:
    resolve("127.0.0.2", "127.0.0.1")
    port = urlsplit(ittybit.origin).port
    assert port
    with unanswered("127.0.0.2", port=port):
        assert client(f"http://several:{port}", seconds=2).connections() == []


@contextmanager
def speaker(*pieces: bytes, every: float, reads: int = 0) -> Iterator[str]:
    """A server that sends one piece after another, then nothing, and keeps the connection open.

    Before each piece it waits ``every`` seconds and reads up to ``reads`` bytes.
    """
    over = Event()

    def speak() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                for piece in pieces:
                    over.wait(every)
                    try:
                        connection.recv(reads)
                        connection.sendall(piece)
                    except OSError:
                        break
                over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=speak)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


OK = b"HTTP/1.1 200 OK\r\n"
HEAD = OK + b"Content-Length: 1000\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("pieces", [[HEAD], [HEAD, *[b" "] * 999]])
def test_an_unfinished_answer_is_given_up_at_the_deadline(pieces: list[bytes]) -> None:
    with speaker(*pieces, every=0.4) as origin:
        began = time.monotonic()
        assert fails(lambda: start(client(origin, seconds=0.6), RUN)).in_doubt
        assert time.monotonic() - began < 0.95


@pytest.mark.parametrize(
    "pieces",
    [
        [OK, *[b"x-more: yes\r\n"] * 90],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 90,
        [CHUNKED, *[b"0"] * 90],
        [CHUNKED, b"1\r\n{\r\n", *[b"0"] * 90],
    ],
    ids=["headers", "interim answers", "a chunk's size", "a later chunk's size"],
)
def test_an_answer_in_drops_is_given_up_soon_after_the_deadline(pieces: list[bytes]) -> None:
    # No single drop is late enough for a time-out; all of them take half a minute.
    with speaker(*pieces, every=0.3) as origin:
        began = time.monotonic()
        assert fails(lambda: start(client(origin, seconds=0.6), RUN)).in_doubt
        assert time.monotonic() - began < 6


@pytest.mark.timeout(20)
def test_endless_interim_answers_are_given_up_at_the_deadline() -> None:
    # They come without a pause: 14 GB of them.
    with speaker(*[b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5_000] * 100_000, every=0) as origin:
        assert fails(lambda: start(client(origin, seconds=0.3), RUN)).in_doubt


# More than the buffers of both sockets hold. Each read makes room for a little more.
LONG = b"a" * 64_000_000


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pieces", [0, 2000], ids=["nothing", "in drops"])
def test_a_server_that_does_not_read_the_request_is_given_up_at_the_deadline(pieces: int) -> None:
    with speaker(*[b""] * pieces, every=0.01, reads=2**17) as origin:
        began, left = time.monotonic(), Deadline(1).left
        send = partial(exchange, "ittybit", "POST", origin, {}, LONG, left=left, in_doubt=True)
        assert fails(send).in_doubt
        # To send all of it would take five seconds.
        assert time.monotonic() - began < 3


@pytest.mark.timeout(20)
def test_a_server_that_does_not_finish_the_tls_handshake_is_given_up_at_the_deadline() -> None:
    with speaker(every=0) as origin:
        began = time.monotonic()
        assert not fails(lambda: start(client(origin.replace("http:", "https:"), seconds=0.6), RUN)).in_doubt
        assert time.monotonic() - began < 3
