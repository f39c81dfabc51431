"""The output of programs: colours and bars on a terminal, plain lines elsewhere, a silent end when nobody reads on.

A terminal counts if it can move its cursor (not ``TERM=dumb``). ``NO_COLOR`` turns colours off (https://no-color.org).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from typing import TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2"}
_WIDTH = 30
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]+")


def on_a_line(text: str) -> str:
    """Return a foreign text without control characters: they move the cursor, change the title or begin a new line."""
    return _CONTROLS.sub(" ", text)


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """Return the text in a colour (red, green, yellow, dim), where ``stream`` is a terminal that may show it."""
    if not _is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_COLOURS[colour]}m{text}\033[0m"


class Screen:
    """Lines, and on a terminal a bar below them. The end of the ``with`` removes the bar.

    Attributes:
        is_live: whether bars are shown. If not, print plain lines instead.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar = ""
        self.is_live = _is_terminal(stream)

    def line(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._write(f"{text}\n")

    def bar(self, what: str, done: float) -> None:
        """Show how much of something is done, from 0 to 1, in place of an earlier bar."""
        if not self.is_live:
            return
        full = round(_WIDTH * min(done, 1))
        bar = f"{what}  [{'#' * full}{'.' * (_WIDTH - full)}] {min(done, 1):4.0%}"
        bar = bar[: shutil.get_terminal_size().columns - 1]
        if bar != self._bar:
            self._write("", bar)

    def clear(self) -> None:
        """Remove the bar."""
        self._write("", "")

    def _write(self, text: str, bar: str | None = None) -> None:
        erase = "\r\033[K" if self._bar else ""
        self._bar = self._bar if bar is None else bar
        self._stream.write(f"{erase}{text}{self._bar}")
        self._stream.flush()

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


def while_read(main: Callable[[], int]) -> int:
    """Run a program and return its exit status; end silently when nobody reads its output any more."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at the process's end: that must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"
