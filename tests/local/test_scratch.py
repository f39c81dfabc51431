"""What a process leaves behind when it is killed: nothing that runs, and no folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from local.functions import ROOT
from local.scratch import Folder
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
FORGETFUL = """
import os, sys
from pathlib import Path
from local.scratch import Folder
print(Folder("ittybit-test-", Path(sys.argv[1])).path, flush=True)
os._exit(0)
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


def test_a_folder_whose_owner_is_gone_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "ittybit-test-of-nobody").mkdir()
    mine = Folder("ittybit-test-", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    left = Path(done.stdout.strip())
    assert left.exists()

    others = Folder("ittybit-test-", tmp_path)

    assert not left.exists()
    # The living have theirs, and what has no owner's mark is somebody else's.
    assert sorted(tmp_path.iterdir()) == sorted([mine.path, others.path, tmp_path / "ittybit-test-of-nobody"])
    for folder in (mine, others):
        folder.remove()
        folder.remove()
    assert [one.name for one in tmp_path.iterdir()] == ["ittybit-test-of-nobody"]
