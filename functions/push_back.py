"""push-back: make a task whose output ittybit writes back into the bucket.

Called by   the database (pg_net), people, schedulers
Proof       Standard Webhooks signature with FUNCTIONS_SECRET, or FUNCTIONS_TOKEN as a bearer token
Takes       {"type": "jobs.due"}                                     there is work: claim what is due and do it
            {"bucket", "name", "kind", "options", "destination"}     a person's: make this task now; its output goes to
                                                                     s3://bucket/key, under an output prefix
Answers     202 started, 200 done or nothing to do, 4xx and 503 as application/problem+json
Deployed    ./deploy.sh stage push-back; target push_back
"""

from __future__ import annotations

from typing import Annotated, Any

import functions_framework
from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from shared import jobs, objects, settings
from shared.edge import Answer, Call, endpoint
from shared.errors import Refused
from shared.ittybit import Ittybit
from shared.ittybit_shapes import Action, Task

SETTINGS = settings.load()


class PushBackRequest(BaseModel):
    """A person's own request: make one task of one object, its output written to the destination."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bucket: objects.Bucket
    name: objects.ObjectKey
    kind: objects.Kind
    options: objects.Options = {}
    destination: objects.Destination


def _kind(body: Any) -> str:
    return "<wake-up>" if isinstance(body, dict) and "type" in body else "<request>"


Body = Annotated[
    Annotated[jobs.WakeUp, Tag("<wake-up>")] | Annotated[PushBackRequest, Tag("<request>")],
    Discriminator(_kind),
]


@functions_framework.http
@endpoint(SETTINGS, Body)
def push_back(body: jobs.WakeUp | PushBackRequest, call: Call) -> Answer:
    """Do what is due, or make a task for a person."""
    if isinstance(body, jobs.WakeUp):
        return jobs.drain("push-back", call)
    _check_destination(body)
    call.note(bucket=body.bucket, name=body.name, destination=body.destination)
    source = objects.signed_address(call.settings, body.bucket, body.name, call.id, call.deadline)
    action = Action(task=Task(kind=body.kind, options=body.options, destination=body.destination))
    work = Ittybit(call.settings, call.deadline).start(action, source, call.id, bucket=body.bucket, name=body.name)
    return Answer(202, {"outcome": "started", **work.shown})


def _check_destination(body: PushBackRequest) -> None:
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
