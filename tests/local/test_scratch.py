"""A killed process leaves nothing running, and no folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from local.functions import ROOT
from tests.functions.calling import NOWHERE
from tests.waiting import until

KILLED = f"""
import os, signal
from local.functions import FunctionProcess, stage
from local.scratch import Scratch
stage()
scratch = Scratch("ittybit-test-")
function = FunctionProcess("on-upload", {NOWHERE!r}, log=scratch.path / "log")
function.wait_until_ready()
print(scratch.path, function._process.pid, flush=True)
signal.pause()
"""


def test_a_killed_process_leaves_no_child_and_no_folder() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        path, pid = process.stdout.readline().split()
        function = psutil.Process(int(pid))
        family = [function, *function.children(recursive=True), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) > 3  # the server, its worker and the watchdogs
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    until(lambda: not Path(path).exists())
