"""Waiting for a condition, with a deadline, instead of for a length of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, seconds: float = 10, every: float = 0.02) -> T:
    """Return ``condition()``'s first true answer; raise AssertionError if it has none within ``seconds``."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        pause.wait(every)
