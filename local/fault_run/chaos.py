"""Makes the faults of a plan while the load runs, and counts them."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from local.fault_injection import Fault, Faults
from local.fault_run.host import WORKING, Host
from local.fault_run.plan import WAITING_PLACES, Mishap, Plan
from local.fault_run.settling import bring_probes_forward, cut_idle_waits_short
from local.fault_run.uploads import Uploads
from local.fault_run.wake_ups import WakeUps
from local.stack import Stack

_PATIENCE: Final = 15.0  # seconds to wait for the condition that a mishap needs
# Whether any job can go on now. A queued job in doubt cannot, unless it was claimed in the last 10 s.
_MOVING: Final = """
select 1 from ittybit.jobs
where due_at is not null
  and (state <> 'queued' or in_doubt_since is null or claimed_at > now() - interval '10 seconds') limit 1
"""
_HELD: Final = 2.0  # seconds without credit after the ledger has begun to hold starts back


class Chaos:
    """Carries out one plan on one stack.

    Args:
        stack, host: Where the faults happen.
        plan: The faults.
        wake_ups: Makes the faults of wake-ups.
        load: Notes when the database is down. Stores another object when a fault is left and no job can go on.

    Attributes:
        happened: How often each kind of fault has happened; ``WakeUps`` and the load count theirs themselves.
    """

    def __init__(self, stack: Stack, host: Host, plan: Plan, wake_ups: WakeUps, load: Uploads) -> None:
        self.happened: Counter[str] = Counter()
        self._stack = stack
        self._host = host
        self._wake_ups = wake_ups
        self._load = load
        self._waiting = list(plan.mishaps)
        self._hurries = False
        self._is_held = False
        self._places = itertools.cycle(WAITING_PLACES)
        self._origins = {"ittybit": stack.ittybit_api, "supabase": stack.supabase}
        self._http: list[tuple[str, Fault]] = [
            (one.kind, self._origins[one.origin].add(one.method, one.path, at=one.at, **one.options))
            for one in plan.http
        ]
        self._mishaps: dict[Mishap, Callable[[], bool]] = {
            "function_killed": self._kill_function,
            "database_killed": self._kill_database,
            "queue_lost": self._lose_queue,
            "queue_sent_twice": self._send_queue_twice,
            "payment_required": self._require_payment,
        }

    @property
    def is_over(self) -> bool:
        """Whether everything planned has happened."""
        return (
            not self._waiting
            and self._wake_ups.is_over
            and all(fault.seen >= len(fault.at or ()) for _, fault in self._http)
        )

    def go_on(self, done: float) -> None:
        """Make the next mishap, if it is due when this part of the load, 0 to 1, is done."""
        if self._waiting and self._waiting[0][0] <= done:
            _, mishap = self._waiting.pop(0)
            if self._mishaps[mishap]():
                self.happened[mishap] += 1
            else:
                self._waiting.append((1.0, mishap))
        if self._is_held:
            bring_probes_forward(self._stack)
            self._is_held = self._holds()

    def finish(self) -> None:
        """Make the remaining faults after the load; make idle jobs due, so that there is work for each fault to hit."""
        self._hurries = True
        self._hurry()
        self.go_on(1)

    def end(self) -> None:
        """Stop all faults, and count those of requests."""
        self._stack.ittybit_api.clear()
        self._stack.supabase.clear()
        self._stack.ittybit.require_payment(False)
        self._wake_ups.end()
        for kind, fault in self._http:
            self.happened[kind] += fault.seen

    def _hurry(self) -> None:
        cut_idle_waits_short(self._stack)
        if not self._stack.sql(_MOVING):
            self._load.upload_one()

    def _kill_function(self) -> bool:
        """Kill a function, with its claimed jobs, while it waits for an answer; the request goes on without it."""
        place = next(self._places)
        supabase, ittybit = self._stack.supabase, self._stack.ittybit_api
        speaks_jobs = self._stack.ittybit.api == "jobs"
        where: dict[str, tuple[Faults, str, str, tuple[str, ...]]] = {
            # Both functions claim, sign and report with the same requests, and start and check in ittybit's API "jobs".
            # Then both are killed, as when their host dies.
            "claim": (supabase, "POST", "/rest/v1/rpc/ittybit_claim", WORKING),
            "sign": (supabase, "POST", "/storage/v1/object/sign/[^/]+", WORKING),
            "start": (ittybit, "POST", "/tasks|/runs|/jobs", WORKING if speaks_jobs else ("push-back",)),
            "check": (ittybit, "GET", "/(tasks|jobs)/[^/]+", WORKING if speaks_jobs else ("push-back",)),
            "report": (supabase, "POST", "/rest/v1/rpc/ittybit_report", WORKING),
        }
        origin, method, path, names = where[place]
        fault = origin.add(method, path, hang=0.5)
        if in_time := self._wait_for(lambda: fault.seen > 0):
            self._host.kill(names)
            self._host.bring_back(names)
        return in_time

    def _kill_database(self) -> bool:
        with self._load.outages.one():
            self._stack.postgres.crash()
            self._stack.postgres.restart()
        return True

    def _lose_queue(self) -> bool:
        """Empty pg_net's tables while its queue holds wake-ups."""
        self._host.pg_net.pause()
        if in_time := self._wait_for(lambda: self._stack.sql("select 1 from net.http_request_queue limit 1") != []):
            self._host.pg_net.lose_queue()
        self._host.pg_net.resume()
        return in_time

    def _send_queue_twice(self) -> bool:
        """Kill pg_net's worker after it has sent a batch: it sends the whole batch again."""
        sent = self._wake_ups.sent
        self._host.pg_net.fail_batches(1)
        return self._wait_for(lambda: self._wake_ups.sent > sent)

    def _require_payment(self) -> bool:
        """Let ittybit refuse every start with 402 until the ledger holds starts back, and a while longer."""
        self._stack.ittybit.require_payment(True)
        if in_time := self._wait_for(self._holds):
            time.sleep(_HELD)
        self._is_held = in_time
        self._stack.ittybit.require_payment(False)
        return in_time

    def _holds(self) -> bool:
        return self._stack.sql("select 1 from ittybit.holds where scope = 'all'") != []

    def _wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait for the condition; return whether it became true in time."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                return False
            if self._hurries:
                self._hurry()
            time.sleep(0.1 if self._hurries else 0.02)
        return True
