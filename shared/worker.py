"""The drain: claim due jobs, do their next steps in parallel, report, and repeat while jobs are due.

A step is a start, a search for an earlier start, a check or a deletion. A wake-up carries no job, so duplicates are
harmless. Reports travel with the next claim, so a batch costs one round trip to the ledger.

One thread talks to the ledger. The steps run in a pool of threads and put their outcomes into a queue.
"""

from __future__ import annotations

import queue
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from shared import ledger, objects
from shared.edge import Answer, Call, fault
from shared.errors import ServiceError, Skipped, Undecided
from shared.http import Deadline
from shared.ittybit import Ittybit
from shared.ittybit_models import Work
from shared.ledger import Check, Delete, FunctionName, Outcome, Report, Search, Start, Step

# How many drains of a function run in a process: while one waits for a slow ittybit, the next wake-up is served.
DRAINS = 4
# How many steps a drain does at a time. Each waits for a service most of the time.
THREADS = 64
# How many jobs a drain claims. It claims when that many threads are free, so that no leased job waits for a thread.
BATCH = 32
# The services' calls end this long before the deadline, so that the report still gets through.
REPORTING_SECONDS = 2.0
# A deletion is sent within this time of its claim. Later, somebody may have stored another object under the name.
DELETING_SECONDS = 3.0
# When nothing more is due, a report waits this long for the others of its batch.
GATHERING_SECONDS = 0.02
# While more is due, a report waits at most this long for the next claim, to travel with it.
WITHHOLDING_SECONDS = 0.5
# How many lost jobs the log line names.
NAMED = 10

# One pool for each drain. The pool used last is taken first, and a pool makes its threads when it needs them. Each
# function has its own pools. Otherwise, where both run in one process, on-upload's drains could keep push-back from
# claiming, and the database treats a function that claims nothing as down.
_pools: dict[FunctionName, list[ThreadPoolExecutor]] = {
    function: [ThreadPoolExecutor(THREADS, thread_name_prefix="job") for _ in range(DRAINS)]
    for function in get_args(FunctionName)
}


class WakeUp(BaseModel):
    """Jobs are due. The database, a scheduler or a person sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["jobs.due"]


def drain(function: FunctionName, call: Call) -> Answer:
    """Do the next steps of a function's due jobs, and answer with counts.

    Args:
        function: whose jobs are claimed.
        call: the invocation. The drain claims for ``DRAIN_SECONDS`` and works on the claimed jobs until the deadline.

    Raises:
        ServiceError: the ledger could not be reached. A leased job is due again when its lease ends.
    """
    try:
        pool = _pools[function].pop()
    except IndexError:
        return Answer(200, {"claimed": 0, "busy": True})
    try:
        counts = _Drain(function, call, pool).run()
    finally:
        _pools[function].append(pool)
    call.note(**counts)
    return Answer(200, counts)


class _Drain:
    """One drain.

    ``_step`` and what it calls run in the pool; everything else runs in the invocation's thread. ``_in_flight`` has
    the jobs whose steps are in the pool, ``_done`` is the queue of their outcomes, and ``_unreported`` has the outcomes
    that were taken from the queue and are not reported yet.
    """

    def __init__(self, function: FunctionName, call: Call, pool: ThreadPoolExecutor) -> None:
        self._function = function
        self._call = call
        self._pool = pool
        self._claiming = Deadline(call.settings.drain_seconds)
        self._working = call.deadline.reserving(REPORTING_SECONDS)
        self._ittybit = Ittybit(call.settings, self._working)
        self._in_flight: set[UUID] = set()
        self._done: queue.SimpleQueue[Report | tuple[Step, Exception]] = queue.SimpleQueue()
        self._unreported: list[Report] = []
        self._counts: Counter[str] = Counter(claimed=0)
        self._faults: list[dict[str, Any]] = []

    def run(self) -> dict[str, int]:
        """Claim until nothing is due or the time is over; then wait for the steps in flight."""
        failure = None
        try:
            self._claim_what_is_due()
        except ServiceError as error:
            # The outcomes so far are still reported. If only the claim's answer was lost, the ledger has them already,
            # and counts them once.
            failure = error
        self._finish()
        if failure and not self._counts["claimed"]:
            raise failure
        return dict(self._counts)

    def _claim_what_is_due(self) -> None:
        is_more = self._claim()
        while is_more or self._in_flight or self._unreported:
            if is_more:
                self._gather(BATCH - self._room, min(self._claiming.left(), WITHHOLDING_SECONDS))
            else:
                self._gather(1, self._claiming.left())
                self._gather(len(self._in_flight), GATHERING_SECONDS)
            if not self._claiming.left():
                return
            if self._room >= BATCH:
                is_more = self._claim()
            else:
                self._report()

    def _finish(self) -> None:
        # At the deadline a hanging step is left behind: its lease ends, and the next attempt searches for its start.
        waiting = self._call.deadline.reserving(REPORTING_SECONDS / 2)
        while self._in_flight and waiting.left():
            self._gather(len(self._in_flight), min(waiting.left(), WITHHOLDING_SECONDS))
            if self._in_flight:
                with suppress(ServiceError):
                    self._report()
        if self._in_flight:
            self._counts["lost"] += len(self._in_flight)
            self._call.note(unfinished=sorted(map(str, self._in_flight))[:NAMED])
        self._report()

    @property
    def _room(self) -> int:
        return THREADS - len(self._in_flight)

    def _claim(self) -> bool:
        """Claim a batch and begin its steps. Returns whether more may be due."""
        deleting = Deadline(min(DELETING_SECONDS, self._working.left()))
        claimed = ledger.claim(self._call.settings, self._function, BATCH, self._unreported, self._working)
        self._unreported = []
        self._counts["claimed"] += len(claimed.jobs)
        self._in_flight.update(job.job for job in claimed.jobs)
        private = [(job.bucket, job.name) for job in claimed.jobs if isinstance(job, Start) and not job.public]
        sources = objects.Sources(self._call.settings, private, self._working)
        # The searches of a batch take turns. The shortest comes first: a long one would keep back all others.
        for job in sorted(claimed.jobs, key=lambda job: job.left if isinstance(job, Search) else timedelta(0)):
            self._pool.submit(self._step, job, sources, deleting)
        return claimed.more

    def _report(self) -> None:
        if self._unreported:
            ledger.report(self._call.settings, self._unreported, self._call.deadline)
            self._unreported = []

    def _gather(self, enough: int, seconds: float) -> None:
        """Wait for ``enough`` outcomes, or until the seconds are over; take all that are in the queue by then."""
        waiting = Deadline(seconds)
        while self._in_flight:
            try:
                done = self._done.get(timeout=waiting.left() if enough > 0 else 0)
            except queue.Empty:
                return
            enough -= 1
            if isinstance(done, Report):
                self._in_flight.discard(done.job)
                self._counts[done.outcome] += 1
                self._unreported.append(done)
            else:
                # An internal error is not reported. The lease ends, and the next attempt searches for what was started.
                job, error = done
                self._in_flight.discard(job.job)
                self._counts["lost"] += 1
                self._faults.append({"job": str(job.job), **fault(error)})
                self._call.note(faults=self._faults[:NAMED])

    def _step(self, job: Step, sources: objects.Sources, deleting: Deadline) -> None:
        """Do a job's next step."""
        try:
            match job:
                case Start():
                    outcome = self._start(job, sources)
                case Search():
                    outcome = self._search(job)
                case Check():
                    outcome = self._check(job)
                case Delete():
                    outcome = self._delete(job, deleting)
            self._done.put(Report.of(job, outcome))
        except Exception as error:  # noqa: BLE001 - the drain must get every error
            self._done.put((job, error))

    def _start(self, start: Start, sources: objects.Sources) -> Outcome:
        try:
            if start.public:
                address = objects.public_address(self._call.settings.public_url, start.bucket, start.name, start.mark)
            else:
                address = sources.address(start.bucket, start.name, start.mark)
            work = self._ittybit.start(start.action, address, start.mark, **start.metadata)
        except Skipped as skipped:
            return Outcome(outcome="skipped", reason=skipped.reason)
        except ServiceError as error:
            outcome = {"retry": "retry", "hold": "hold", "fail": "failed"}[error.effect]
            return self._failure(outcome, error, in_doubt=error.in_doubt)
        if work.state == "succeeded":
            # The first check fetches the outputs.
            return Outcome(outcome="started", ittybit_id=work.ref)
        return self._progress(work)

    def _search(self, search: Search) -> Outcome:
        """Search for what an earlier attempt may have started. If it certainly started nothing, the job is due again.

        This attempt does not start the job: if its report is lost too, the same search is still enough.
        """
        try:
            found = self._ittybit.find(search.action, search.mark, search.since, search.now, search.searched)
        except Undecided as error:
            return self._failure("undecided", error, in_doubt=True)
        except ServiceError as error:
            # An error of the search says nothing about the job.
            outcome = "hold" if error.effect == "hold" else "retry"
            return self._failure(outcome, error, in_doubt=True, searched=search.searched)
        if found is not None:
            return Outcome(outcome="started", ittybit_id=found)
        return Outcome(outcome="retry", reason="not_started")

    def _check(self, check: Check) -> Outcome:
        try:
            work = self._ittybit.work(check.ittybit_id)
        except ServiceError as error:
            if error.effect == "fail":
                return self._failure("failed", error, ittybit_id=check.ittybit_id)
            return self._failure("retry", error)
        return self._progress(work)

    def _delete(self, delete: Delete, deadline: Deadline) -> Outcome:
        """Delete results before the deadline or not at all: the ledger has just checked that ittybit wrote them."""
        buckets: dict[str, list[str]] = {}
        for result in delete.results:
            buckets.setdefault(result.bucket, []).append(result.name)
        try:
            for bucket, names in buckets.items():
                objects.delete(self._call.settings, bucket, names, deadline)
        except ServiceError as error:
            # No error of Storage ends the deletion: the ledger sees which results are left.
            return self._failure("retry", error)
        return Outcome(outcome="deleted")

    def _progress(self, work: Work) -> Outcome:
        """The outcome for a run, task or job that exists."""
        match work.state:
            case "succeeded":
                return Outcome(outcome="succeeded", ittybit_id=work.ref, outputs=list(work.outputs))
            case "failed":
                cause = work.error or next((task.error for task in work.tasks if task.error), None)
                error = self._call.quote(cause.kind, cause.message) if cause else {}
                return Outcome(outcome="failed", ittybit_id=work.ref, error=error)
            case "ongoing":
                return Outcome(outcome="started", ittybit_id=work.ref, progress=work.progress)

    def _failure(self, outcome: str, error: ServiceError, **more: Any) -> Outcome:
        """The outcome of a step whose service failed."""
        quoted = {"service": error.service, "status": error.status, **self._call.quote(error.kind, error.message)}
        fields = {"reason": error.reason, "error": quoted, "retry_after": error.retry_after}
        return Outcome.model_validate({"outcome": outcome, **fields, **more})
