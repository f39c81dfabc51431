"""The journal of what was started from outside, as a witness: each start is what ittybit would charge for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Call = Literal["POST /tasks", "POST /runs", "POST /automations/:id/run"]


@dataclass(frozen=True)
class Entry:
    """One accepted POST that starts something.

    Attributes:
        call: Which.
        url: The source: the body's ``url``, or for ``POST /runs`` that of its first task.
        automation_id: The automation that was run, if any.
        connection_id: From the body of ``POST /tasks``.
        destination: Likewise.
        idempotency_key: From the header, or from the body of ``POST /runs``.
        replay: Whether an earlier answer was repeated, so that nothing was started.
        id: Of the task for ``POST /tasks``, else of the run.
        time: When, in Unix seconds.
    """

    call: Call
    url: str | None
    automation_id: str | None = None
    connection_id: str | None = None
    destination: str | None = None
    idempotency_key: str | None = None
    replay: bool = False
    id: str = ""
    time: float = 0
