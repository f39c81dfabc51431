"""Checks, before anything starts, that the embedded stack can write its folders and has enough space."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

# For PostgreSQL's files, the uploads and their results.
NEEDED_MEGABYTES: Final = 200


class DiskSpaceError(RuntimeError):
    """A folder cannot be written or is too full; the message names it and says why."""


def check_disk_space(*folders: Path, megabytes: int = NEEDED_MEGABYTES) -> None:
    """Return if these folders, and the one for temporary files, can be written and have this much space.

    Raises:
        DiskSpaceError: one cannot be written, or has less space.
    """
    # If TMPDIR is unusable, Python would use another folder, but the processes that it starts would not.
    temporary = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    for folder in (*folders, temporary):
        try:
            if folder is not temporary:
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
            free = shutil.disk_usage(folder).free // 1024**2
        except OSError as error:
            raise DiskSpaceError(f"{folder} cannot be written: {error.strerror}") from error
        if free < megabytes:
            raise DiskSpaceError(f"{folder} is too full: it has {free} MB free, and {megabytes} MB are needed")
