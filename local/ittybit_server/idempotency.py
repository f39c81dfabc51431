"""Answers kept by Idempotency-Key for 24 hours.

The documents of the generation *jobs* name the header for every POST, with a replay answered by 200. For ``POST
/tasks`` and ``POST /automations/:id/run`` of the generation before nothing is documented, and they do the same here.
Keys are kept apart by path.
The same key with another body is undocumented: it gets the first answer too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from local.ittybit_server.journal import Entry

KEPT = 24 * 3600
"""Seconds for which an answer is repeated."""


class Answers:
    """The first answers; guarded by its caller's lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[float, dict[str, Any], Entry]] = {}

    def find(self, path: str, key: str) -> tuple[dict[str, Any], Entry] | None:
        """The body answered first to this key on this path, and its entry in the journal."""
        if (kept := self._kept.get((path, key))) is None or self._clock() - kept[0] >= KEPT:
            return None
        return kept[1:]

    def keep(self, path: str, key: str, body: dict[str, Any], entry: Entry) -> None:
        """Keep an answer."""
        self._kept[path, key] = (self._clock(), body, entry)
