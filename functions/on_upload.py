"""on-upload: run an ittybit automation on a stored object, or make a task whose result stays at ittybit.

Called by   the database (pg_net), people, schedulers; in plain mode a Dashboard webhook
Auth        Standard Webhooks signature with FUNCTIONS_SECRET, or FUNCTIONS_TOKEN as a bearer token
Takes       {"type": "jobs.due"}                    wake-up: claim the due jobs and do their next steps
            {"bucket", "name", "automation_id"}     run this automation on this object now, without a rule
            {"bucket", "name", "kind", "options"}   make this task of this object now, without a rule
            {"type", "record", "old_record", …}     plain mode: the body of a Database Webhook on storage.objects
Answers     202 started, 200 done or nothing to do, 4xx and 503 as application/problem+json
Deployed    ./deploy.sh stage on-upload; target on_upload
"""

from __future__ import annotations

from typing import Annotated, Any

import functions_framework
from pydantic import Discriminator, Field, Tag

from shared import database_webhook, objects, settings, worker
from shared.edge import MAX_BODY_BYTES, Answer, Call, endpoint
from shared.errors import Refused
from shared.ittybit import Ittybit
from shared.ittybit_models import Action, Task

SETTINGS = settings.load()


class RunRequest(objects.ObjectRequest):
    """A person's request: run an automation on one object now."""

    automation_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class TaskRequest(objects.ObjectRequest):
    """A person's request: make one task of one object now; its result stays at ittybit."""

    kind: objects.Kind
    options: objects.Options = Field({})


def _kind(body: Any) -> str:
    fields = body if isinstance(body, dict) else {}
    if "record" in fields:
        return "<webhook>"
    return "<wake-up>" if "type" in fields else "<task>" if "kind" in fields else "<run>"


Body = Annotated[
    Annotated[worker.WakeUp, Tag("<wake-up>")]
    | Annotated[RunRequest, Tag("<run>")]
    | Annotated[TaskRequest, Tag("<task>")]
    | Annotated[database_webhook.ObjectEvent, Tag("<webhook>")],
    Discriminator(_kind),
]


@functions_framework.http
@endpoint(SETTINGS, Body, max_body=database_webhook.MAX_EVENT_BYTES if SETTINGS.watch_bucket else MAX_BODY_BYTES)
def on_upload(body: worker.WakeUp | RunRequest | TaskRequest | database_webhook.ObjectEvent, call: Call) -> Answer:
    """Drain the due jobs, or start an action for a person or for a plain-mode webhook."""
    if isinstance(body, worker.WakeUp):
        return worker.drain("on-upload", call)
    if isinstance(body, database_webhook.ObjectEvent):
        stored = database_webhook.check(body, SETTINGS)
        # A duplicate delivery carries the same version, and so gets the same Idempotency-Key.
        mark = stored.version or call.id
        version = {"version": stored.version} if stored.version else {}
        action = Action(automation_id=SETTINGS.ittybit_automation_id)
        return _start(stored.bucket_id, stored.name, action, mark, call, **version)
    if call.body_bytes > MAX_BODY_BYTES:
        raise Refused(413, f"The body is over {MAX_BODY_BYTES} bytes.")
    if isinstance(body, RunRequest):
        action = Action(automation_id=body.automation_id)
    else:
        action = Action(task=Task(kind=body.kind, options=body.options))
    return _start(body.bucket, body.name, action, call.id, call)


def _start(bucket: str, name: str, action: Action, mark: str, call: Call, **metadata: str) -> Answer:
    """Start an action that has no job in the ledger; the mark is the start's Idempotency-Key."""
    call.note(bucket=bucket, name=name)
    source = objects.signed_address(call.settings, bucket, name, mark, call.deadline)
    ittybit = Ittybit(call.settings, call.deadline)
    work = ittybit.start(action, source, mark, bucket=bucket, name=name, **metadata)
    return Answer(202, {"outcome": "started", **work.shown})
