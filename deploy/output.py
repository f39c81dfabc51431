"""Programs whose output may be read in part, as ``./deploy.sh doctor | head -1`` does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


def while_read(main: Callable[[], int]) -> int:
    """Run a program and return its exit status; it ends in silence when its output is no longer read."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Nothing more is to be tried, at the process's end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status
