"""The generation *automations* of ittybit's API: ``/automations/{id}/run``, ``/runs`` and ``/tasks``.

As documented from 2025-12 (``/connections``) to 2026-01 (errors as ``{kind, message}``), https://ittybit.com/changelog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from shared.errors import ServiceError, Unanswered
from shared.ittybit_models import Action, Searched, Step, Work
from shared.ittybit_requests import Api
from shared.ittybit_search import Newest


class Automations:
    """Starts runs and tasks. ``Ittybit`` describes each method."""

    def __init__(self, api: Api, connection_id: Callable[[], str]) -> None:
        self._api = api
        self._connection_id = connection_id
        self._newest_tasks = Newest(api, "tasks")

    def start(self, action: Action, source: str, mark: str, metadata: Mapping[str, str]) -> Work:
        """Run the automation, make the task or the run. ``metadata`` is documented for runs only."""
        if action.automation_id is not None:
            path = f"automations/{quote(action.automation_id, safe='')}/run"
            run = self._api.work("POST", path, {"url": source}, mark=mark)
            return run.model_copy(update={"ref": f"runs/{run.id}"})
        if action.run is not None:
            ingest = {"kind": "ingest", "options": {"url": source}, "next": list(map(self._step, action.run.tasks))}
            body = {"tasks": [ingest], "metadata": {**metadata, "job": mark}, "idempotency_key": mark}
            return self._api.work("POST", "runs", body, mark=mark)
        if action.task is None:
            raise ServiceError("ledger", "the job has no action", effect="fail")
        body = {"url": source, "kind": action.task.kind, "options": action.task.options}
        if action.task.destination is not None:
            body |= {"connection_id": self._connection_id(), "destination": action.task.destination}
        return self._api.work("POST", "tasks", body, mark=mark)

    def _step(self, step: Step) -> dict[str, Any]:
        """The step as it is sent; an upload that names no connection goes through the project's."""
        options = step.options
        if step.kind == "upload" and "connection_id" not in options:
            options = {**options, "connection_id": self._connection_id()}
        following = {"next": list(map(self._step, step.next))} if step.next else {}
        return {"kind": step.kind, "options": options, **following}

    def with_outputs(self, run: Work, id_: str) -> Work:
        """Return a succeeded run with its outputs, which ittybit shows in the tasks and not in the run.

        The fetched source is no result. An encode and the upload of its output are one result: the upload.
        """
        tasks = list(self._api.pages("tasks", Work, run_id=id_, order="asc"))
        uploaded = {task.parent_id for task in tasks if task.kind == "upload"}
        results = [task for task in tasks if task.kind != "ingest" and task.id not in uploaded]
        outputs = dict.fromkeys([*run.outputs, *(address for task in results for address in task.outputs)])
        return run.model_copy(update={"outputs": tuple(outputs)})

    def find(self, action: Action, mark: str, since: datetime, now: datetime, searched: Searched) -> str | None:
        """The ``ref`` of the newest task since then whose source carries the mark, or of its run."""
        task = self._newest_tasks.find(mark, since, now, searched)
        if task is None:
            return None
        if action.task is not None:
            return f"tasks/{task.id}"
        if task.run_id is None:
            # The run was started and costs money. It must not be started again, although its id is unknown.
            raise Unanswered("ittybit", "the task that an earlier attempt started has no run_id")
        return f"runs/{task.run_id}"
