"""The server's records, in memory, guarded by one lock. Times are Unix seconds, except in connections."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from local.ittybit_server.errors import find
from local.ittybit_server.media_file import Media

Status = Literal["waiting", "validating", "queued", "processing", "finishing", "succeeded", "failed", "cancelled"]
ENDED: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})


def new_id(prefix: str) -> str:
    """An id in ittybit's form: a prefix for the resource, and a random part."""
    return f"{prefix}_{secrets.token_hex(10)}"


@dataclass
class Connection:
    """Credentials of S3 storage; timestamps are ISO 8601."""

    id: str
    created_at: str
    updated_at: str
    fields: dict[str, Any]


@dataclass
class Automation:
    """A workflow that can be run on any url."""

    id: str
    created_at: float
    updated_at: float
    fields: dict[str, Any]


@dataclass(frozen=True)
class File:
    """An input or an output of a task.

    Attributes:
        kind: ``url`` came from outside, ``internal`` was made here.
        url: Its address; only the path, for a result that this server keeps.
        filename: The last part of its address, decoded.
        filesize: Bytes; None until it has been fetched.
        mimetype: Guessed from its name; None if unknown.
        media: Its properties; all None until it has been probed.
    """

    kind: Literal["url", "internal"]
    url: str
    filename: str
    filesize: int | None = None
    mimetype: str | None = None
    media: Media = field(default_factory=Media)


@dataclass
class Task:
    """One operation on one source.

    Attributes:
        run: The run it belongs to.
        parent: The task whose output it works on; without one, its source is ``input``.
        connection_id: For a source in S3 storage.
        destination: The S3 address that the output goes to; None to keep it here.
        destination_connection_id: For that address.
        entered: When it entered each of its states, except the final one.
    """

    run: Run
    parent: Task | None
    kind: str
    options: dict[str, Any]
    connection_id: str | None
    destination: str | None
    destination_connection_id: str | None
    id: str = field(default_factory=lambda: new_id("task"))
    children: list[Task] = field(default_factory=list)
    status: Status = "waiting"
    entered: dict[Status, float] = field(default_factory=dict)
    progress: float = 0
    input: File | None = None
    output: File | None = None
    output_path: Path | None = None
    error: dict[str, str] | None = None
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float = field(default_factory=time.time)

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.status in ENDED

    def move(self, status: Status) -> None:
        """Enter a state that is not final."""
        self.status = status
        self.entered[status] = self.updated_at = time.time()


@dataclass
class Run:
    """A tree of tasks that were started together. Its state follows from theirs."""

    created_by: str
    metadata: dict[str, Any]
    id: str = field(default_factory=lambda: new_id("run"))
    tasks: list[Task] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether all of its tasks have ended."""
        return all(task.ended for task in self.tasks)

    @property
    def status(self) -> Status:
        """``waiting`` until a task starts, then ``processing`` until all have ended."""
        states = {task.status for task in self.tasks}
        if states == {"waiting"}:
            return "waiting"
        if not self.ended:
            return "processing"
        return "failed" if "failed" in states else "cancelled" if "cancelled" in states else "succeeded"

    @property
    def progress(self) -> float:
        """The mean of its tasks' progress, 0 to 100."""
        return sum(task.progress for task in self.tasks) / len(self.tasks)

    @property
    def error(self) -> dict[str, str] | None:
        """The first error among its tasks."""
        return next((task.error for task in self.tasks if task.error), None)


@dataclass
class Job(Run):
    """A run of one task, which the generation *jobs* shows as a pipeline of several.

    Attributes:
        input: The source's address.
        step_ids: Ids of the pipeline's steps.
    """

    input: str = ""
    step_ids: list[str] = field(default_factory=list)


class Records:
    """All records, oldest first. Hold ``lock``, which is reentrant, to read or write them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connections: dict[str, Connection] = {}
        self.automations: dict[str, Automation] = {}
        self.runs: dict[str, Run] = {}
        self.jobs: dict[str, Job] = {}
        self.tasks: dict[str, Task] = {}

    def add(self, run: Run) -> None:
        """Keep a job, or a run and its tasks."""
        if isinstance(run, Job):
            self.jobs[run.id] = run
            return
        self.runs[run.id] = run
        self.tasks.update((task.id, task) for task in run.tasks)

    def connection(self, connection_id: str | None) -> Connection | None:
        """The connection with that id; without an id, the default connection, if there is one.

        Raises:
            RequestError: ``connection_not_found``.
        """
        if connection_id is None:
            return next((one for one in self.connections.values() if one.fields["is_default"]), None)
        return find("connection", self.connections, connection_id)
