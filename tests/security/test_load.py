"""A deployed function refuses unauthenticated calls in bounded threads and memory, and never answers 500."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from local.functions import FunctionProcess, stage
from tests.functions.calling import JSON, NOWHERE, WAKE_UP, sign
from tests.waiting import until

THREADS = 4
MEGABYTE = 1024 * 1024
# How much a few more calls may add to a process that has served some: pages of the heap, never the bodies.
GROWTH = 40 * MEGABYTE
RIGHT = f"Authorization: Bearer {NOWHERE['FUNCTIONS_TOKEN']}"


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionProcess]:
    """on-upload without any service to call, and with few threads."""
    stage()
    log = tmp_path_factory.mktemp("log") / "on-upload.log"
    process = FunctionProcess("on-upload", NOWHERE | {"THREADS": str(THREADS)}, log=log)
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.stop()


def worker(function: FunctionProcess) -> psutil.Process:
    """The process that answers."""
    [worker] = psutil.Process(function._process.pid).children()
    return worker


def send(function: FunctionProcess, request: bytes) -> tuple[int, str]:
    """Send these bytes on a new connection; return the answer's status and text, or 0 without an answer."""
    address = urlsplit(function.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        try:
            with suppress(ConnectionError):
                connection.sendall(request)
            answer = HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read().decode(errors="replace")
        except ConnectionError:
            return 0, ""


def lines(function: FunctionProcess) -> list[str]:
    return Path(function.log).read_text().splitlines()


def test_a_flood_of_unsigned_calls_is_refused_in_bounded_threads_and_memory(
    function: FunctionProcess,
) -> None:
    with httpx.Client(trust_env=False, headers=JSON, timeout=60) as client:
        body = json.dumps({**WAKE_UP, "x": "x" * 60000}).encode()
        kinds = [{}, {"Authorization": "Bearer wrong"}, sign(NOWHERE["FUNCTIONS_SECRET"], body, at=1)]

        def call(number: int) -> int:
            return client.post(function.url, content=body, headers=kinds[number % 3]).status_code

        with ThreadPoolExecutor(32) as pool:
            assert set(pool.map(call, range(100))) == {401}
            before, logged = worker(function).memory_info().rss, len(lines(function))
            threads: set[int] = set()
            for _ in range(5):
                assert set(pool.map(call, range(200))) == {401}
                threads.add(worker(function).num_threads())
    assert worker(function).memory_info().rss - before < GROWTH
    # The threads that answer, and the server's own.
    assert max(threads) <= THREADS + 2
    # Each call logs one short line.
    until(lambda: len(lines(function)) == logged + 1000)
    assert max(map(len, lines(function)[logged:])) < 400


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("header", ["X: none", "Authorization: Bearer wrong", RIGHT], ids=["none", "wrong", "right"])
def test_a_huge_body_is_not_kept_in_memory(function: FunctionProcess, header: str, chunked: bool) -> None:
    size = 60 * MEGABYTE
    coding = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    lines = ["POST / HTTP/1.1", "Host: x", header, coding, "Content-Type: application/json", "", ""]
    head = "\r\n".join(lines).encode()
    body = f"{size:x}\r\n".encode() + bytes(size) + b"\r\n0\r\n\r\n" if chunked else bytes(size)
    send(function, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n ")
    before = peak(function)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda _: send(function, head + body), range(THREADS)))
    assert {status for status, _ in answers} <= {401, 413, 0}
    assert peak(function) - before < GROWTH
    with httpx.Client(trust_env=False) as client:
        assert client.post(function.url, content=b"{}").status_code == 401


def peak(function: FunctionProcess) -> int:
    """The peak memory of the process that answers, in bytes."""
    status = Path(f"/proc/{worker(function).pid}/status")
    if not status.exists():
        pytest.skip("only Linux reports the peak memory of a process")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


SIGNED = [f"{name}: {value}" for name, value in sign(NOWHERE["FUNCTIONS_SECRET"], b"{}").items()]
MALFORMED = {
    "the token twice": [RIGHT, RIGHT],
    "a wrong token and the right one": ["Authorization: Bearer wrong", RIGHT],
    "the right token and a wrong one": [RIGHT, "Authorization: Bearer wrong"],
    "bytes that are not text": ["Authorization: Bearer \xff\xfe\x80"],
    "a token with more behind it": [RIGHT + "\xa0"],
    "tabs and spaces": ["Authorization: \t \t"],
    "no scheme": [f"Authorization: {NOWHERE['FUNCTIONS_TOKEN']}"],
    "a long token": ["Authorization: Bearer " + "x" * 8000],
    "a signature twice": [*SIGNED, SIGNED[2]],
    "two timestamps": [*SIGNED, "webhook-timestamp: 1"],
    "an id twice": [*SIGNED, SIGNED[0]],
    "names with underscores": [line.replace("webhook-", "webhook_") for line in SIGNED],
    "a signature that is not text": [*SIGNED[:2], "webhook-signature: v1,\xff\xff"],
    "many signatures": [*SIGNED[:2], "webhook-signature: " + "v1,AAAA " * 900],
    "an id with dots": [*SIGNED, "webhook-id: a.b.c"],
}


@pytest.mark.parametrize("headers", MALFORMED.values(), ids=MALFORMED)
def test_every_malformed_authentication_gets_the_same_401(function: FunctionProcess, headers: list[str]) -> None:
    lines = ["POST / HTTP/1.1", "Host: x", "Content-Length: 2", "Content-Type: application/json", *headers, "", "{}"]
    status, text = send(function, "\r\n".join(lines).encode("latin-1"))
    assert status == 401, text
    assert json.loads(text)["detail"].startswith("Sign the request with FUNCTIONS_SECRET (Standard Webhooks) or send ")


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 200 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nAuthorization: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /\xff\xfe HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /%00%0d%0aX:y/../.. HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ],
)
def test_malformed_http_is_refused_and_never_a_500(function: FunctionProcess, request_: bytes) -> None:
    status, text = send(function, request_)
    assert 400 <= status < 500 or status == 501, text
    assert all(json.loads(line) for line in lines(function) if line.startswith("{"))


def test_a_slow_body_takes_only_one_thread_until_the_host_cuts_it(function: FunctionProcess) -> None:
    # docs/security.md leaves it to the host in front to cut such calls. Here the callers hang up.
    address = urlsplit(function.url)
    place = (address.hostname or "", address.port or 0)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    slow = [socket.create_connection(place, timeout=20) for _ in range(3 * THREADS)]
    try:
        for connection in slow:
            connection.sendall(head)
        # All threads are taken: the next call waits.
        with httpx.Client(trust_env=False, timeout=1) as client, pytest.raises(httpx.ReadTimeout):
            client.post(function.url, content=b"{}", headers=JSON)
        assert worker(function).num_threads() <= THREADS + 2
    finally:
        for connection in slow:
            connection.close()
    with httpx.Client(trust_env=False, timeout=30) as client:
        assert client.post(function.url, content=b"{}", headers=JSON).status_code == 401
    assert worker(function).num_threads() <= THREADS + 2
