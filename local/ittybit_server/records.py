"""What the server knows, in memory and guarded by one lock: connections, automations, runs, tasks."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from local.ittybit_server.errors import not_found
from local.ittybit_server.media_file import Media

Status = Literal["waiting", "validating", "queued", "processing", "finishing", "succeeded", "failed", "cancelled"]
ENDED: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})


def new_id(prefix: str) -> str:
    """An id as ittybit makes them: a prefix that tells the resource, and a random part."""
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
    """A workflow to be run on one url after another; timestamps are Unix seconds."""

    id: str
    created_at: int
    updated_at: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class File:
    """An input or an output of a task.

    Attributes:
        kind: ``url`` came from outside, ``internal`` was made here.
        url: Its address; a result kept by this server is given as a path below its origin.
        filename: The last part of its address, decoded.
        filesize: Bytes; None until it has been fetched.
        mimetype: By its name; None if that says nothing.
        media: What was found in it, if anything.
    """

    kind: Literal["url", "internal"]
    url: str
    filename: str
    filesize: int | None = None
    mimetype: str | None = None
    media: Media = field(default_factory=Media)


@dataclass
class Task:
    """One operation on one source; a task without a parent has its source in ``url``."""

    run_id: str
    parent: Task | None
    kind: str
    options: dict[str, Any]
    url: str | None
    connection_id: str | None
    destination: str | None
    id: str = field(default_factory=lambda: new_id("task"))
    children: list[Task] = field(default_factory=list)
    status: Status = "waiting"
    progress: float = 0
    input: File | None = None
    output: File | None = None
    output_path: Path | None = None
    error: dict[str, str] | None = None
    created_at: int = field(default_factory=lambda: int(time.time()))
    started_at: int | None = None
    finished_at: int | None = None
    updated_at: int = field(default_factory=lambda: int(time.time()))


@dataclass
class Run:
    """A tree of tasks that were started together; its state is that of its tasks."""

    created_by: str
    metadata: dict[str, Any]
    id: str = field(default_factory=lambda: new_id("run"))
    tasks: list[Task] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether none of its tasks will move any more."""
        return all(task.status in ENDED for task in self.tasks)

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


class Records:
    """All records, oldest first. Whoever reads or changes one holds ``lock``, which may be taken again."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connections: dict[str, Connection] = {}
        self.automations: dict[str, Automation] = {}
        self.runs: dict[str, Run] = {}
        self.tasks: dict[str, Task] = {}

    def add_run(self, run: Run) -> None:
        """Keep a run and its tasks."""
        self.runs[run.id] = run
        self.tasks.update((task.id, task) for task in run.tasks)

    def connection(self, connection_id: str | None) -> Connection | None:
        """The connection of that id or, with no id, the default one if there is one.

        Raises:
            RequestError: ``connection_not_found``.
        """
        if connection_id is None:
            return next((one for one in self.connections.values() if one.fields["is_default"]), None)
        if connection_id not in self.connections:
            raise not_found("connection", connection_id)
        return self.connections[connection_id]
