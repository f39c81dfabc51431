"""One step of a job from the ledger: claim it, start it or check on it, report what came of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared import ledger, objects
from shared.edge import Answer, Call
from shared.errors import ServiceError, Skipped, Unanswered, Undecided
from shared.ittybit import Ittybit
from shared.ittybit_shapes import Work
from shared.ledger import Message, Report, Start

# Kept back from the deadline, so that whatever ittybit does there is time to report it.
REPORTING_SECONDS = 2.0


def move(
    message: Message,
    call: Call,
    *,
    begin: Callable[[Ittybit, Start, str], Work],
    adopt: Callable[[Work], str | None],
    look: Callable[[Ittybit, str], Work],
) -> Answer:
    """Move a job one step on.

    Args:
        message: the attempt that the database sent.
        call: the invocation.
        begin: start the job's action on the source's address.
        adopt: the id that ``look`` takes, of a task that an earlier attempt turns out to have started.
        look: fetch the run or task.

    Raises:
        ServiceError: the ledger could not be reached; the job is sent again when its lease ends.
    """
    call.id = str(message.job)
    call.note(attempt=message.attempt)
    step = ledger.claim(call.settings, message, call.deadline)
    if isinstance(step, ledger.Refusal):
        return Answer(200, {"job": call.id, "outcome": "nothing to do", "reason": step.reason})

    ittybit = Ittybit(call.settings, call.deadline.reserving(REPORTING_SECONDS))
    if isinstance(step, Start):
        report = _start(step, call, ittybit, begin, adopt)
    else:
        report = _check(step.ittybit_id, call, ittybit, look)
    ledger.report(call.settings, message, report, call.deadline)
    told = report.model_dump(include={"outcome", "ittybit_id", "reason", "error"}, exclude_none=True)
    return Answer(202 if report.outcome == "started" else 200, {"job": call.id, **told})


def _start(
    start: Start,
    call: Call,
    ittybit: Ittybit,
    begin: Callable[[Ittybit, Start, str], Work],
    adopt: Callable[[Work], str | None],
) -> Report:
    if start.look_since is not None and (settled := _look_for(start, start.look_since, call, ittybit, adopt)):
        return settled
    if start.otherwise is not None:
        return Report(outcome=start.otherwise.outcome, reason=start.otherwise.reason)
    try:
        work = begin(ittybit, start, _source(start, call))
    except Skipped as skipped:
        return Report(outcome="skipped", reason=skipped.reason)
    except ServiceError as error:
        outcome = {"retry": "retry", "hold": "hold", "fail": "failed"}[error.effect]
        return Report.model_validate({"outcome": outcome, "in_doubt": error.in_doubt, **_details(error, call)})
    if work.state == "succeeded":
        # The first check fetches the outputs as well.
        return Report(outcome="started", ittybit_id=work.id)
    return _progress(work, call)


def _look_for(
    start: Start, since: datetime, call: Call, ittybit: Ittybit, adopt: Callable[[Work], str | None]
) -> Report | None:
    """Find what an earlier attempt may have started; None when it certainly started nothing."""
    try:
        task = ittybit.find_task(start.mark, since, start.now)
        if task is None:
            return None
        if (ittybit_id := adopt(task)) is None:
            # Bought it is: it must not be bought again because the answer does not name it.
            raise Unanswered("ittybit", "the task that an earlier attempt started does not say its run")
        return Report(outcome="started", ittybit_id=ittybit_id)
    except Undecided as error:
        return Report.model_validate({"outcome": "undecided", "in_doubt": True, **_details(error, call)})
    except ServiceError as error:
        # Whatever is wrong with looking says nothing about the job.
        outcome = "hold" if error.effect == "hold" else "retry"
        return Report.model_validate({"outcome": outcome, "in_doubt": True, **_details(error, call)})


def _source(start: Start, call: Call) -> str:
    if start.public:
        return objects.public_address(call.settings.supabase_url, start.bucket, start.name, start.mark)
    deadline = call.deadline.reserving(REPORTING_SECONDS)
    return objects.signed_address(call.settings, start.bucket, start.name, start.mark, deadline)


def _check(ittybit_id: str, call: Call, ittybit: Ittybit, look: Callable[[Ittybit, str], Work]) -> Report:
    try:
        work = look(ittybit, ittybit_id)
    except ServiceError as error:
        if error.effect == "fail":
            return Report.model_validate({"outcome": "failed", "ittybit_id": ittybit_id, **_details(error, call)})
        return Report.model_validate({"outcome": "retry", **_details(error, call)})
    return _progress(work.model_copy(update={"id": ittybit_id}), call)


def _progress(work: Work, call: Call) -> Report:
    """What a run or task that exists comes to."""
    match work.state:
        case "succeeded":
            return Report(outcome="succeeded", ittybit_id=work.id, outputs=list(work.outputs))
        case "failed":
            fault = work.error or next((task.error for task in work.tasks if task.error), None)
            error = call.told(fault.kind, fault.message) if fault else {}
            return Report(outcome="failed", ittybit_id=work.id, error=error)
        case "ongoing":
            return Report(outcome="started", ittybit_id=work.id, progress=work.progress)


def _details(error: ServiceError, call: Call) -> dict[str, Any]:
    return {
        "error": {"service": error.service, "status": error.status, **call.told(error.kind, error.message)},
        "retry_after": error.retry_after,
    }
