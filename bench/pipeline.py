"""Every part between an upload and ittybit, warm and ready.

The stand-in pg_net sends; a function in a process of its own claims, starts and reports; the RPCs are the database's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.database import BUCKET, OURS, Database, database
from bench.function_process import ON_UPLOAD, Serving, deployed, environment
from bench.load import MESSAGE, signed
from bench.upstream import Upstream
from local.pg_cron import PgCronWorker
from local.pg_net import PgNetWorker

_POST = "select net.http_post(url := %s, body := '{}')"


@dataclass(frozen=True)
class Way:
    """A database, a function, and the server that it calls."""

    target: Database
    upstream: Upstream
    function: Serving


@contextlib.contextmanager
def way(*, small: bool, delay: float, **settings: str) -> Iterator[Way]:
    """Run the pipeline with one rule. Nothing is sent before pg_net and pg_cron run.

    Args:
        small: whether the function runs in the current environment.
        delay: seconds until ittybit answers.
        settings: further environment variables of the function; ``WORKERS`` processes share its address.
    """
    programs = deployed(small=small)
    with (
        database(max_connections="100") as target,
        Upstream(delay, dsn=f"{target.postgres.dsn('authenticator')} options='-c role=service_role'") as upstream,
        Serving(programs, ON_UPLOAD, {**environment(upstream.origin), **settings}) as function,
    ):
        # A wake-up without any job, to warm everything up.
        function.first_answer(MESSAGE, signed())
        target.rules((BUCKET, "clips/**", "video/*"))
        target.use(OURS)
        target.admin.execute("update ittybit.functions set url = null")
        target.admin.execute("update ittybit.functions set url = %s where name = 'on-upload'", [function.url])
        yield Way(target, upstream, function)


@contextlib.contextmanager
def sending(*targets: Database) -> Iterator[None]:
    """Run the stand-ins of pg_net and pg_cron, and wake the functions that have work."""
    workers = [worker(target.postgres) for target in targets for worker in (PgNetWorker, PgCronWorker)]
    for target in targets:
        target.admin.execute("select ittybit.wake_functions()")
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in reversed(workers):
            worker.stop()


class Webhook:
    """Another webhook of the project, queued again and again until the ``with`` block ends.

    Attributes:
        waits: seconds from the commit of each call to its arrival; complete after the ``with`` block.
    """

    def __init__(self, target: Database, upstream: Upstream, *, every: float) -> None:
        self._target = target
        self._upstream = upstream
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._queue)
        self._queued: dict[str, float] = {}
        self.waits: list[float] = []

    def _queue(self) -> None:
        with self._target.another() as connection:
            while not self._ended.wait(self._every):
                number = str(len(self._queued))
                connection.execute(_POST, [f"{self._upstream.origin}/hook/{number}"])
                self._queued[number] = time.time()

    def __enter__(self) -> Webhook:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        for _ in self._queued:
            moment, number = self._upstream.hook_arrived()
            self.waits.append(max(0.0, moment - self._queued[number]))
