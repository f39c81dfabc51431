from __future__ import annotations

import gzip
import itertools
import json
import socket
import ssl
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from werkzeug import Response

from local.server import Server
from shared import __version__, http, objects, transport
from shared.errors import ServiceError, Unanswered
from shared.ittybit_models import Action
from shared.settings import load
from tests.functions.calling import NOWHERE
from tests.functions.ittybit_alone import KEY, RUN, Alone, client, fails, start

pytestmark = pytest.mark.generations("automations", "jobs")

START = r"/automations/[^/]+/run|/jobs"
RUN_1 = json.dumps({"id": "run_1"}).encode()


@pytest.mark.parametrize(
    ("status", "effect"),
    [(400, "fail"), (401, "hold"), (402, "hold"), (403, "hold"), (404, "fail"), (405, "fail"), (410, "fail")],
)
def test_a_refusal_has_ittybits_words_and_is_not_repeated(
    ittybit: Alone, action: Action, status: int, effect: str
) -> None:
    fault = ittybit.faults.add(None, ".*", times=9, status=status, body={"kind": "some_kind", "message": "No."})
    for act in (lambda: start(ittybit.client, action), ittybit.client.connections):
        error = fails(act)
        assert (error.status, error.kind, error.message, error.effect) == (status, "some_kind", "No.", effect)
        assert not error.in_doubt
        assert error.remedy
    assert fault.seen == 2


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"error": {"code": "c", "message": "No."}}, "c", "No."),
        ({"kind": "k", "message": "m" * 900}, "k", "m" * 900),
        ({"message": ["No."], "kind": {"a": 1}}, "{'a': 1}", "['No.']"),
    ],
)
def test_every_form_of_a_refusal_is_understood(ittybit: Alone, body: Any, kind: str | None, message: str) -> None:
    ittybit.faults.add(None, ".*", status=404, body=body)
    error = fails(lambda: ittybit.client.work("runs/run_1"))
    assert (error.kind, error.message) == (kind, message)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413])
@pytest.mark.parametrize(
    "body",
    [
        {"message": "no Route matched with those values"},
        {"error": "not_found"},
        *(pytest.param(body, marks=pytest.mark.variation) for body in ({}, {"status": 404})),
    ],
)
def test_an_error_status_without_ittybits_error_body_counts_as_no_answer(
    ittybit: Alone, action: Action, status: int, body: Any
) -> None:
    fault = ittybit.faults.add(None, ".*", times=9, status=status, body=body)
    error = fails(lambda: start(ittybit.client, action))
    assert (error.status, error.effect, error.in_doubt, fault.seen) == (None, "retry", True, 1)
    assert f"HTTP {status}" in error.message
    error = fails(lambda: ittybit.client.work("runs/run_1"))
    assert (error.status, error.effect, error.in_doubt) == (None, "retry", False)


def test_a_wrong_key_holds_and_the_remedy_names_the_setting(ittybit: Alone) -> None:
    stranger = ittybit.client
    stranger._api._headers = {"authorization": "Bearer another"}
    error = fails(stranger.connections)
    assert (error.status, error.kind, error.effect) == (401, "token_invalid", "hold")
    assert "ITTYBIT_API_KEY" in error.remedy


def test_a_start_waits_as_long_as_a_429_asks(ittybit: Alone, action: Action) -> None:
    ittybit.faults.add("POST", START, status=429, headers={"Retry-After": "1"})
    before, began = ittybit.started, time.monotonic()
    assert start(ittybit.client, action).state == "ongoing"
    assert 1 <= time.monotonic() - began < 3
    assert ittybit.started == before + 1


@pytest.mark.parametrize(("body", "status"), [(None, 429), ({}, None)], ids=["own", "gateway"])
def test_a_429_that_asks_for_more_time_than_is_left_fails_at_once(
    ittybit: Alone, action: Action, body: Any, status: int | None
) -> None:
    fault = ittybit.faults.add("POST", START, times=9, status=429, headers={"Retry-After": "60"}, body=body)
    began = time.monotonic()
    error = fails(lambda: start(ittybit.client, action))
    assert (error.status, error.effect, error.retry_after, error.in_doubt) == (status, "retry", 60, False)
    assert fault.seen == 1
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "²", "9" * 5000])
def test_a_strange_retry_after_does_no_harm(ittybit: Alone, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
    ittybit.faults.add(None, ".*", times=3, status=503, headers={"Retry-After": value})
    error = fails(lambda: ittybit.client.work("runs/run_1"))
    assert (error.status, error.effect) == (503, "retry")
    assert error.retry_after is None or error.retry_after > 1000


def test_a_503_is_repeated_up_to_three_requests(ittybit: Alone, action: Action) -> None:
    fault = ittybit.faults.add("POST", START, times=2, status=503)
    assert start(ittybit.client, action).state == "ongoing"
    assert fault.seen == 2
    fault = ittybit.faults.add("GET", ".*", times=9, status=503)
    assert fails(ittybit.client.connections).status == 503
    assert fault.seen == 3


# A gateway answers 503 also when ittybit breaks off the connection after it has read the request.
@pytest.mark.parametrize(
    ("status", "body"), [*itertools.product((408, 500, 502, 504, 520), (None, {})), (503, {})], ids=str
)
def test_after_a_server_error_a_start_is_in_doubt_and_only_a_get_is_repeated(
    ittybit: Alone, action: Action, status: int, body: Any
) -> None:
    fault = ittybit.faults.add(None, ".*", times=1, status=status, body=body)
    error = fails(lambda: start(ittybit.client, action))
    assert (error.status, error.effect, error.in_doubt) == (status if body is None else None, "retry", True)
    assert fault.seen == 1
    fault = ittybit.faults.add(None, ".*", times=1, status=status, body=body)
    assert ittybit.client.connections() == []
    assert fault.seen == 1


def test_a_start_whose_answer_is_lost_is_in_doubt_and_happened_once(ittybit: Alone, action: Action) -> None:
    fault = ittybit.faults.add("POST", START, times=9, drop="after")
    before = ittybit.started
    error = fails(lambda: start(ittybit.client, action))
    assert (error.status, error.effect, error.in_doubt) == (None, "retry", True)
    assert (fault.seen, ittybit.started) == (1, before + 1)


def test_a_start_that_is_cut_off_is_in_doubt_and_not_repeated(ittybit: Alone, action: Action) -> None:
    fault = ittybit.faults.add("POST", START, times=9, drop="before")
    before = ittybit.started
    assert fails(lambda: start(ittybit.client, action)).in_doubt
    assert (fault.seen, ittybit.started) == (1, before)


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_get_that_is_cut_off_is_repeated(ittybit: Alone, drop: Any) -> None:
    fault = ittybit.faults.add("GET", "/connections", times=2, drop=drop)
    assert ittybit.client.connections() == []
    assert fault.seen == 2


def test_a_start_that_never_connected_is_not_in_doubt(action: Action) -> None:
    error = fails(lambda: start(client("http://127.0.0.1:9", seconds=1), action))
    assert (error.status, error.effect, error.in_doubt) == (None, "retry", False)
    assert isinstance(error, Unanswered)


def test_a_redirect_is_not_followed(ittybit: Alone, action: Action) -> None:
    ittybit.faults.add("POST", START, status=307, headers={"Location": f"{ittybit.origin}/elsewhere"})
    elsewhere = ittybit.faults.add(None, "/elsewhere", status=200)
    assert fails(lambda: start(ittybit.client, action)).status == 307
    assert elsewhere.seen == 0


@pytest.mark.parametrize("content", [b"<html>", b"\xff\xfe", b"{", b" " * (transport.MAX_ANSWER_BYTES + 1)])
def test_a_start_whose_success_cannot_be_read_is_in_doubt(content: bytes) -> None:
    with Server(Response(content)) as server:
        error = fails(lambda: start(client(server.origin), RUN))
        assert (error.status, error.effect, error.in_doubt) == (None, "retry", True)
        error = fails(client(server.origin, seconds=0.3).connections)
        assert (error.status, error.effect, error.in_doubt) == (None, "retry", False)


def test_a_compressed_answer_is_not_unpacked() -> None:
    small = gzip.compress(json.dumps({"id": "run_1"}).encode())
    bomb = gzip.compress(bytes(60_000_000), compresslevel=1)
    twice = gzip.compress(bomb)
    for content, coding in ((small, "gzip"), (bomb, "gzip"), (twice, "gzip, gzip"), (zlib.compress(small), "deflate")):
        with Server(Response(content, headers={"Content-Encoding": coding})) as server:
            tracemalloc.start()
            try:
                error = fails(lambda: start(client(server.origin), RUN))
                assert tracemalloc.get_traced_memory()[1] < 4 * transport.MAX_ANSWER_BYTES
            finally:
                tracemalloc.stop()
        assert (error.message, error.in_doubt) == ("the answer was not JSON", True)


# Made for this test with openssl, and used nowhere else.
CERTIFICATE = Path(__file__).parent / "self_signed.pem"


def test_nothing_is_sent_to_a_server_with_an_untrusted_certificate() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    heard: list[bytes] = []

    def serve() -> None:
        for _ in range(http.MAX_TRIES):
            connection, _ = listener.accept()
            with connection, suppress(OSError), tls.wrap_socket(connection, server_side=True) as secure:
                heard.append(secure.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        port = listener.getsockname()[1]
        error = fails(lambda: start(client(f"https://localhost:{port}"), RUN))
        served.result(10)
    assert (error.message, error.in_doubt, error.effect) == ("could not connect (ConnectError)", False, "retry")
    assert heard == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_no_address_in_an_answer_is_ever_called(status: int) -> None:
    asked: list[str] = []
    called: list[str] = []

    def elsewhere(environ: dict[str, Any], start_response: Any) -> Any:
        called.append(environ["PATH_INFO"])
        return Response(b"{}")(environ, start_response)

    with Server(elsewhere) as other:
        link = f'<{other.origin}/page>; rel="next"'
        addresses = {"Location": f"{other.origin}/to", "Link": link, "Has-More": "true", "Refresh": f"0;{other.origin}"}
        page = [{"id": "con_1", "next": f"{other.origin}/next", "url": f"{other.origin}/url"}]
        for answer in (
            Response(status=status, headers=addresses),
            Response(json.dumps({"data": page, "next": f"{other.origin}/more"}), headers={"Link": link}),
            Response(json.dumps([{"signedURL": f"{other.origin}/object/sign/private/a?token=t"}]), headers=addresses),
        ):
            asked.clear()

            def answering(environ: dict[str, Any], start_response: Any, answer: Response = answer) -> Any:
                asked.append(environ["PATH_INFO"])
                return answer(environ, start_response)

            with Server(answering) as server:
                for act in (lambda: client(server.origin, seconds=0.4).connections(), lambda: signed(server.origin)):
                    with suppress(ServiceError):
                        assert other.origin not in str(act())
            assert set(asked) == {"/connections", "/storage/v1/object/sign/private"}
    assert called == []


def signed(origin: str) -> str:
    supabase = load(NOWHERE | {"SUPABASE_URL": origin})
    return objects.signed_address(supabase, "private", "a", "mark", http.Deadline(0.4))


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_is_given_up(status: int) -> None:
    pieces = 0

    def endless() -> Iterator[bytes]:
        nonlocal pieces
        while pieces < 1000:
            pieces += 1
            yield b" " * 65536

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        return Response(endless(), status=status)(environ, start_response)

    with Server(app) as server:
        error = fails(lambda: start(client(server.origin), RUN))
    assert (error.message, error.in_doubt) == ("the answer was too large or too slow", True)
    # What was read, and what was left in the sockets' buffers.
    assert pieces * 65536 < 4 * transport.MAX_ANSWER_BYTES


def test_a_huge_error_page_counts_as_no_answer() -> None:
    with Server(Response(b"<html>" + b" " * 1024 * 1024, status=404)) as server:
        error = fails(lambda: client(server.origin).work("runs/run_1"))
    assert (error.status, error.effect) == (None, "retry")


@pytest.mark.parametrize("url", ["http://" + "a" * 70 + ":1", "http://xn--a:1"])
def test_a_start_at_an_invalid_host_is_not_in_doubt(url: str) -> None:
    assert not fails(lambda: start(client(url, seconds=0.5), RUN)).in_doubt


def test_a_proxy_of_the_environment_is_not_used(ittybit: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(transport, "_idle", [])
    assert ittybit.client.connections() == []
    [made] = transport._idle
    made.close()


def test_each_concurrent_call_has_a_connection_and_connections_are_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_idle", [])
    seen: list[int] = []
    at_once = Barrier(1)

    class Keeping(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.append(self.client_address[1])
            at_once.wait(5)
            self.send_response(200)
            self.send_header("Content-Length", str(len(RUN_1)))
            self.end_headers()
            self.wfile.write(RUN_1)

        def log_message(self, *_: object) -> None:
            pass

    def call(number: int) -> None:
        client(f"http://127.0.0.1:{server.server_port}").work(f"runs/run_{number}")

    with ThreadingHTTPServer(("127.0.0.1", 0), Keeping) as server, ThreadPoolExecutor(5) as threads:
        server.daemon_threads = True
        serving = threads.submit(server.serve_forever, 0.05)
        for number in range(3):
            call(number)
        assert len(set(seen)) == 1
        at_once = Barrier(4)
        list(threads.map(call, range(4)))
        assert len(set(seen)) == 4
        # Calls one after another use one of the four; the others stay idle.
        at_once = Barrier(1)
        before = len(seen)
        for number in range(3):
            call(number)
        assert len(set(seen)) == 4
        assert len(set(seen[before:])) == 1
        for made in transport._idle:
            made.close()
        server.shutdown()
        serving.result()


def test_a_request_has_our_user_agent_and_asks_for_no_compression() -> None:
    seen: list[dict[str, str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        seen.append({name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))})
        return Response(json.dumps({"id": "run_1"}))(environ, start_response)

    with Server(app) as server:
        start(client(server.origin), RUN)
    [headers] = seen
    assert headers["HTTP_USER_AGENT"] == f"supabase-ittybit/{__version__}"
    assert headers["HTTP_ACCEPT_ENCODING"] == "identity"
    assert headers["HTTP_IDEMPOTENCY_KEY"] == "a.1"
    assert headers["HTTP_AUTHORIZATION"] == f"Bearer {KEY}"
    assert headers["CONTENT_TYPE"] == "application/json"


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_an_answer_with_nan_or_infinity_counts_as_no_answer(constant: str) -> None:
    with Server(Response(f'{{"id": "run_1", "progress": {constant}}}')) as server:
        error = fails(lambda: client(server.origin).work("runs/run_1"))
    assert isinstance(error, Unanswered)
    assert error.message == "the answer was not JSON"
