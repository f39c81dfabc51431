"""pg_net's background worker: sends the requests that ``net.http_post`` and similar functions have queued.

Follows pg_net 0.20.4:

- One transaction takes a batch from the queue, sends all of it at once, waits for the slowest answer or timeout, and
  records the answers. Until it commits, everybody else still sees the batch in the queue and no answer.
- So one receiver that hangs holds up every call that is queued after the batch was taken.
- A commit wakes the worker. Rows that are put into the queue by hand don't.
- After every batch the worker rests for a second. The first commit since it woke up ends one rest at once. Later ones
  don't, until it has found the queue empty and slept. So under load a batch leaves every second.
- An error of PostgreSQL or libcurl ends the worker and rolls its batch back. A second later a new worker sends the
  whole batch again.

Leaves out: the settings (``pg_net.batch_size`` is 200, ``pg_net.ttl`` 6 hours); falling asleep, instead of waiting,
when somebody else has locked its tables; and a background worker's entry in ``pg_stat_activity``, where it is a client
with the original's application name. A crash of the server doesn't cut its batch short: the worker learns of the crash
when the slowest answer is in.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

import psycopg
import pycurl
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row

from local.pg_net_http import VERSION, Queued, send_batch
from local.postgres import SUPERUSER, Postgres

BATCH_SIZE: Final = 200
TTL: Final = "6 hours"
_PAUSE: Final = 1.0  # seconds: after every batch, and before the worker comes back after an error

_CONSUME: Final = """
with batch as (select id from net.http_request_queue order by id limit %s)
delete from net.http_request_queue q using batch where q.id = batch.id
returning q.id, q.method::text, q.url,
  array(select key || ': ' || value from jsonb_each_text(q.headers)) as headers, q.body, q.timeout_milliseconds
"""
_EXPIRE: Final = """
with expired as (
  select ctid from net._http_response where created < now() - %s::interval order by created limit %s
)
delete from net._http_response r using expired where r.ctid = expired.ctid
"""
_RECORD: Final = """
insert into net._http_response (id, status_code, content_type, headers, content, timed_out, error_msg)
values (%s, %s, %s, %s, %s, %s, %s)
"""


class _WorkerEndedError(Exception):
    """The worker has to end: by ``net.worker_restart``, or by ``fail_batches`` before the commit of a batch."""


class PgNetWorker:
    """The worker of one database, in a thread of its own between ``start`` and ``stop``.

    An error that the original doesn't have, such as one of ``disturb``, is printed with its traceback and ends this
    process as Ctrl-C does: in order, and with an exit code other than 0.

    Args:
        postgres: The server.
        disturb: Gets each batch and returns the requests to send instead, in that order. Tests use it to drop,
            repeat, delay and reorder requests.
    """

    def __init__(self, postgres: Postgres, *, disturb: Callable[[list[Queued]], list[Queued]] = list) -> None:
        self._postgres = postgres
        self._disturb = disturb
        self._name = f"pg_net {VERSION}"
        self._stopping = threading.Event()
        self._should_wake = True
        self._batches_to_fail = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the worker; it first sends the queue as it is."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker, after its current batch; does nothing when it is stopped."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def pause(self) -> None:
        """Take the worker down until ``resume``: calls still queue, and nothing is sent."""
        self.stop()

    def resume(self) -> None:
        """Resume the paused worker; it first sends the requests that have queued up."""
        self.start()

    def fail_batches(self, count: int) -> None:
        """Let the worker die ``count`` times after sending a batch and before committing it.

        Each time the transaction is rolled back, and the whole batch is sent again about a second later.
        """
        self._batches_to_fail = count

    def lose_queue(self) -> None:
        """Do what a crash of any server process does: empty both tables, start the request ids at 1 again.

        Requests in progress still reach their servers; their answers are lost.
        """
        with psycopg.connect(self._postgres.dsn(SUPERUSER)) as connection:
            connection.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = %s",
                [self._name],
            )
            connection.execute("truncate net.http_request_queue, net._http_response restart identity")

    def _run(self) -> None:
        try:
            self._keep_working()
        except BaseException:  # noqa: BLE001 - the thread ends here
            traceback.print_exc()
            # A shell's background jobs ignore Ctrl-C.
            ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM if ignored else signal.SIGINT)

    def _keep_working(self) -> None:
        dsn = make_conninfo(self._postgres.dsn(SUPERUSER), application_name=self._name)
        while not self._stopping.is_set():
            try:
                with psycopg.connect(dsn, autocommit=True) as connection:
                    connection.execute("listen pg_net_wake")
                    self._should_wake = True
                    self._work(connection)
            except (psycopg.Error, pycurl.error, _WorkerEndedError):
                self._stopping.wait(_PAUSE)

    def _work(self, connection: psycopg.Connection) -> None:
        while not self._stopping.is_set():
            if not self._should_wake:
                self._sleep(connection, float("inf"))
                continue
            self._should_wake = False
            busy = True
            while busy and not self._stopping.is_set():
                busy = self._send_batch(connection)
                self._sleep(connection, _PAUSE)

    def _sleep(self, connection: psycopg.Connection, seconds: float) -> None:
        """Wait, or return at the first wake if none is noted yet; later ones do not shorten the wait."""
        deadline = time.monotonic() + seconds
        while not self._stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            payloads = {notify.payload for notify in connection.notifies(timeout=min(left, 0.1), stop_after=1)}
            if "restart" in payloads:
                raise _WorkerEndedError
            if payloads and not self._should_wake:
                self._should_wake = True
                return

    def _send_batch(self, connection: psycopg.Connection) -> bool:
        """Expire answers; consume, send and record one batch; return whether there was anything to do."""
        with connection.transaction(), connection.cursor(row_factory=class_row(Queued)) as cursor:
            expired = connection.execute(_EXPIRE, [TTL, BATCH_SIZE]).rowcount
            batch = cursor.execute(_CONSUME, [BATCH_SIZE]).fetchall()
            if batch:
                answers = send_batch(self._disturb(batch))
                if self._batches_to_fail > 0:
                    self._batches_to_fail -= 1
                    raise _WorkerEndedError
                cursor.executemany(_RECORD, answers)
        return bool(expired or batch)
