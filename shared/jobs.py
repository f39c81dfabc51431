"""The drain: claim due jobs, do the next step of each side by side, report, and again while something is due.

A wake-up carries no job, so whoever sends it, however often, only makes a function look. Reports travel with the next
claim, so a batch costs one round trip to the ledger.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from shared import ledger, objects
from shared.edge import Answer, Call, fault
from shared.errors import Error, ServiceError, Skipped, Undecided
from shared.ittybit import Ittybit
from shared.ittybit_shapes import Work
from shared.ledger import Check, FunctionName, Outcome, Report, Start
from shared.outbound import Deadline

# Threads of a process for all of its drains. Each waits for a service most of the time.
THREADS = 64
# A claim asks for so many jobs, and waits until as many threads are free: no lease is spent waiting.
BATCH = 32
# Drains of a process at a time. More would share the same threads, so a further wake-up has nothing to do.
DRAINS = 4
# Kept back from the deadline, so that whatever ittybit does there is time to report it.
REPORTING_SECONDS = 2.0
# What is known waits so long for the rest of its batch.
GATHERING_SECONDS = 0.02
# What is known is reported after so long although no batch's worth of threads is free.
WITHHOLDING_SECONDS = 0.5

Begin: TypeAlias = Callable[[Ittybit, Start, str], Work]
# Where ittybit reads a job's object from, or why it cannot.
Source: TypeAlias = str | Error


class WakeUp(BaseModel):
    """There is work: sent by the database, a scheduler or a person."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: Literal["jobs.due"]


class _Threads:
    """A bounded pool of threads that knows how many of them are free."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="job")
        self._free = count
        self._changed = threading.Condition()

    def take(self, fewest: int, seconds: float) -> int:
        """Reserve a batch's worth of threads, or what is free of it; 0 when fewer are free for so many seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= fewest, seconds):
                return 0
            taken = min(self._free, BATCH)
            self._free -= taken
            return taken

    def give_back(self, count: int) -> None:
        """Give back threads that were reserved."""
        with self._changed:
            self._free += count
            self._changed.notify_all()

    def run(self, step: Callable[[], None]) -> None:
        """Run a step in a reserved thread, which is free afterwards."""

        def run_and_give_back() -> None:
            try:
                step()
            finally:
                self.give_back(1)

        self._pool.submit(run_and_give_back)


_threads = _Threads(THREADS)
_drains = threading.BoundedSemaphore(DRAINS)


def drain(function: FunctionName, call: Call, begin: Begin) -> Answer:
    """Do what is due for a function, and answer in counts.

    Args:
        function: whose jobs are claimed.
        call: the invocation. Claims go on for ``DRAIN_SECONDS``; what they brought is done within the deadline.
        begin: start a job's action on its source's address.

    Raises:
        ServiceError: the ledger could not be reached. What is leased is due again when its lease ends.
    """
    if not _drains.acquire(blocking=False):
        return Answer(200, {"claimed": 0, "busy": True})
    try:
        counts = _Drain(function, call, begin).run()
    finally:
        _drains.release()
    call.note(**counts)
    return Answer(200, counts)


class _Drain:
    """One drain: its jobs in flight, and what is known of them and not yet reported."""

    def __init__(self, function: FunctionName, call: Call, begin: Begin) -> None:
        self._function = function
        self._call = call
        self._begin = begin
        self._until = Deadline(call.settings.drain_seconds)
        self._in_flight = 0
        self._done: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._known: list[Report] = []
        self._counts: Counter[str] = Counter(claimed=0)

    def run(self) -> dict[str, int]:
        """Claim and report until nothing is due or time is over, and see what is in flight to its end."""
        more_is_due = True
        unclaimed: ServiceError | None = None
        while self._until.left() and unclaimed is None and (more_is_due or self._in_flight or self._known):
            if self._in_flight and not more_is_due:
                self._gather(self._until.left(), GATHERING_SECONDS)
            room = _threads.take(BATCH, min(self._until.left(), WITHHOLDING_SECONDS))
            if not room and self._gather(0, 0):
                room = _threads.take(1, 0)
            if room:
                try:
                    more_is_due = self._claim(room)
                except ServiceError as error:
                    unclaimed = error
        while self._in_flight:
            self._gather(None, WITHHOLDING_SECONDS)
            if self._in_flight:
                self._report()
        self._report()
        if unclaimed and not self._counts["claimed"]:
            raise unclaimed
        return dict(self._counts)

    def _claim(self, room: int) -> bool:
        """Claim as many jobs as threads are reserved, and begin their steps; whether more may be due."""
        self._gather(0, 0)
        jobs: list[Start | Check] = []
        try:
            call = self._call
            jobs = ledger.claim(call.settings, self._function, room, self._known, call.deadline)
            self._known = []
            sources = _sources([job for job in jobs if isinstance(job, Start)], call)
        finally:
            _threads.give_back(room - len(jobs))
        self._counts["claimed"] += len(jobs)
        self._in_flight += len(jobs)
        for job in jobs:
            _threads.run(functools.partial(self._step, job, sources))
        return len(jobs) == room

    def _report(self) -> None:
        if self._known:
            ledger.report(self._call.settings, self._known, self._call.deadline)
            self._known = []

    def _gather(self, first: float | None, others: float) -> int:
        """Wait up to ``first`` seconds until something is known, ``others`` for more; how much is known now."""
        seconds = first
        while self._in_flight:
            try:
                report = self._done.get(timeout=seconds) if seconds != 0 else self._done.get_nowait()
            except queue.Empty:
                break
            self._in_flight -= 1
            if report is not None:
                self._counts[report.outcome] += 1
                self._known.append(report)
            if seconds is first:
                until = Deadline(others)
            seconds = until.left()
        return len(self._known)

    def _step(self, job: Start | Check, sources: Mapping[UUID, Source]) -> None:
        """Do a job's next step. A fault of ours is not reported: the lease ends, and what was started is looked for."""
        report = None
        try:
            ittybit = Ittybit(self._call.settings, self._call.deadline.reserving(REPORTING_SECONDS))
            if isinstance(job, Start):
                outcome = _start(job, sources[job.job], self._call, ittybit, self._begin)
            else:
                outcome = _check(job.ittybit_id, self._call, ittybit)
            report = Report.of(job, outcome)
        except Exception as error:  # noqa: BLE001 - a fault of ours, in the log as at the edge
            self._call.note(job=str(job.job), **fault(error))
        finally:
            self._done.put(report)


def _sources(starts: Sequence[Start], call: Call) -> dict[UUID, Source]:
    """The addresses that ittybit reads from, signed in one call a bucket; or why there is none."""
    sources: dict[UUID, Source] = {}
    signed: dict[str, list[Start]] = {}
    for start in starts:
        if start.public:
            address = objects.public_address(call.settings.supabase_url, start.bucket, start.name, start.mark)
            sources[start.job] = address
        else:
            signed.setdefault(start.bucket, []).append(start)
    deadline = call.deadline.reserving(REPORTING_SECONDS)
    for bucket, of_bucket in signed.items():
        named = {start.name: start.mark for start in of_bucket}
        addresses = objects.signed_addresses(call.settings, bucket, named, deadline)
        sources |= {start.job: addresses[start.name] for start in of_bucket}
    return sources


def _start(start: Start, source: Source, call: Call, ittybit: Ittybit, begin: Begin) -> Outcome:
    if start.look_since is not None and (settled := _look_for(start, start.look_since, call, ittybit)):
        return settled
    if start.otherwise is not None:
        return Outcome(outcome=start.otherwise.outcome, reason=start.otherwise.reason)
    try:
        if isinstance(source, Error):
            raise source
        work = begin(ittybit, start, source)
    except Skipped as skipped:
        return Outcome(outcome="skipped", reason=skipped.reason)
    except ServiceError as error:
        outcome = {"retry": "retry", "hold": "hold", "fail": "failed"}[error.effect]
        return Outcome.model_validate({"outcome": outcome, "in_doubt": error.in_doubt, **_details(error, call)})
    if work.state == "succeeded":
        # The first check fetches the outputs as well.
        return Outcome(outcome="started", ittybit_id=work.ref)
    return _progress(work, call)


def _look_for(start: Start, since: datetime, call: Call, ittybit: Ittybit) -> Outcome | None:
    """Find what an earlier attempt may have started; None when it certainly started nothing."""
    try:
        found = ittybit.find(start.action, start.mark, since, start.now)
        return Outcome(outcome="started", ittybit_id=found) if found else None
    except Undecided as error:
        return Outcome.model_validate({"outcome": "undecided", "in_doubt": True, **_details(error, call)})
    except ServiceError as error:
        # Whatever is wrong with looking says nothing about the job.
        outcome = "hold" if error.effect == "hold" else "retry"
        return Outcome.model_validate({"outcome": outcome, "in_doubt": True, **_details(error, call)})


def _check(ittybit_id: str, call: Call, ittybit: Ittybit) -> Outcome:
    try:
        work = ittybit.work(ittybit_id)
    except ServiceError as error:
        if error.effect == "fail":
            return Outcome.model_validate({"outcome": "failed", "ittybit_id": ittybit_id, **_details(error, call)})
        return Outcome.model_validate({"outcome": "retry", **_details(error, call)})
    return _progress(work, call)


def _progress(work: Work, call: Call) -> Outcome:
    """What a run or task that exists comes to."""
    match work.state:
        case "succeeded":
            return Outcome(outcome="succeeded", ittybit_id=work.ref, outputs=list(work.outputs))
        case "failed":
            cause = work.error or next((task.error for task in work.tasks if task.error), None)
            error = call.told(cause.kind, cause.message) if cause else {}
            return Outcome(outcome="failed", ittybit_id=work.ref, error=error)
        case "ongoing":
            return Outcome(outcome="started", ittybit_id=work.ref, progress=work.progress)


def _details(error: ServiceError, call: Call) -> dict[str, Any]:
    return {
        "error": {"service": error.service, "status": error.status, **call.told(error.kind, error.message)},
        "retry_after": error.retry_after,
    }
