"""Reports the error that ended a thread to the thread that waits for its work."""

from __future__ import annotations

import threading
from typing import Self


class ThreadDiedError(RuntimeError):
    """A thread has ended with an error; the message names both."""


class ThreadWatch:
    """A context manager that notes which threads end with an error; ``check`` raises it."""

    def __init__(self) -> None:
        self._dead: list[threading.ExceptHookArgs] = []

    def check(self) -> None:
        """Return if no thread has died.

        Raises:
            ThreadDiedError: one has died; the message names the first.
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
