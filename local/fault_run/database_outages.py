"""The times when the run had killed the database: a request that fails then does not count as harmed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Outages:
    """The times of a run during which the database was killed or starting; in Unix seconds."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Note an outage from the start to the end of the block."""
        place, began = len(self._spans), time.time()
        self._spans.append((began, float("inf")))
        try:
            yield
        finally:
            self._spans[place] = (began, time.time())

    def touch(self, began: float, ended: float) -> bool:
        """Whether any outage overlaps the time from ``began`` to ``ended``."""
        return any(start <= ended and began <= end for start, end in self._spans)
