"""Reports the error that ended a thread to the thread that waits for its work."""

from __future__ import annotations

import threading
from typing import Self


class ThreadDiedError(RuntimeError):
    """A thread has ended by an error; the message is the error's."""


class ThreadWatch:
    """Notes, as a context manager, which threads end by an error; ``check`` tells."""

    def __init__(self) -> None:
        self._dead: list[threading.ExceptHookArgs] = []

    def check(self) -> None:
        """Return while all threads are well.

        Raises:
            ThreadDiedError: one has died; the first of them is named.
        """
        if self._dead:
            first = self._dead[0]
            name = first.thread.name if first.thread else "a thread"
            raise ThreadDiedError(f"{name} has died: {first.exc_type.__name__}: {first.exc_value}") from first.exc_value

    def __enter__(self) -> Self:
        self._before = threading.excepthook
        threading.excepthook = self._dead.append
        return self

    def __exit__(self, *_: object) -> None:
        threading.excepthook = self._before
