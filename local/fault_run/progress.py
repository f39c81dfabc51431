"""Prints a line every few seconds of a run, and counts the open jobs: with too many, the load pauses."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Final, Self

import psycopg

from local.stack import Stack

# With more open jobs than this the load pauses: the run measures delivery, not a backlog that it makes itself. Most of
# them are leased: a function that is killed leaves up to 256 of them for minutes, and dies several times meanwhile.
MOST_OPEN: Final = 4000
_EVERY: Final = 1.0
_SAY_EVERY: Final = 5
_FREEZE_EVERY: Final = 30

_STATES: Final = "select state, count(*), count(due_at) from ittybit.jobs group by state order by state"


class Progress:
    """Reads the ledger every second, in its own thread, until its ``with`` block ends."""

    def __init__(self, stack: Stack, done: Callable[[], str], say: Callable[[str], None]) -> None:
        self._stack = stack
        self._done = done
        self._say = say
        self._open = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def has_room(self) -> bool:
        """Whether few enough jobs are open for more load."""
        return self._open <= MOST_OPEN

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        looks = 0
        while not self._ended.wait(_EVERY):
            with contextlib.suppress(psycopg.Error):  # the database is being killed, or the ledger is gone
                states = self._stack.sql(_STATES)
                self._open = sum(count for _, _, count in states)
                looks += 1
                if looks % _FREEZE_EVERY == 0:
                    # The run keeps every request to its end. A search for garbage in gigabytes of them would stop this
                    # process, and with it the stand-ins and the uploads, for seconds.
                    gc.freeze()
                if looks % _SAY_EVERY == 0:
                    counts = ", ".join(f"{count} {state}" for state, count, _ in states)
                    self._say(f"{self._done()}; {self._open} jobs open; {counts}")
