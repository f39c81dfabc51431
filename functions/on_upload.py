"""on-upload: an object was stored, so run an ittybit automation on it.

Called by   the database's trigger and sender (pg_net), people, schedulers; in plain mode a Dashboard webhook
Proof       Standard Webhooks signature with FUNCTIONS_SECRET, or FUNCTIONS_TOKEN as a bearer token
Takes       {"job", "attempt"}                      a job of the ledger: one step of it
            {"bucket", "name", "automation_id"}     a person's: run this automation on this object now
            {"type", "record", "old_record", …}     plain mode: the body of a Database Webhook on storage.objects
Answers     202 started, 200 done or nothing to do, 4xx and 503 as application/problem+json
Deployed    ./deploy.sh stage on-upload; target on_upload
"""

from __future__ import annotations

from typing import Annotated, Any

import functions_framework
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from shared import jobs, objects, plain_mode, settings
from shared.edge import MAX_BODY_BYTES, Answer, Call, endpoint
from shared.errors import Refused, ServiceError
from shared.ittybit import Ittybit
from shared.ittybit_shapes import Work
from shared.ledger import Message, Start

SETTINGS = settings.load()


class RunRequest(BaseModel):
    """A person's own request: run an automation on one object now."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bucket: objects.Bucket
    name: objects.ObjectKey
    automation_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


def _kind(body: Any) -> str:
    if isinstance(body, dict) and "job" in body:
        return "<job>"
    return "<webhook>" if isinstance(body, dict) and "record" in body else "<request>"


Body = Annotated[
    Annotated[Message, Tag("<job>")]
    | Annotated[RunRequest, Tag("<request>")]
    | Annotated[plain_mode.ObjectEvent, Tag("<webhook>")],
    Discriminator(_kind),
]


@functions_framework.http
@endpoint(SETTINGS, Body, max_body=plain_mode.max_body(SETTINGS))
def on_upload(body: Message | RunRequest | plain_mode.ObjectEvent, call: Call) -> Answer:
    """Move a job on, or start a run for a person or for a plain webhook."""
    if isinstance(body, Message):
        return jobs.move(body, call, begin=_begin, adopt=_run_of, look=Ittybit.run)
    if isinstance(body, plain_mode.ObjectEvent):
        stored = plain_mode.check(body, SETTINGS)
        # The same delivery twice carries the same version, and so the same Idempotency-Key.
        mark = stored.version or call.id
        return _run(stored.bucket_id, stored.name, SETTINGS.ittybit_automation_id or "", mark, call)
    if call.body_bytes > MAX_BODY_BYTES:
        raise Refused(413, f"The body is over {MAX_BODY_BYTES} bytes.")
    return _run(body.bucket, body.name, body.automation_id, call.id, call)


def _run(bucket: str, name: str, automation_id: str, mark: str, call: Call) -> Answer:
    """Start a run that the ledger knows nothing of."""
    call.note(bucket=bucket, name=name)
    source = objects.signed_address(call.settings, bucket, name, mark, call.deadline)
    run = Ittybit(call.settings, call.deadline).run_automation(automation_id, source, mark)
    return Answer(202, {"outcome": "started", "run": {"id": run.id, "status": run.status}})


def _begin(ittybit: Ittybit, start: Start, source: str) -> Work:
    if start.automation_id is None:
        raise ServiceError("ledger", "the job makes a task: ittybit.settings has the functions' addresses mixed up")
    return ittybit.run_automation(start.automation_id, source, start.mark)


def _run_of(task: Work) -> str | None:
    return task.run_id
