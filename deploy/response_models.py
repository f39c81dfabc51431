"""The bodies of the functions' answers, for the OpenAPI document; the functions themselves write plain JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from shared.errors import Service
from shared.ittybit_models import Connection

EXACTLY = ConfigDict(extra="forbid")


class Exact(BaseModel):
    """An object of exactly these fields."""

    model_config = EXACTLY


class Started(Exact):
    """The run, task or job at ittybit."""

    id: str
    status: str = Field(description="ittybit's own word for how far it is.")


class RunStarted(Exact):
    """A person's automation or own tasks run, in the generation *automations*."""

    outcome: Literal["started"]
    run: Started


class TaskStarted(Exact):
    """A person's task was made, in the generation *automations*."""

    outcome: Literal["started"]
    task: Started


class JobStarted(Exact):
    """A person's task was made, in the generation *jobs*."""

    outcome: Literal["started"]
    job: Started


class ServiceFault(Exact):
    """A service's error, or the failure of the call."""

    service: Service
    status: int | None = Field(description="Its HTTP status; null when it gave no answer.")
    kind: str | None = Field(description="Its own word for the error.")
    message: str


class Drained(Exact):
    """The answer to a wake-up: how many jobs were claimed, and how many steps had each outcome."""

    claimed: int = Field(description="0 when nothing was due.")
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    retry: int = 0
    hold: int = 0
    undecided: int = 0
    deleted: int = 0
    lost: int = Field(
        default=0, description="Nobody knows what they came to: they are due again when their leases end."
    )
    busy: bool = Field(default=False, description="As many drains as there may be are at it already.")


class Skipped(Exact):
    """There is nothing to do, and that is in order."""

    outcome: Literal["skipped"]
    reason: str
    detail: str = ""


class FieldFault(Exact):
    """The error of one field of the request."""

    field: str
    message: str


class Problem(Exact):
    """An error, as RFC 9457 has it."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str = Field(description="What is wrong, and what to do about it.")
    id: str = Field(description="Names the call in the log.")
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
