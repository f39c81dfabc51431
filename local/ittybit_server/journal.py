"""The journal of accepted starts. ittybit would charge for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Call = Literal["POST /tasks", "POST /runs", "POST /automations/:id/run", "POST /jobs"]


@dataclass(frozen=True)
class Entry:
    """One accepted POST that starts something.

    Attributes:
        call: Its endpoint.
        url: The source's address; for ``POST /runs``, that of its first task's source.
        automation_id: The automation that was run, if any.
        connection_id: The connection that the first result is written through, if one is named.
        destination: The S3 address that the first result is written to, if any.
        metadata: From the body of ``POST /runs`` or ``POST /jobs``.
        idempotency_key: From the header.
        replay: Whether the earlier answer was repeated, and nothing was started.
        id: Of the job, run or, for ``POST /tasks``, the task.
        time: When it was accepted, in Unix seconds.
    """

    call: Call
    url: str | None
    automation_id: str | None = None
    connection_id: str | None = None
    destination: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    replay: bool = False
    id: str = ""
    time: float = 0
