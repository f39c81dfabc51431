"""push-back: make a task or a run whose outputs ittybit writes into a bucket, and delete outputs with their source.

Called by   the database (pg_net), people, schedulers
Auth        Standard Webhooks signature with FUNCTIONS_SECRET, or FUNCTIONS_TOKEN as a bearer token
Takes       {"type": "jobs.due"}                                     wake-up: claim the due jobs and do their next steps
            {"bucket", "name", "kind", "options", "destination"}     make this task now, without a rule; its output goes
                                                                     to s3://bucket/key, under an output prefix
            {"bucket", "name", "tasks": [{"kind", "options", "next"}]}
                                                                     run these tasks now, without a rule; an upload task
                                                                     has its destination in options.url
Answers     202 started, 200 done or nothing to do, 4xx and 503 as application/problem+json
Deployed    ./deploy.sh stage push-back; target push_back
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import functions_framework
from pydantic import Discriminator, Field, Tag

from shared import objects, settings, steps, worker
from shared.edge import Answer, Call, endpoint
from shared.errors import Refused
from shared.ittybit import Ittybit
from shared.ittybit_models import Action, Run, Task

SETTINGS = settings.load()


class PushBackRequest(objects.ObjectRequest):
    """A person's request: make one task of one object; its output goes to the destination."""

    kind: objects.Kind
    options: objects.Options = Field({})
    destination: objects.Destination


class RunRequest(objects.ObjectRequest):
    """A person's request: run tasks on one object; each upload names where an output goes."""

    tasks: steps.Steps


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
    """Do the next steps of the due jobs, or make a task or a run for a person."""
    if isinstance(body, worker.WakeUp):
        return worker.drain("push-back", call)
    if isinstance(body, RunRequest):
        action = Action(run=Run.model_validate(body.model_dump(include={"tasks"})))
        destinations = list(steps.uploads("tasks", body.tasks))
    else:
        action = Action(task=Task(kind=body.kind, options=body.options, destination=body.destination))
        destinations = [("destination", body.destination)]
    _check(destinations, body.bucket, body.name)
    call.note(bucket=body.bucket, name=body.name, destinations=[destination for _, destination in destinations[:10]])
    source = objects.signed_address(call.settings, body.bucket, body.name, call.id, call.deadline)
    work = Ittybit(call.settings, call.deadline).start(action, source, call.id, bucket=body.bucket, name=body.name)
    return Answer(202, {"outcome": "started", **work.shown})


def _check(destinations: Sequence[tuple[str, str]], source_bucket: str, source_name: str) -> None:
    """Refuse a destination outside the allowed buckets and prefixes, one that is named twice, and the source itself."""
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
