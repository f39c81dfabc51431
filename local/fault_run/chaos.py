"""The faults of a plan, brought about while the load runs, and counted as they happen."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import psycopg

from local.fault_run.host import WORKING, Host
from local.fault_run.nudges import Nudges
from local.fault_run.outages import Outages
from local.fault_run.plan import WAITING_PLACES, Mishap, Plan
from local.fault_run.settling import bring_probes_forward, cut_idle_waits_short
from local.faults import Fault, Faults
from local.stack import Stack

_PATIENCE: Final = 15.0  # seconds to wait for the moment that a mishap needs
_HELD: Final = 2.0  # seconds for which the account stays out of credit once ittybit has refused something

# A message that is kept back becomes stale when its job is sent again: its lease is ended, which nobody holds.
_END_LEASE: Final = """
update ittybit.jobs set due_at = now() where id = %s and attempt = %s and claimed < attempt and due_at > now()
"""


class Chaos:
    """Carries out one plan on one stack.

    Attributes:
        happened: How often each kind of fault has happened so far, without those of ``Nudges`` and of the load.
    """

    def __init__(self, stack: Stack, host: Host, plan: Plan, nudges: Nudges, outages: Outages) -> None:
        self.happened: Counter[str] = Counter()
        self._stack = stack
        self._host = host
        self._nudges = nudges
        self._outages = outages
        self._waiting = list(plan.mishaps)
        self._hurries = False
        self._is_held = False
        self._places = itertools.cycle(WAITING_PLACES)
        self._origins = {"ittybit": stack.ittybit_api, "supabase": stack.supabase}
        self._http: list[tuple[str, Fault]] = [
            (one.kind, self._origins[one.origin].add(one.method, one.path, at=one.at, **one.options))
            for one in plan.http
        ]
        self._mishaps: dict[Mishap, Callable[[], None]] = {
            "function_killed": self._kill_function,
            "database_killed": self._kill_database,
            "queue_lost": self._lose_queue,
            "batch_sent_twice": self._send_batch_twice,
            "payment_required": self._require_payment,
        }

    @property
    def is_over(self) -> bool:
        """Whether everything planned has happened."""
        return not (self._waiting or self._nudges.kept()) and all(
            fault.seen >= len(fault.at or ()) for _, fault in self._http
        )

    def go_on(self, done: float) -> None:
        """Do what is due when this part of the load, 0 to 1, is done."""
        if self._waiting and self._waiting[0][0] <= done:
            _, mishap = self._waiting.pop(0)
            self._mishaps[mishap]()
        try:
            if self._is_held:
                bring_probes_forward(self._stack)
                self._is_held = self._holds()
            self._let_stale_messages_go()
        except psycopg.OperationalError:
            return  # the connections of a killed database; the next time will do

    def finish(self) -> None:
        """Do what is left when the load is done; what is idle is hurried, so that there is something to befall."""
        self._hurries = True
        cut_idle_waits_short(self._stack)
        self.go_on(1)

    def end(self) -> None:
        """Let nothing more go wrong, from here on."""
        self._stack.ittybit_api.clear()
        self._stack.supabase.clear()
        self._stack.ittybit.require_payment(False)
        self._nudges.end()
        for kind, fault in self._http:
            self.happened[kind] += fault.seen

    def _kill_function(self) -> None:
        """Kill a function while it waits for the answer to a request, which goes on without it."""
        place = next(self._places)
        supabase, ittybit = self._stack.supabase, self._stack.ittybit_api
        where: dict[str, tuple[Faults, str, str, tuple[str, ...]]] = {
            # Who signs or reports cannot be told from outside: then both die, as with their host.
            "sign": (supabase, "POST", "/storage/v1/object/sign/[^/]+", WORKING),
            "start": (ittybit, "POST", "/tasks", ("push-back",)),
            "check": (ittybit, "GET", "/runs/[^/]+", ("on-upload",)),
            "report": (supabase, "POST", "/rest/v1/rpc/ittybit_report", WORKING),
        }
        origin, method, path, names = where[place]
        fault = origin.add(method, path, hang=0.5)
        if self._comes(lambda: fault.seen > 0):
            self._host.kill(names)
            self._host.bring_back(names)
            self.happened["function_killed"] += 1

    def _kill_database(self) -> None:
        with self._outages.one():
            self._stack.postgres.crash()
            self._stack.postgres.restart()
        self.happened["database_killed"] += 1

    def _lose_queue(self) -> None:
        """Empty pg_net's tables while there is something in its queue."""
        self._host.pg_net.pause()
        if self._comes(lambda: self._stack.sql("select 1 from net.http_request_queue limit 1") != []):
            self._host.pg_net.lose_queue()
            self.happened["queue_lost"] += 1
        self._host.pg_net.resume()

    def _send_batch_twice(self) -> None:
        sent = self._nudges.sent
        self._host.pg_net.fail_batches(1)
        if self._comes(lambda: self._nudges.sent > sent):
            self.happened["batch_sent_twice"] += 1

    def _require_payment(self) -> None:
        """Let ittybit refuse every start with 402, until the ledger holds them back and a while longer."""
        self._stack.ittybit.require_payment(True)
        self._is_held = self._comes(self._holds)
        if self._is_held:
            time.sleep(_HELD)
            self.happened["payment_required"] += 1
        self._stack.ittybit.require_payment(False)

    def _let_stale_messages_go(self) -> None:
        for job, attempt in self._nudges.kept().items():
            self._stack.sql(_END_LEASE, [job, attempt])
            if not self._stack.sql("select 1 from ittybit.jobs where id = %s and attempt = %s", [job, attempt]):
                self._nudges.let_go(job)

    def _holds(self) -> bool:
        return self._stack.sql("select 1 from ittybit.holds where scope = 'all'") != []

    def _comes(self, condition: Callable[[], bool]) -> bool:
        """Wait for the condition; return whether it came."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                return False
            if self._hurries:
                cut_idle_waits_short(self._stack)
            time.sleep(0.1 if self._hurries else 0.02)
        return True
