"""push-back: make a task, or a run of several, whose output ittybit writes back into the bucket.

Called by   the database (pg_net), people, schedulers
Proof       Standard Webhooks signature with FUNCTIONS_SECRET, or FUNCTIONS_TOKEN as a bearer token
Takes       {"type": "jobs.due"}                                     there is work: claim what is due and do it
            {"bucket", "name", "kind", "options", "destination"}     a person's: make this task now; its output goes to
                                                                     s3://bucket/key, under an output prefix
            {"bucket", "name", "tasks": [{"kind", "options", "next"}]}
                                                                     a person's: run these tasks now; a task of kind
                                                                     upload has such a destination in options.url
Answers     202 started, 200 done or nothing to do, 4xx and 503 as application/problem+json
Deployed    ./deploy.sh stage push-back; target push_back
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import functions_framework
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from shared import objects, settings, worker
from shared.edge import Answer, Call, endpoint
from shared.errors import Refused
from shared.ittybit import Ittybit
from shared.ittybit_models import Action, Run, Task

SETTINGS = settings.load()
MAX_STEPS = 64


class PushBackRequest(BaseModel):
    """A person's own request: make one task of one object, its output written to the destination."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bucket: objects.Bucket
    name: objects.ObjectKey
    kind: objects.Kind
    options: objects.Options = {}
    destination: objects.Destination


class UploadOptions(BaseModel):
    """Where an upload goes, through the project's connection where none is named."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: objects.Destination
    connection_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")] | None = None


class Upload(BaseModel):
    """Write the output of the task before it into a bucket."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["upload"]
    options: UploadOptions


class Encode(BaseModel):
    """A task of any other kind, and those that work on its output."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Annotated[objects.Kind, Field(json_schema_extra={"not": {"const": "upload"}})]
    options: objects.Options = {}
    next: list[AnyStep] = []


def _step(step: Any) -> str:
    kind = step.get("kind") if isinstance(step, dict) else getattr(step, "kind", None)
    return "<upload>" if kind == "upload" else "<encode>"


AnyStep = Annotated[
    Annotated[Upload, Tag("<upload>")] | Annotated[Encode, Tag("<encode>")],
    Discriminator(_step),
]
Encode.model_rebuild()


def _not_too_many(steps: list[Upload | Encode]) -> list[Upload | Encode]:
    def count(steps: list[Upload | Encode]) -> int:
        return sum(1 + count(step.next) if isinstance(step, Encode) else 1 for step in steps)

    if count(steps) > MAX_STEPS:
        raise ValueError(f"a run has at most {MAX_STEPS} steps")
    return steps


class RunRequest(BaseModel):
    """A person's own request: run tasks on one object, their output written where their uploads say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bucket: objects.Bucket
    name: objects.ObjectKey
    tasks: Annotated[list[AnyStep], Field(min_length=1), AfterValidator(_not_too_many)]


def _kind(body: Any) -> str:
    fields = body if isinstance(body, dict) else {}
    return "<wake-up>" if "type" in fields else "<run>" if "tasks" in fields else "<request>"


Body = Annotated[
    Annotated[worker.WakeUp, Tag("<wake-up>")]
    | Annotated[RunRequest, Tag("<run>")]
    | Annotated[PushBackRequest, Tag("<request>")],
    Discriminator(_kind),
]


@functions_framework.http
@endpoint(SETTINGS, Body)
def push_back(body: worker.WakeUp | RunRequest | PushBackRequest, call: Call) -> Answer:
    """Do what is due, or make a task or a run for a person."""
    if isinstance(body, worker.WakeUp):
        return worker.drain("push-back", call)
    if isinstance(body, RunRequest):
        action = Action(run=Run.model_validate(body.model_dump(include={"tasks"}, exclude_none=True)))
        destinations = list(_uploads("tasks", body.tasks))
    else:
        action = Action(task=Task(kind=body.kind, options=body.options, destination=body.destination))
        destinations = [("destination", body.destination)]
    _check(destinations, body.bucket, body.name)
    call.note(bucket=body.bucket, name=body.name, destinations=[destination for _, destination in destinations])
    source = objects.signed_address(call.settings, body.bucket, body.name, call.id, call.deadline)
    work = Ittybit(call.settings, call.deadline).start(action, source, call.id, bucket=body.bucket, name=body.name)
    return Answer(202, {"outcome": "started", **work.shown})


def _uploads(place: str, steps: Sequence[Upload | Encode]) -> Iterator[tuple[str, str]]:
    """Each upload's field and destination."""
    for number, step in enumerate(steps):
        if isinstance(step, Upload):
            yield f"{place}.{number}.options.url", step.options.url
        else:
            yield from _uploads(f"{place}.{number}.next", step.next)


def _check(destinations: Sequence[tuple[str, str]], source_bucket: str, source_name: str) -> None:
    """Refuse results outside the buckets and prefixes that they may go to, and two in one place or the source's."""
    seen = set()
    for field, destination in destinations:
        bucket, key = objects.split_destination(destination)
        if bucket not in (source_bucket, *SETTINGS.destination_buckets):
            reason = f"bucket {bucket!r} is neither the object's own nor one of DESTINATION_BUCKETS"
        elif not key.startswith(SETTINGS.output_prefixes):
            reason = f"the key must be under one of OUTPUT_PREFIXES: {', '.join(SETTINGS.output_prefixes)}"
        elif (bucket, key) == (source_bucket, source_name):
            reason = "it is the object itself, which would be overwritten"
        elif destination in seen:
            reason = "another upload of this run writes it as well"
        else:
            seen.add(destination)
            continue
        raise Refused(422, f"{field}: {reason}", fields=((field, reason),))
