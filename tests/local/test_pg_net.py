"""What pg_net sends, when, and what happens when something fails."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import certifi
import psycopg
import pytest
from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue

from local.pg_net import PgNetWorker
from local.pg_net_http import Queued, send_batch
from local.postgres import Postgres
from local.server import Server
from tests.waiting import until


@dataclass
class Call:
    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An HTTP server that records its calls; ``/slow`` answers only when ``release`` is set."""

    origin: str = ""
    calls: list[Call] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def app(self) -> Flask:
        app = Flask("receiver")

        @app.route("/<path:path>", methods=["GET", "POST", "DELETE"])
        def receive(path: str) -> ResponseReturnValue:
            headers = dict(request.headers)
            self.calls.append(Call(time.monotonic(), request.method, path, headers, request.get_data()))
            if path.startswith("redirect/"):
                return redirect("/landed", int(path.removeprefix("redirect/")))
            if path == "slow":
                self.release.wait(10)
            return Response(b"a\xffb", status=201, content_type="text/plain", headers={"X-Seen": path})

        return app


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    with Server(receiver.app()) as server:
        receiver.origin = server.origin
        yield receiver
        receiver.release.set()


@contextmanager
def running(postgres: Postgres, disturb: Callable[[list[Queued]], list[Queued]] = list) -> Iterator[PgNetWorker]:
    with psycopg.connect(postgres.dsn("supabase_admin")) as connection:
        connection.execute("truncate net.http_request_queue, net._http_response restart identity")
    worker = PgNetWorker(postgres, disturb=disturb)
    worker.start()
    try:
        with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
            up = "select count(*) from pg_stat_activity where application_name like 'pg\\_net %'"
            until(lambda: connection.execute(up).fetchone() != (0,))
        yield worker
    finally:
        worker.stop()


@pytest.fixture
def worker(postgres: Postgres) -> Iterator[PgNetWorker]:
    with running(postgres) as worker:
        yield worker


def post(database: psycopg.Connection, url: str, milliseconds: int = 5000) -> int:
    answer = database.execute("select net.http_post(%s, timeout_milliseconds => %s)", [url, milliseconds]).fetchone()
    assert answer is not None
    return int(answer[0])


def response(database: psycopg.Connection, request_id: int) -> tuple[object, ...]:
    """Wait for the response, and return status, content type, content, timed_out and error."""
    query = "select status_code, content_type, content, timed_out, error_msg from net._http_response where id = %s"
    return until(lambda: database.execute(query, [request_id]).fetchone()) or ()


@pytest.mark.usefixtures("worker")
def test_a_call_leaves_at_commit(receiver: Receiver, postgres: Postgres, database: psycopg.Connection) -> None:
    with psycopg.connect(postgres.dsn("postgres")) as slow:
        post(slow, f"{receiver.origin}/held")
        # A later call is committed and sent, which proves that the worker has passed over the first one.
        response(database, post(database, f"{receiver.origin}/committed"))
        assert [call.path for call in receiver.calls] == ["committed"]
        slow.commit()
    until(lambda: len(receiver.calls) == 2)


@pytest.mark.usefixtures("worker")
def test_a_rolled_back_call_never_leaves(receiver: Receiver, postgres: Postgres, database: psycopg.Connection) -> None:
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        post(connection, f"{receiver.origin}/undone")
        connection.rollback()
    response(database, post(database, f"{receiver.origin}/done"))
    assert [call.path for call in receiver.calls] == ["done"]


@pytest.mark.usefixtures("worker")
def test_the_request_looks_like_libcurls(receiver: Receiver, database: psycopg.Connection) -> None:
    query = 'select net.http_post(%s, \'{"bb": 1, "a": [2]}\', headers => \'{"X-A": "1", "X-B": null}\')'
    row = database.execute(query.encode(), [f"{receiver.origin}/x?y=1"]).fetchone()
    assert row is not None
    assert response(database, row[0]) == (201, "text/plain", "a\ufffdb", False, None)
    (call,) = receiver.calls
    assert call.body == b'{"a": [2], "bb": 1}'
    assert call.headers == {
        "Host": receiver.origin.removeprefix("http://"),
        "X-A": "1",
        "Content-Type": "application/json",
        "User-Agent": "pg_net/0.20.4",
        "Accept": "*/*",
        "Content-Length": "19",
    }
    headers = database.execute("select headers ->> 'X-Seen' from net._http_response").fetchone()
    assert headers == ("x",)


def test_an_address_a_header_and_a_path_to_certificates_may_have_any_character(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificates = tmp_path / "dépôt ✓.pem"
    certificates.write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setattr(certifi, "where", lambda: str(certificates))
    [answer] = send_batch([Queued(1, "POST", f"{receiver.origin}/é", ["x-name: é ✓"], b"{}", 5000)])
    assert (answer.status_code, answer.error_msg) == (201, None)


@pytest.mark.usefixtures("worker")
def test_without_headers_the_body_goes_as_a_form(receiver: Receiver, database: psycopg.Connection) -> None:
    database.execute("select net.http_post(%s, headers => null)", [f"{receiver.origin}/x"])
    until(lambda: receiver.calls)
    assert receiver.calls[0].headers["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(("status", "method", "body"), [(302, "GET", b""), (307, "POST", b"{}")])
@pytest.mark.usefixtures("worker")
def test_redirects(
    receiver: Receiver,
    database: psycopg.Connection,
    status: int,
    method: str,
    body: bytes,
) -> None:
    response(database, post(database, f"{receiver.origin}/redirect/{status}"))
    landed = receiver.calls[-1]
    assert (landed.path, landed.method, landed.body) == ("landed", method, body)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/", "Couldn't connect to server"),
        ("ftp://127.0.0.1/", "Unsupported protocol"),
    ],
)
@pytest.mark.usefixtures("worker")
def test_failures_have_libcurls_messages(database: psycopg.Connection, url: str, message: str) -> None:
    assert response(database, post(database, url)) == (None, None, None, False, message)


@pytest.mark.usefixtures("worker")
def test_a_timeout_delays_its_batch_and_is_recorded_as_one(
    receiver: Receiver, postgres: Postgres, database: psycopg.Connection
) -> None:
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        slow = post(connection, f"{receiver.origin}/slow", milliseconds=400)
        quick = post(connection, f"{receiver.origin}/quick")
    until(lambda: len(receiver.calls) == 2)
    assert database.execute("select id from net.http_request_queue order by id").fetchall() == [(slow,), (quick,)]
    assert database.execute("select count(*) from net._http_response").fetchone() == (0,)
    assert response(database, quick)[0] == 201
    status, _, _, timed_out, error = response(database, slow)
    assert (status, timed_out) == (None, True)
    assert error == "Timeout of 400 ms reached."


@pytest.mark.usefixtures("worker")
def test_a_hanging_receiver_delays_the_next_call_until_it_times_out(
    receiver: Receiver, database: psycopg.Connection
) -> None:
    assert _seconds_between_batches(receiver, database, "slow") >= 5


@pytest.mark.usefixtures("worker")
def test_a_receiver_that_answers_delays_no_other_call(receiver: Receiver, database: psycopg.Connection) -> None:
    assert _seconds_between_batches(receiver, database, "quick") < 5


def _seconds_between_batches(receiver: Receiver, database: psycopg.Connection, path: str) -> float:
    """Call ``path``, and another path once that call has arrived; return how much later the second batch began."""
    first = post(database, f"{receiver.origin}/{path}", milliseconds=5000)
    until(lambda: receiver.calls)
    second = post(database, f"{receiver.origin}/somebody-else")
    assert response(database, second)[0] == 201
    # An answer's time is the time at which its batch was taken from the queue.
    query = "select extract(epoch from b.created - a.created)::float from net._http_response a, net._http_response b"
    row = database.execute(f"{query} where a.id = {first} and b.id = {second}".encode()).fetchone()
    assert row is not None
    return float(row[0])


@pytest.mark.usefixtures("worker")
def test_a_backlog_is_sent_at_two_hundred_calls_a_second(database: psycopg.Connection) -> None:
    # The worker's first look needs no wake. After it, only a commit wakes the worker: once for all calls that follow.
    first = post(database, "http://127.0.0.1:1/")
    response(database, first)
    database.execute("select net.http_post('http://127.0.0.1:1/') from generate_series(1, 201)")
    times = "select count(*), extract(epoch from created - min(created) over ())::float from net._http_response"
    times += f" where id > {first}"
    batches = until(
        lambda: (
            (rows := database.execute(f"{times} group by created order by 2".encode()).fetchall())
            and sum(count for count, _ in rows) == 201
            and rows
        )
    )
    assert [count for count, _ in batches or []] == [200, 1]
    assert 1 <= (batches or [])[1][1] < 3


def test_a_failing_worker_sends_the_batch_again_every_second(
    worker: PgNetWorker, receiver: Receiver, database: psycopg.Connection
) -> None:
    worker.fail_batches(2)
    assert response(database, post(database, f"{receiver.origin}/again"))[0] == 201
    assert [call.path for call in receiver.calls] == ["again"] * 3
    gaps = [after.at - before.at for before, after in zip(receiver.calls, receiver.calls[1:], strict=False)]
    assert all(1 <= gap < 3 for gap in gaps)
    assert database.execute("select count(*) from net._http_response").fetchone() == (1,)


@pytest.mark.usefixtures("worker")
def test_a_restarted_worker_finishes_its_batch_and_another_sends_the_rest(
    receiver: Receiver, database: psycopg.Connection
) -> None:
    query = "select pid from pg_stat_activity where application_name like 'pg_net %'"
    before = database.execute(query).fetchall()
    slow = post(database, f"{receiver.origin}/slow")
    until(lambda: receiver.calls)
    database.execute("select net.worker_restart()")
    later = post(database, f"{receiver.origin}/later")
    receiver.release.set()
    assert response(database, slow)[0] == 201
    assert response(database, later)[0] == 201
    assert database.execute(query).fetchall() != before
    assert [call.path for call in receiver.calls] == ["slow", "later"]


def test_a_call_that_libcurl_refuses_keeps_the_worker_from_sending_any(
    receiver: Receiver, postgres: Postgres, database: psycopg.Connection
) -> None:
    tries: list[int] = []

    def disturb(batch: list[Queued]) -> list[Queued]:
        tries.append(len(batch))
        return batch

    with running(postgres, disturb):
        with psycopg.connect(postgres.dsn("postgres")) as connection:
            refused = post(connection, f"{receiver.origin}/refused", milliseconds=-1)
            waiting = post(connection, f"{receiver.origin}/waiting")
        until(lambda: tries == [2, 2])
        assert receiver.calls == []
        database.execute("delete from net.http_request_queue where id = %s", [refused])
        assert response(database, waiting)[0] == 201


@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGINT, signal.SIG_IGN)"], ids=["", "in background"])
def test_an_error_of_the_stand_in_itself_ends_its_process(
    postgres: Postgres, database: psycopg.Connection, before: str
) -> None:
    program = f"""if True:
        import signal, sys, threading
        from types import SimpleNamespace
        from local.pg_net import PgNetWorker

        def disturb(batch):
            raise RuntimeError("broken")

        {before}
        worker = PgNetWorker(SimpleNamespace(dsn=lambda user: sys.argv[1]), disturb=disturb)
        worker.start()
        threading.Event().wait()
    """
    request_id = post(database, "http://127.0.0.1:1/")
    command = [sys.executable, "-c", program, postgres.dsn("supabase_admin")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert "RuntimeError: broken" in ended.stderr
    assert database.execute("select from net.http_request_queue where id = %s", [request_id]).rowcount == 1


def test_losing_the_queue_loses_the_responses_and_restarts_the_ids(
    worker: PgNetWorker, receiver: Receiver, database: psycopg.Connection
) -> None:
    assert post(database, f"{receiver.origin}/slow") == 1
    until(lambda: receiver.calls)
    worker.lose_queue()
    receiver.release.set()
    assert post(database, f"{receiver.origin}/next") == 1
    assert response(database, 1)[0] == 201
    assert [call.path for call in receiver.calls] == ["slow", "next"]


def test_a_worker_that_is_down_leaves_the_queue_alone(
    worker: PgNetWorker, receiver: Receiver, database: psycopg.Connection
) -> None:
    worker.pause()

    def is_seen() -> bool:
        # The worker's backend ends shortly after its connection.
        try:
            database.execute("select net.check_worker_is_up()")
        except psycopg.errors.RaiseException as error:
            return "the pg_net background worker is not up" in str(error)
        return False

    until(is_seen)
    request_id = post(database, f"{receiver.origin}/later")
    assert database.execute("select id from net.http_request_queue").fetchall() == [(request_id,)]
    worker.resume()
    assert response(database, request_id)[0] == 201
    database.execute("select net.check_worker_is_up()")


@pytest.mark.usefixtures("worker")
def test_rows_inserted_by_hand_do_not_wake_the_worker(receiver: Receiver, database: psycopg.Connection) -> None:
    response(database, post(database, f"{receiver.origin}/first"))
    # The worker looks once more after a batch. What is inserted later waits for the next wake.
    until(lambda: time.monotonic() > receiver.calls[0].at + 1.5)
    database.execute(
        "insert into net.http_request_queue (method, url, timeout_milliseconds) values ('GET', %s, 1000)",
        [f"{receiver.origin}/by-hand"],
    )
    until(lambda: time.monotonic() > receiver.calls[0].at + 2)
    assert len(receiver.calls) == 1
    response(database, post(database, f"{receiver.origin}/woken"))
    assert {call.path for call in receiver.calls[1:]} == {"by-hand", "woken"}


@pytest.mark.usefixtures("worker")
def test_responses_are_deleted_after_six_hours(receiver: Receiver, database: psycopg.Connection) -> None:
    database.execute(
        "insert into net._http_response (id, created) values (-1, now() - interval '6 hours 1 second'),"
        " (-2, now() - interval '5 hours 59 minutes')"
    )
    request_id = post(database, f"{receiver.origin}/wake")
    response(database, request_id)
    assert database.execute("select id from net._http_response order by id").fetchall() == [(-2,), (request_id,)]


@pytest.mark.usefixtures("worker")
def test_the_worker_comes_back_after_a_crash_of_the_server(receiver: Receiver, postgres: Postgres) -> None:
    postgres.crash()
    postgres.restart()
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        assert response(connection, post(connection, f"{receiver.origin}/back"))[0] == 201


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'http://h/a b'", 'invalid URL "http://h/a b": Bad path'),
        ("'http://h/é'", 'invalid URL "http://h/é": Bad path'),
        ("''", 'invalid URL ""'),
        ("null", 'null value in column "url"'),
        (
            """'http://h/', headers => '{"content-type": "application/json; charset=utf-8"}'""",
            'Content-Type header must be "application/json"',
        ),
    ],
)
def test_an_invalid_call_is_refused_when_queued(database: psycopg.Connection, arguments: str, message: str) -> None:
    with pytest.raises(psycopg.Error) as refusal:
        database.execute(f"select net.http_post({arguments})".encode())
    assert (refusal.value.diag.message_primary or "").startswith(message)


def test_everybody_may_call(postgres: Postgres) -> None:
    with psycopg.connect(postgres.dsn("authenticator")) as connection:
        connection.execute("set local role anon")
        assert post(connection, "http://127.0.0.1:1/") > 0
        connection.rollback()


def test_a_batch_can_be_changed_before_it_is_sent(
    receiver: Receiver, postgres: Postgres, database: psycopg.Connection
) -> None:
    def disturb(batch: list[Queued]) -> list[Queued]:
        return [request for request in batch for _ in range(2) if not request.url.endswith("/dropped")]

    with running(postgres, disturb):
        with psycopg.connect(postgres.dsn("postgres")) as connection:
            post(connection, f"{receiver.origin}/dropped")
            twice = post(connection, f"{receiver.origin}/twice")
        query = "select id from net._http_response"
        assert until(lambda: database.execute(query).fetchall()) == [(twice,), (twice,)]
        assert database.execute("select from net.http_request_queue").rowcount == 0
    assert [call.path for call in receiver.calls] == ["twice", "twice"]
