"""push-back: make a task whose output ittybit writes back into the bucket.

Called by   the database's trigger and sender (pg_net), people, schedulers
Proof       Standard Webhooks signature with FUNCTIONS_SECRET, or FUNCTIONS_TOKEN as a bearer token
Takes       {"job", "attempt"}                                       a job of the ledger: one step of it
            {"bucket", "name", "kind", "options", "destination"}     a person's: make this task now; its output goes to
                                                                     s3://bucket/key, under an output prefix
Answers     202 started, 200 done or nothing to do, 4xx and 503 as application/problem+json
Deployed    ./deploy.sh stage push-back; target push_back
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import functions_framework
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from shared import jobs, objects, settings
from shared.edge import Answer, Call, endpoint
from shared.errors import Refused, ServiceError
from shared.ittybit import Ittybit
from shared.ittybit_shapes import Work
from shared.ledger import Message, Start, TaskAction

SETTINGS = settings.load()


def _finite(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse what pydantic reads as JSON and ittybit would not: NaN and the infinities, wherever in it they are."""
    json.dumps(options, allow_nan=False)
    return options


class TaskRequest(BaseModel):
    """A person's own request: make one task of one object, its output written to the destination."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bucket: objects.Bucket
    name: objects.ObjectKey
    kind: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
    options: Annotated[dict[str, Any], AfterValidator(_finite)] = {}
    destination: objects.Destination


def _kind(body: Any) -> str:
    return "<job>" if isinstance(body, dict) and "job" in body else "<request>"


Body = Annotated[
    Annotated[Message, Tag("<job>")] | Annotated[TaskRequest, Tag("<request>")],
    Discriminator(_kind),
]


@functions_framework.http
@endpoint(SETTINGS, Body)
def push_back(body: Message | TaskRequest, call: Call) -> Answer:
    """Move a job on, or make a task for a person."""
    if isinstance(body, Message):
        return jobs.move(body, call, begin=_begin, adopt=_id_of, look=Ittybit.task)

    _check_destination(body)
    call.note(bucket=body.bucket, name=body.name, destination=body.destination)
    source = objects.signed_address(call.settings, body.bucket, body.name, call.id, call.deadline)
    ittybit = Ittybit(call.settings, call.deadline)
    action = TaskAction(kind=body.kind, options=body.options, destination=body.destination)
    task = _make(ittybit, source, action, call.id)
    return Answer(202, {"outcome": "started", "task": {"id": task.id, "status": task.status}})


def _check_destination(body: TaskRequest) -> None:
    """Refuse a result outside the buckets and prefixes that results may go to, or in the place of its source."""
    bucket, key = objects.split_destination(body.destination)
    if bucket not in (body.bucket, *SETTINGS.destination_buckets):
        reason = f"bucket {bucket!r} is neither the object's own nor one of DESTINATION_BUCKETS"
    elif not key.startswith(SETTINGS.output_prefixes):
        reason = f"the key must be under one of OUTPUT_PREFIXES: {', '.join(SETTINGS.output_prefixes)}"
    elif (bucket, key) == (body.bucket, body.name):
        reason = "it is the object itself, which would be overwritten"
    else:
        return
    raise Refused(422, f"destination: {reason}", fields=(("destination", reason),))


def _begin(ittybit: Ittybit, start: Start, source: str) -> Work:
    if start.task is None:
        raise ServiceError(
            "ledger", "the job runs an automation: ittybit.settings has the functions' addresses mixed up"
        )
    return _make(ittybit, source, start.task, start.mark)


def _make(ittybit: Ittybit, source: str, action: TaskAction, mark: str) -> Work:
    connection_id = SETTINGS.ittybit_connection_id or _connection(ittybit)
    return ittybit.create_task(
        action.kind,
        source,
        action.options,
        connection_id=connection_id,
        destination=action.destination,
        mark=mark,
    )


def _connection(ittybit: Ittybit) -> str:
    """The connection that create-connection made for this project."""
    name = f"supabase-{SETTINGS.project_ref}"
    for connection in ittybit.connections():
        if connection.name == name:
            return connection.id
    raise ServiceError("ittybit", f"no connection {name!r}: call create-connection once", effect="hold")


def _id_of(task: Work) -> str | None:
    return task.id
