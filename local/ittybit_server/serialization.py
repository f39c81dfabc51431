"""Records as JSON, in the form that ittybit's overview pages show, or in a variant from its other pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Response, jsonify, request

from local.ittybit_server.records import Automation, Connection, File, Run, Task

Work = TypeVar("Work", bound=Run | Task)


@dataclass(frozen=True)
class Shapes:
    """The variants to render where ittybit's documents contradict each other. All false: as its overview pages show.

    Attributes:
        singular: Tasks have ``input`` and ``output`` objects, not arrays.
        envelope: Successful bodies are ``{"data": ...}``.
        legacy_status: Success is called ``ready``, not ``succeeded``.
        text_error: A task's, run's or job's ``error`` is its message, not an object.
        pending: A job that has not begun is called ``pending``, not ``queued``.
        object_output: A job's ``output`` is an object with its ``url``, not the url.
    """

    singular: bool = False
    envelope: bool = False
    legacy_status: bool = False
    text_error: bool = False
    pending: bool = False
    object_output: bool = False


class Renderer:
    """Renders records for one server.

    Args:
        shapes: The variants to render.
        results_origin: Origin of the results' addresses; None for the origin that the request was sent to.
    """

    def __init__(self, shapes: Shapes, results_origin: str | None) -> None:
        self.shapes = shapes
        self._origin = results_origin
        self._ended: dict[tuple[str, str], str] = {}

    def answer(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """A successful answer."""
        response = jsonify({"data": body} if self.shapes.envelope else body)
        response.status_code = status
        response.headers.update(headers or {})
        return response

    def answer_page(
        self, shown: Sequence[Work], render: Callable[[Work], dict[str, Any]], headers: dict[str, str]
    ) -> Response:
        """A page of a list. Searches read the same pages many times, so ended work is rendered only once."""
        texts = ",".join(self._text(one, render) for one in shown)
        body = f'{{"data":[{texts}]}}' if self.shapes.envelope else f"[{texts}]"
        return Response(f"{body}\n", mimetype="application/json", headers=headers)

    def _text(self, one: Work, render: Callable[[Work], dict[str, Any]]) -> str:
        place = (self._results_origin(), one.id)
        if (text := self._ended.get(place)) is None:
            text = json.dumps(render(one), separators=(",", ":"))
            if one.ended:
                self._ended[place] = text
        return text

    def connection(self, connection: Connection) -> dict[str, Any]:
        """A connection, its secret included, as the documents show it."""
        stamps = {"created_at": connection.created_at, "updated_at": connection.updated_at}
        return {"id": connection.id, "object": "storage_connection", **connection.fields, **stamps}

    def automation(self, automation: Automation) -> dict[str, Any]:
        """An automation."""
        stamps = {"created_at": int(automation.created_at), "updated_at": int(automation.updated_at)}
        return {"id": automation.id, "object": "automation", **automation.fields, **stamps}

    def run(self, run: Run) -> dict[str, Any]:
        """A run, with a summary of each task."""
        started = [task.started_at for task in run.tasks if task.started_at is not None]
        finished = [task.finished_at for task in run.tasks if task.finished_at is not None]
        return {
            "id": run.id,
            "object": "run",
            "status": self._status(run.status),
            "progress": round(run.progress, 1),
            "tasks": [self._short(task) for task in run.tasks],
            "error": self.error(run.error),
            "metadata": run.metadata,
            "created_by": run.created_by,
            "created_at": int(run.tasks[0].created_at),
            "started_at": _seconds(min(started, default=None)),
            "finished_at": _seconds(max(finished, default=None) if run.ended else None),
            "updated_at": int(max(task.updated_at for task in run.tasks)),
        }

    def task(self, task: Task) -> dict[str, Any]:
        """A task. Its metadata is always empty: whether ``POST /tasks`` takes any is not documented."""
        one_input, one_output = (file and self._file(file) for file in (task.input, task.output))
        files: dict[str, Any] = {
            "inputs": [one_input] if one_input else [],
            "outputs": [one_output] if one_output else [],
        }
        if self.shapes.singular:
            files = {"input": one_input, "output": one_output}
        return {
            "id": task.id,
            "object": "task",
            "kind": task.kind,
            "status": self._status(task.status),
            "run_id": task.run.id,
            "parent_id": task.parent and task.parent.id,
            "progress": round(task.progress, 1),
            "options": task.options,
            **files,
            "metadata": {},
            "error": self.error(task.error),
            "created_by": task.run.id,
            "created_at": int(task.created_at),
            "started_at": _seconds(task.started_at),
            "finished_at": _seconds(task.finished_at),
            "updated_at": int(task.updated_at),
        }

    def _short(self, task: Task) -> dict[str, Any]:
        status = self._status(task.status)
        return {"id": task.id, "kind": task.kind, "status": status, "progress": round(task.progress, 1)}

    def _status(self, status: str) -> str:
        return "ready" if self.shapes.legacy_status and status == "succeeded" else status

    def error(self, error: dict[str, str] | None) -> dict[str, str] | str | None:
        """The error that a task failed with."""
        return error["message"] if error and self.shapes.text_error else error

    def url(self, file: File) -> str:
        """A file's address."""
        return f"{self._results_origin()}{file.url}" if file.url.startswith("/") else file.url

    def _results_origin(self) -> str:
        return (self._origin or request.host_url).rstrip("/")

    def _file(self, file: File) -> dict[str, Any]:
        codecs = {"video": file.media.video, "audio": file.media.audio}
        return {
            "kind": file.kind,
            "url": self.url(file),
            "filename": file.filename,
            "filesize": file.filesize,
            "mimetype": file.mimetype,
            "width": file.media.width,
            "height": file.media.height,
            "duration": file.media.duration,
            "bitrate": file.media.bitrate,
            "framerate": file.media.framerate,
            "codecs": {sort: {"codec": codec} for sort, codec in codecs.items() if codec},
        }


def _seconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
