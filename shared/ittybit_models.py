"""What ittybit is asked to do, and its answers in each form that its documents show.

The public documents disagree on a ``data`` envelope, on ``input``/``inputs`` and ``output``/``outputs``, on an error as
text or object, on the word for success and on the unit of time. Only the fields that are needed are read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, field_validator, model_validator

_SUCCEEDED = {"succeeded", "ready", "completed"}
_FAILED = {"failed", "error", "cancelled", "canceled"}


def bare(answer: Any) -> Any:
    """Return the answer without the ``data`` envelope that older versions put around it."""
    return answer["data"] if isinstance(answer, dict) and "data" in answer and "id" not in answer else answer


class Fault(BaseModel):
    """ittybit's own description of a failure."""

    kind: str | None = None
    message: str = "ittybit gave no reason"


class Connection(BaseModel):
    """A project's S3 keys as ittybit keeps them. ittybit may echo the secret: it is compared, and never shown."""

    id: str
    name: str = ""
    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = Field(default="", repr=False)
    is_default: bool = False


class Task(BaseModel):
    """A task to make. Without a destination its result stays at ittybit."""

    kind: str
    options: dict[str, Any] = {}
    destination: str | None = None


class Step(BaseModel):
    """A task of a run; the steps in ``next`` work on its output."""

    kind: str
    options: dict[str, Any] = {}
    next: list[Step] = []


class Searched(BaseModel):
    """How far one of ittybit's lists was searched for a start, from the newest item back.

    Attributes:
        down_to: the id of the last item that was read; None before the first.
        oldest: when that item was made.
    """

    down_to: str | None = None
    oldest: AwareDatetime | None = None


class Run(BaseModel):
    """A workflow of the user's own, step by step."""

    tasks: list[Step]


class Action(BaseModel):
    """What to do with an object: run an automation, make a task, or run a workflow of the user's own."""

    automation_id: str | None = None
    task: Task | None = None
    run: Run | None = None


class Work(BaseModel):
    """A run, a task or a job.

    Attributes:
        ref: its resource and id, such as ``tasks/task_1``: what the ledger keeps, and ``Ittybit.work`` takes.
        state: ``ongoing`` until it succeeded or failed.
        progress: 0 to 100, where given; else the mean of its tasks'.
        kind: what a task does, where given.
        parent_id: the task on whose output a task works.
        outputs: the addresses of its results.
        tasks: a run's or a job's tasks, where given.
    """

    id: str
    ref: str = ""
    state: Literal["ongoing", "succeeded", "failed"]
    status: str
    progress: float | None = None
    kind: str | None = None
    parent_id: str | None = None
    outputs: tuple[str, ...] = ()
    error: Fault | None = None
    tasks: tuple[Work, ...] = ()

    @property
    def shown(self) -> dict[str, dict[str, str]]:
        """What the answer to a person's start shows of it: its resource, id and status."""
        return {self.ref.partition("s/")[0]: {"id": self.id, "status": self.status}}

    @model_validator(mode="before")
    @classmethod
    def _from_any_shape(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        status = str(data.get("status") or "")
        tasks = listed if isinstance(listed := data.get("tasks"), list) else []
        return {
            "id": data.get("id"),
            "status": status,
            "state": "succeeded" if status in _SUCCEEDED else "failed" if status in _FAILED else "ongoing",
            "progress": data.get("progress"),
            **{name: value for name in ("kind", "parent_id") if isinstance(value := data.get(name), str)},
            "outputs": _addresses(data, "output", "outputs", "output_url"),
            "error": data.get("error"),
            "tasks": [task for task in tasks if isinstance(task, dict)],
        }

    @field_validator("progress", mode="before")
    @classmethod
    def _percent_or_nothing(cls, value: Any) -> Any:
        # Rounded: the ledger cannot store the smallest numbers that JSON can hold.
        return round(value, 3) if isinstance(value, (int, float)) and 0 <= value <= 100 else None

    @field_validator("error", mode="before")
    @classmethod
    def _text_or_object(cls, value: Any) -> Any:
        fault = {"message": value} if isinstance(value, str) else value if isinstance(value, dict) else {}
        return {name: text for name in Fault.model_fields if isinstance(text := fault.get(name), str) and text} or None

    @model_validator(mode="after")
    def _progress_of_its_tasks(self) -> Work:
        # A job shows no progress of its own. A job whose progress does not change for a day counts as stuck.
        if self.progress is None and self.tasks:
            done = [100 if task.state == "succeeded" else task.progress or 0 for task in self.tasks]
            self.progress = round(sum(done) / len(done), 3)
        return self


class Listed(BaseModel):
    """A task or job in a list, as a search reads it. A page has a hundred, so it reads no more than it needs.

    Attributes:
        run_id: the run that a task belongs to.
        marks: those of the start that made it: in its metadata, and in the addresses of its sources.
        created_at: when it was made, by ittybit's clock.
    """

    id: str
    run_id: str | None = None
    marks: frozenset[str] = frozenset()
    created_at: datetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_any_shape(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        metadata = data.get("metadata")
        sent = metadata.get("job") if isinstance(metadata, dict) else None
        sources = _addresses(data, "url", "input", "inputs", "options")
        query = [part for source in sources for part in source.partition("?")[2].split("&")]
        return {
            "id": data.get("id"),
            "run_id": data.get("run_id"),
            "marks": {part.removeprefix("job=") for part in query if part.startswith("job=")}
            | {mark for mark in (sent,) if isinstance(mark, str)},
            "created_at": data.get("created_at") or data.get("created"),
        }

    @field_validator("created_at")
    @classmethod
    def _utc_unless_it_says(cls, value: datetime | None) -> datetime | None:
        # pydantic distinguishes seconds since 1970 from milliseconds.
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def _addresses(data: dict[str, Any], *fields: str) -> tuple[str, ...]:
    """Every address under the fields, each of which is text, an object with a ``url``, or a list of either."""
    found: dict[str, None] = {}  # an ordered set
    for field in fields:
        value = data.get(field)
        for item in value if isinstance(value, list) else [value]:
            address = item.get("url") if isinstance(item, dict) else item
            if isinstance(address, str):
                found[address] = None
    return tuple(found)
