"""``/jobs``, of the newer generation: one source and one pipeline a job.

Undocumented, so chosen here:

- Creating a job answers 201, as creating a task does.
- A job's connection is the first of these that is set: ``options.input_connection_id`` or
  ``options.output_connection_id``, ``options.connection_id``, ``connection_id``. The guides use all of them. Where a
  guide sets none, it is the only connection or, among several, the default one.
- ``output`` of a job that writes to S3 storage is its ``s3://`` address.
- ``{filename}`` in ``output`` is the source's name without its extension; ``{date}`` is the day in UTC.

Left out: ``webhook_url``, which is accepted but never called, and this generation's ``POST /tasks``.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, get_args

from flask import Blueprint, Response, request

from local.ittybit_server.addresses import Address
from local.ittybit_server.bodies import JobBody, check_destination, check_options, is_http, parse, read_json
from local.ittybit_server.errors import RequestError, find, invalid
from local.ittybit_server.job_serialization import JobRenderer, JobStatus
from local.ittybit_server.journal import Entry
from local.ittybit_server.paging import page
from local.ittybit_server.records import Job, Records, Task
from local.ittybit_server.starting import CREATED_BY_KEY, Starting, source_file

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def jobs(records: Records, renderer: JobRenderer, starting: Starting) -> Blueprint:
    """The routes of jobs."""
    part = Blueprint("jobs", __name__)

    @part.post("/jobs")
    def create_job() -> Response:
        body = parse(JobBody, read_json())

        def accept() -> Job:
            _check(body)
            return _make(records, body)

        return starting.start(Entry("POST /jobs", body.input, metadata=body.metadata), accept, renderer.job)

    @part.get("/jobs")
    def list_jobs() -> Response:
        status, kind, source = (request.args.get(name) for name in ("status", "kind", "input"))
        _check_filter("status", status, get_args(JobStatus))
        _check_filter("kind", kind, get_args(JobBody.model_fields["kind"].annotation))

        def keep(job: Job) -> bool:
            return (
                status in {None, renderer.status(job)}
                and kind in {None, job.tasks[0].kind}
                and source in {None, job.input}
            )

        with records.lock:
            shown, headers = page(records.jobs, keep)
            return renderer.answer_page(shown, renderer.job, headers)

    @part.get("/jobs/<job_id>")
    def get_job(job_id: str) -> Response:
        with records.lock:
            return renderer.answer(renderer.job(find("job", records.jobs, job_id)))

    return part


def _check(body: JobBody) -> None:
    """Check what the body's model cannot check."""
    if body.input.startswith("s3://"):
        check_destination(body.input, "input", "input")
    elif not is_http(body.input):
        raise RequestError(400, "invalid_input", "input must be an https://, http:// or s3:// address.")
    if body.output is not None:
        check_destination(body.output, "output", body.kind)
    check_options(body.kind, body.options)


def _make(records: Records, body: JobBody) -> Job:
    source = source_file(body.input)
    output = _expand(body.output, source.filename) if body.output else None
    job = Job(CREATED_BY_KEY, body.metadata, _type_id("job"), input=body.input)
    task = Task(
        job,
        None,
        body.kind,
        body.options,
        _connection(records, body, "input_connection_id") if body.input.startswith("s3://") else None,
        output,
        _connection(records, body, "output_connection_id") if output else None,
    )
    task.input = source
    job.tasks.append(task)
    job.step_ids = [_type_id("task") for _ in range(4)]
    return job


def _connection(records: Records, body: JobBody, name: str) -> str | None:
    """The id of the job's connection for its input or its output, as ``name`` says; None if there is none.

    Raises:
        RequestError: ``connection_not_found``, or ``request_invalid`` if the id is not a string.
    """
    named = body.options.get(name) or body.options.get("connection_id") or body.connection_id
    if named is not None and not isinstance(named, str):
        raise invalid(f"options.{name} must be the id of a connection.")
    if named is None and len(records.connections) == 1:
        return next(iter(records.connections))
    connection = records.connection(named)
    return connection.id if connection else None


def _expand(output: str, filename: str) -> str:
    """The output's address, with the placeholders in its key filled in."""
    address = Address.parse(output)
    key = address.key.replace("{date}", datetime.now(UTC).date().isoformat())
    return str(address._replace(key=key.replace("{filename}", PurePosixPath(filename).stem)))


def _type_id(prefix: str) -> str:
    """A TypeID, the form of ids in this generation's documents."""
    return f"{prefix}_{''.join(secrets.choice(_BASE32) for _ in range(26))}"


def _check_filter(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise invalid(f"{name} must be one of {', '.join(allowed)}.")
