"""The ledger in the project's database, through its two RPCs (supabase/migrations/*_rpc.sql)."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.errors import Unanswered
from shared.outbound import Deadline, send
from shared.settings import Settings


class Message(BaseModel):
    """What the database sends: one attempt of one job, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    job: UUID
    attempt: Annotated[int, Field(ge=1, lt=2**31)]


class Refusal(BaseModel):
    """The attempt is not ours, or not now."""

    claimed: Literal[False]
    reason: str


class TaskAction(BaseModel):
    """The task that a rule asks for, its destination filled in for this object."""

    kind: str
    options: dict[str, Any] = {}
    destination: str


class Otherwise(BaseModel):
    """What to report when looking has found nothing and the job is not to be started."""

    outcome: Literal["skipped", "retry"]
    reason: str


class Start(BaseModel):
    """Start the job's action on its object.

    Attributes:
        mark: goes into the source's address, and is the Idempotency-Key.
        look_since: set when an attempt since then may have started it already: look first.
        now: when it was claimed, by the same clock.
        otherwise: set when it is only to be looked for.
        public: whether the bucket is public.
    """

    claimed: Literal[True]
    step: Literal["start"]
    mark: str
    look_since: AwareDatetime | None
    now: AwareDatetime
    otherwise: Otherwise | None = None
    bucket: str
    name: str
    public: bool
    automation_id: str | None
    task: TaskAction | None


class Check(BaseModel):
    """See how far the job's run or task is."""

    claimed: Literal[True]
    step: Literal["check"]
    ittybit_id: str


class Report(BaseModel):
    """What an attempt came to; the fields are the RPC's parameters."""

    outcome: Literal["started", "succeeded", "failed", "skipped", "retry", "hold", "undecided"]
    ittybit_id: str | None = None
    progress: float | None = None
    outputs: list[str] | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    retry_after: int | None = None
    in_doubt: bool = False


_claim = TypeAdapter[Refusal | Start | Check](Refusal | Start | Check)


def claim(settings: Settings, message: Message, deadline: Deadline) -> Refusal | Start | Check:
    """Win the attempt and learn what to do, or learn why not.

    Not repeated when the answer is lost: the claim may have been won. The lease ends, and the next attempt looks.

    Raises:
        ServiceError: the ledger did not answer.
    """
    reply = _call(settings, "ittybit_claim", message.model_dump(mode="json"), deadline, repeatable=False)
    try:
        return _claim.validate_python(reply)
    except ValidationError:
        raise Unanswered("ledger", "the claim's answer has another shape: apply the newest migrations") from None


def report(settings: Settings, message: Message, outcome: Report, deadline: Deadline) -> None:
    """Record what the attempt came to; doing it twice is the same as once.

    Raises:
        ServiceError: the ledger did not answer.
    """
    body = message.model_dump(mode="json") | outcome.model_dump(exclude_none=True)
    _call(settings, "ittybit_report", body, deadline, repeatable=True)


def _call(settings: Settings, function: str, body: dict[str, Any], deadline: Deadline, *, repeatable: bool) -> Any:
    url = f"{settings.supabase_url}/rest/v1/rpc/{function}"
    headers = settings.supabase_headers
    return send("ledger", "POST", url, deadline=deadline, headers=headers, body=body, repeatable=repeatable).data
