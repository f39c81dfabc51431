"""Jobs as JSON: a pipeline of steps, times in milliseconds, one output.

As in the documents, steps have a progress and jobs have none. Imported and written files have the same fields as
encoded ones. Each step shows only its own options.
"""

from __future__ import annotations

from typing import Any, Literal

from local.ittybit_server.records import ENDED, File, Job, Status, Task
from local.ittybit_server.serialization import Renderer

JobStatus = Literal["queued", "processing", "succeeded", "failed", "cancelled"]
_BEGINS: tuple[Status, ...] = ("validating", "queued", "processing", "finishing")
"""The task states at which the steps probe, import, encode and export begin, in this order."""


class JobRenderer:
    """Renders jobs for one server."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self.answer = renderer.answer
        self.answer_page = renderer.answer_page

    def status(self, job: Job) -> str:
        """A job's status, in this generation's words."""
        if job.status == "waiting":
            return "pending" if self._renderer.shapes.pending else "queued"
        return job.status

    def job(self, job: Job) -> dict[str, Any]:
        """A job, with its steps."""
        (task,) = job.tasks
        return {
            "id": job.id,
            "object": "job",
            "kind": task.kind,
            "input": job.input,
            "output": self._output(task),
            "options": task.options,
            "metadata": job.metadata,
            "status": self.status(job),
            "error": self._renderer.error(task.error),
            "tasks": self._steps(job, task),
            "created_at": _milliseconds(task.created_at),
            "started_at": _milliseconds(task.started_at),
            "finished_at": _milliseconds(task.finished_at),
            "updated_at": _milliseconds(task.updated_at),
        }

    def _output(self, task: Task) -> str | dict[str, Any] | None:
        if task.output is None:
            return None
        if self._renderer.shapes.object_output:
            return self._file(task.output)
        return self._renderer.url(task.output)

    def _steps(self, job: Job, task: Task) -> list[dict[str, Any]]:
        source = self._file(task.input) if task.input else None
        result = self._file(task.output) if task.output else None
        external = {"object": "external_file", "url": job.input}
        steps: list[tuple[str, dict[str, Any] | None, dict[str, Any], dict[str, Any] | None]] = [
            ("probe", external, {}, source),
            ("import", external, {}, source),
            (task.kind, source, task.options, result),
        ]
        if task.destination:
            options = {"url": task.destination, "connection_id": task.destination_connection_id}
            steps.append(("export", result, options, result))
        return [
            {"id": step_id, "object": "task", "kind": kind, "input": given, "options": options}
            | self._state(task, number, made)
            for number, (step_id, (kind, given, options, made)) in enumerate(zip(job.step_ids, steps, strict=False))
        ]

    def _state(self, task: Task, number: int, made: dict[str, Any] | None) -> dict[str, Any]:
        """The step's status, progress, output, error and times."""
        begun, *following = (task.entered.get(state) for state in _BEGINS[number:])
        finished = next((moment for moment in following if moment is not None), None)
        status: Status = "waiting" if begun is None else "processing"
        if finished is not None or task.status == "succeeded":
            status = "succeeded"
        elif task.status in ENDED:
            status = "cancelled" if begun is None else task.status
        progress = None if begun is None else 100 if status == "succeeded" else 0
        return {
            "output": made if status == "succeeded" else None,
            "status": status,
            "progress": round(task.progress, 1) if (number, status) == (2, "processing") else progress,
            "error": self._renderer.error(task.error) if status == "failed" else None,
            "created_at": _milliseconds(task.created_at),
            "started_at": _milliseconds(begun),
            "finished_at": _milliseconds(finished or task.finished_at),
            "updated_at": _milliseconds(finished or task.updated_at),
        }

    def _file(self, file: File) -> dict[str, Any]:
        return {
            "object": "file",
            "kind": (file.mimetype or "").partition("/")[0] or None,
            "url": self._renderer.url(file),
            "format": file.filename.rpartition(".")[2],
            "width": file.media.width,
            "height": file.media.height,
            "duration": file.media.duration,
        }


def _milliseconds(moment: float | None) -> int | None:
    return None if moment is None else int(moment * 1000)
