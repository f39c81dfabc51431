"""The bodies of the functions' answers, for the OpenAPI document; the functions themselves write plain JSON."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, create_model

from shared.errors import Service
from shared.ittybit_shapes import Connection

EXACTLY = ConfigDict(extra="forbid")


class Exact(BaseModel):
    """An object of exactly these fields."""

    model_config = EXACTLY


class Started(Exact):
    """The run or task at ittybit."""

    id: str
    status: str = Field(description="ittybit's own word for how far it is.")


class RunStarted(Exact):
    """A person's automation runs."""

    outcome: Literal["started"]
    run: Started


class TaskStarted(Exact):
    """A person's task was made."""

    outcome: Literal["started"]
    task: Started


class ServiceFault(Exact):
    """What a service said, or what happened to the call."""

    service: Service
    status: int | None = Field(description="Its HTTP status; null when it gave no answer.")
    kind: str | None = Field(description="Its own word for the error.")
    message: str


class WorkFault(Exact):
    """Why ittybit failed at the work, in its own words."""

    kind: str | None
    message: str


class NoFault(Exact):
    """ittybit gave no reason."""


class Moved(Exact):
    """A job of the ledger was moved on; this is what was reported to the ledger."""

    job: UUID
    outcome: Literal["started", "succeeded", "failed", "skipped", "retry", "hold", "undecided"]
    ittybit_id: str = ""
    reason: str = ""
    error: ServiceFault | WorkFault | NoFault = NoFault()


class NotMoved(Exact):
    """The attempt was not the caller's to make, or not now."""

    job: UUID
    outcome: Literal["nothing to do"]
    reason: str


class Skipped(Exact):
    """There is nothing to do, and that is in order."""

    outcome: Literal["skipped"]
    reason: str
    detail: str = ""


class FieldFault(Exact):
    """What is wrong with one field of the request."""

    field: str
    message: str


class Problem(Exact):
    """An error, as RFC 9457 has it."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str = Field(description="What is wrong, and what to do about it.")
    id: str = Field(description="Names the call in the log; the job's id where there is one.")
    errors: list[FieldFault] = []
    upstream: ServiceFault | None = Field(default=None, description="The service that did not do its part.")


# ittybit's connection without its secret.
Shown: type[BaseModel] = create_model(
    "Connection",
    __config__=EXACTLY,
    __doc__="The project's S3 keys at ittybit, without the secret.",
    **{name: (field.annotation, ...) for name, field in Connection.model_fields.items() if name != "secret_access_key"},
)  # type: ignore[call-overload] # its fields are known when it runs


class Registered(Exact):
    """The connection is what was asked for."""

    outcome: Literal["created", "unchanged", "replaced"]
    connection: Shown  # type: ignore[valid-type] # made above
