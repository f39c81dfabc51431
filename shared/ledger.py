"""The ledger in the project's database, through its two RPCs (supabase/migrations/*_work.sql)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from shared.errors import Unanswered
from shared.http import Deadline, send
from shared.ittybit_models import Action, Searched
from shared.settings import Settings

FunctionName = Literal["on-upload", "push-back"]


class Outcome(BaseModel):
    """The outcome of an attempt."""

    outcome: Literal["started", "succeeded", "failed", "skipped", "retry", "hold", "undecided", "deleted"]
    ittybit_id: str | None = None
    progress: float | None = None
    outputs: list[str] | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    retry_after: int | None = None
    in_doubt: bool = False
    searched: Searched | None = None


class Lease(BaseModel):
    """A claimed job: nobody else gets it while the lease lasts.

    Attributes:
        attempt: the claim's number, which its report repeats.
    """

    job: UUID
    generation: int
    attempt: int


class Start(Lease):
    """Start the job's action on its object.

    Attributes:
        mark: goes into the source's address, and is the Idempotency-Key.
        version: the object's version in Storage, if it has one.
        public: whether the bucket is public.
    """

    step: Literal["start"]
    mark: str
    bucket: str
    name: str
    version: str | None = None
    public: bool
    action: Action

    @property
    def metadata(self) -> dict[str, str]:
        """What is sent to ittybit about the object."""
        return {"bucket": self.bucket, "name": self.name, **({"version": self.version} if self.version else {})}


class Search(Lease):
    """Search ittybit's list for a start of the job that may have happened.

    Attributes:
        mark: the start's mark.
        since: when the start was claimed, by the ledger's clock.
        now: when the search was claimed, by the same clock.
        searched: how far earlier attempts have searched.
    """

    step: Literal["search"]
    mark: str
    action: Action
    since: AwareDatetime
    now: AwareDatetime
    searched: Searched

    @property
    def left(self) -> timedelta:
        """How much of the list is left, in time, up to a constant: ittybit's clock may be another."""
        return (self.searched.oldest or self.now) - self.since


class Check(Lease):
    """Ask ittybit for the state of the job's run, task or job."""

    step: Literal["check"]
    ittybit_id: str


class Result(BaseModel):
    """A stored result."""

    bucket: str = Field(validation_alias="bucket_id")
    name: str


class Delete(Lease):
    """Delete results of the job: its object was deleted, and its rule says ``delete_results``.

    Attributes:
        results: 250 at most. At the claim, each was still as ittybit had written it.
    """

    step: Literal["delete"]
    results: list[Result]


Step = Start | Search | Check | Delete


class Report(Outcome, Lease):
    """An attempt and its outcome."""

    @classmethod
    def of(cls, lease: Lease, outcome: Outcome) -> Report:
        """Join the attempt and its outcome."""
        return cls(job=lease.job, generation=lease.generation, attempt=lease.attempt, **outcome.model_dump())


class Claimed(BaseModel):
    """What a claim leased.

    Attributes:
        jobs: what to do with each job.
        more: whether other jobs may be due now.
    """

    jobs: list[Annotated[Step, Field(discriminator="step")]]
    more: bool


def claim(
    settings: Settings, function: FunctionName, jobs: int, reports: Sequence[Report], deadline: Deadline
) -> Claimed:
    """Apply the reports, then lease up to ``jobs`` due jobs of a function, 1 to 100.

    A claim whose answer is lost is not repeated: it may have leased jobs. Their leases end, and they are due again.

    Raises:
        ServiceError: the ledger did not answer, or belongs to another project.
    """
    body = {
        "function": function,
        "project": settings.supabase_url,
        "jobs": jobs,
        "reports": [one.model_dump(mode="json", exclude_defaults=True) for one in reports],
    }
    answer = _call(settings, "ittybit_claim", body, deadline, repeatable=False)
    try:
        return Claimed.model_validate(answer)
    except ValidationError:
        raise Unanswered("ledger", "the claim's answer has another shape: apply the newest migrations") from None


def report(settings: Settings, reports: Sequence[Report], deadline: Deadline) -> None:
    """Record outcomes; a report sent twice counts once. The ledger wakes the function if more is due.

    Raises:
        ServiceError: the ledger did not answer.
    """
    body = {"reports": [one.model_dump(mode="json", exclude_defaults=True) for one in reports]}
    _call(settings, "ittybit_report", body, deadline, repeatable=True)


def _call(settings: Settings, function: str, body: dict[str, Any], deadline: Deadline, *, repeatable: bool) -> Any:
    url = f"{settings.supabase_url}/rest/v1/rpc/{function}"
    headers = settings.supabase_headers
    return send("ledger", "POST", url, deadline=deadline, headers=headers, body=body, repeatable=repeatable).data
