"""The generation *jobs* of ittybit's API: one source through one pipeline, ``/jobs``.

As documented in 2026, https://ittybit.com/api. docs/ittybit.md says what is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from shared.errors import Answered, ServiceError, Unanswered, Unsupported
from shared.ittybit_models import Action, Run, Searched, Step, Task, Work
from shared.ittybit_requests import Api
from shared.ittybit_search import Newest


class Jobs:
    """Starts jobs. ``Ittybit`` describes each method."""

    def __init__(self, api: Api, connection_id: Callable[[], str], connection_field: str) -> None:
        self._api = api
        self._connection_id = connection_id
        self._connection_field = connection_field
        self._newest = Newest(api, "jobs")

    def start(self, action: Action, source: str, mark: str, metadata: Mapping[str, str]) -> Work:
        """Make a job of the task. After a 409 the start is in doubt: one with its Idempotency-Key is unfinished."""
        body = {"input": source, "metadata": {**metadata, "job": mark}, **self._pipeline(only_task(action))}
        try:
            return self._api.work("POST", "jobs", body, mark=mark)
        except Answered as error:
            if error.status != 409:
                raise
            raise Unanswered("ittybit", f"the start's key is taken: {error.message}", in_doubt=True) from None

    def _pipeline(self, task: Task) -> dict[str, Any]:
        """The task's kind and options, its output and the connection that its output goes through."""
        fields: dict[str, Any] = {"kind": task.kind, "options": task.options}
        if task.destination is None:
            return fields
        # A kind that writes many files has a folder as its output.
        folder = task.destination.rpartition("/")[0] + "/"
        fields["output"] = folder if task.kind == "adaptive_video" else task.destination
        match self._connection_field:
            case "options":
                fields["options"] = {"connection_id": self._connection_id(), **task.options}
            case "output":
                fields["options"] = {"output_connection_id": self._connection_id(), **task.options}
            case "top":
                fields["connection_id"] = self._connection_id()
        return fields

    def find(self, _: Action, mark: str, since: datetime, now: datetime, searched: Searched) -> str | None:
        """The ``ref`` of the newest job since then with the mark in its metadata or its source."""
        job = self._newest.find(mark, since, now, searched)
        return None if job is None else f"jobs/{job.id}"


def only_task(action: Action) -> Task:
    """The action as one task: a job encodes once and uploads the result.

    Raises:
        Unsupported: the action is an automation, or more than a task and an upload through the project's connection.
    """
    match action:
        case Action(automation_id=str()):
            raise Unsupported("ittybit", "this ittybit has no automations; write a task")
        case Action(task=Task() as task):
            return task
        case Action(run=Run(tasks=[Step(kind=kind, options=options, next=[])])) if kind != "upload":
            return Task(kind=kind, options=options)
        case Action(run=Run(tasks=[Step(kind=kind, options=options, next=[Step(kind="upload") as upload])])):
            match upload.options:
                case {"url": str(url), **rest} if not rest and kind != "upload" and not upload.next:
                    return Task(kind=kind, options=options, destination=url)
        case Action(run=None):
            raise ServiceError("ledger", "the job has no action", effect="fail")
    raise Unsupported(
        "ittybit",
        "a job of this ittybit is one task and one upload of its result, through the project's connection; request"
        " each result separately",
    )
