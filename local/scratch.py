"""Temporary folders and processes that end with this process, even if it is killed.

A watchdog, a separate shell process, cleans up as soon as this process is gone. When the machine stops, or the watchdog
is killed too, the folders stay among the system's temporary files.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self


class Watchdog:
    """Runs a shell script when this process is gone, unless it was dismissed before."""

    def __init__(self, script: str, *arguments: str) -> None:
        # Only this process holds the pipe's writing end, so the pipe closes when this process ends.
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _\n{script}", "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End it without running the script."""
        self._shell.kill()
        self._shell.communicate()


class Scratch:
    """A temporary folder that is removed when this process ends, or at the end of a ``with``."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._watchdog = Watchdog('rm -rf "$1"', str(self.path))

    def remove(self) -> None:
        """Remove it and everything in it."""
        self._watchdog.dismiss()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
