"""A copy of the database, such as a restored backup or a branch with data, runs beside the original during the load.

The copy has jobs that are due, Vault's secret and the functions' addresses. Its pg_cron and pg_net work, so it wakes
functions:

- ``push-back``, at the address in the backup. That is the original's function, which reads the original's ledger.
- ``on-upload``, at a function that was deployed for the copy. The copy's ledger was set up for the original, and
  refuses this function's claims.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Final, Self

import psycopg
from flask import Response, request

from local.fault_run.host import THREADS, Host
from local.fault_run.uploads import Uploads
from local.functions import FunctionProcess
from local.gateway import create_app
from local.pg_cron import PgCronWorker
from local.pg_net import PgNetWorker
from local.pg_net_http import Queued
from local.server import Server
from local.stack import Stack

_OBJECTS: Final = 20
# As `./deploy.sh database` does. Otherwise the first claim would set the project, in each database a different one.
_SET_UP: Final = "update ittybit.settings set project = %s where singleton"
_ADDRESS: Final = "update ittybit.functions set url = %s where name = 'on-upload'"
_ROWS: Final = """
select id::text, to_jsonb(j)::text from ittybit.jobs as j
union all
select id::text, to_jsonb(o)::text from storage.objects as o
"""
_DUE: Final = "select count(*) from ittybit.jobs where due_at <= now()"


@dataclass(frozen=True)
class CopyReport:
    """What a copy of the database did.

    Attributes:
        jobs: Jobs that were due in it, and in the original, when it was made.
        wake_ups: Wake-ups that it sent.
        refused: Claims of its own function that it refused.
        started: Starts that ittybit accepted with a source in the copy.
        changed: Its jobs and objects that changed, appeared or disappeared.
    """

    jobs: int
    wake_ups: int
    refused: int
    started: int
    changed: int

    @property
    def is_good(self) -> bool:
        """Whether it had jobs and refused claims, and started and changed nothing."""
        return self.jobs > 0 and self.refused > 0 and not self.started and not self.changed


class DatabaseCopy:
    """The copy, its Data API and Storage, its workers and its function, from ``start`` to ``end``.

    Attributes:
        postgres: Its server.
        origin: The address of its Data API and Storage.
        claims: How many claims its own function has made, by the answer's HTTP status.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stopping = contextlib.ExitStack()
        self._wake_ups = 0
        self.claims: Counter[int] = Counter()

    @classmethod
    def start(cls, stack: Stack, host: Host, load: Uploads) -> Self:
        """Store some objects, and copy the database before any function is woken for them."""
        copy = cls(stack)
        stack.sql(_SET_UP, [stack.supabase_url])
        host.pg_net.pause()
        for number in range(_OBJECTS):
            load.upload(f"copied/{number:05}.mp4", f"copied {number} ".encode() * 20)
        try:
            copy._start()
        except BaseException:
            copy.stop()
            raise
        host.pg_net.resume()
        return copy

    def end(self) -> CopyReport:
        """Stop it, and return what it did."""
        changed = len({row for row, _ in self._rows().items() ^ self._before.items()})
        self.stop()
        return CopyReport(self._jobs, self._wake_ups, self.claims[400], self.started, changed)

    @property
    def started(self) -> int:
        """How many starts ittybit has accepted with a source in the copy."""
        sources = [entry.url or "" for entry in self._stack.ittybit.journal if not entry.replay]
        return sum(url.startswith(f"{self.origin}/") for url in sources)

    def stop(self) -> None:
        """Stop it; does nothing the second time."""
        self._stopping.close()

    def _start(self) -> None:
        self.postgres = postgres = self._stopping.enter_context(self._stack.postgres.copy("copy"))
        app = create_app(self._stack.keys, self._stack.services(postgres, self._stopping))
        app.after_request(self._note_claim)
        self.origin = self._stopping.enter_context(Server(app)).origin
        environment = {**self._stack.environment, "SUPABASE_URL": self.origin, "THREADS": THREADS}
        function = FunctionProcess("on-upload", environment, log=self._stack.directory / "copy-on-upload.log")
        self._stopping.callback(function.stop)
        function.wait_until_ready()

        self._database = self._stopping.enter_context(psycopg.connect(postgres.dsn("postgres"), autocommit=True))
        self._database.execute(_ADDRESS, [function.url])
        [(self._jobs,)] = self._database.execute(_DUE)
        self._before = self._rows()
        for worker in (PgNetWorker(postgres, disturb=self._note_wake_ups), PgCronWorker(postgres)):
            worker.start()
            self._stopping.callback(worker.stop)

    def _rows(self) -> dict[str, str]:
        """The jobs and objects by their ids."""
        return dict(self._database.execute(_ROWS).fetchall())

    def _note_wake_ups(self, batch: list[Queued]) -> list[Queued]:
        self._wake_ups += len(batch)
        return batch

    def _note_claim(self, answer: Response) -> Response:
        if request.path == "/rest/v1/rpc/ittybit_claim":
            self.claims[answer.status_code] += 1
        return answer
