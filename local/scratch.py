"""Temporary folders and processes that end with this process, even if it is killed.

A watchdog, which is a shell of its own, acts as soon as this process is gone. What is left all the same, when the
machine stops or the watchdog is killed as well, is removed by the next process that makes such a folder.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

# Held by a folder's owner for as long as it lives: the system takes it from a dead one.
_LOCK: Final = ".owner"


class Watchdog:
    """Runs a script of the shell when this process is gone, unless it was dismissed before."""

    def __init__(self, script: str, *arguments: str) -> None:
        # The pipe closes with this process, as no other holds its end.
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", f"read -r _\n{script}", "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End it; the script is not run."""
        self._shell.kill()
        self._shell.communicate()


class Folder:
    """A temporary folder with an owner: this process.

    Args:
        prefix: What its name begins with. Folders of that prefix whose owner is gone are removed first.
        parent: Where to make it; by default where temporary files go.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        _remove_orphans(prefix, parent)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # Locked before it has its name: nobody finds it unlocked.
        young = self.path / f"{_LOCK}.new"
        lock = os.open(young, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._lock: int | None = lock
        young.rename(self.path / _LOCK)

    def remove(self) -> None:
        """Remove it with all that is in it; does nothing the second time."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Scratch(Folder):
    """A temporary folder that goes with this process, or at the end of a ``with``."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self._watchdog = Watchdog('rm -rf "$1"', str(self.path))

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._watchdog.dismiss()
        super().remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _remove_orphans(prefix: str, parent: Path) -> None:
    for lock in parent.glob(f"{prefix}*/{_LOCK}"):
        try:
            held = os.open(lock, os.O_RDWR)
        except OSError:  # another user's, or just removed
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(lock.parent, ignore_errors=True)
        finally:
            os.close(held)
