"""deploy/install.py installs the environment of `make` and ./deploy.sh once, and reports an error in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from local.functions import ROOT

# A stand-in for uv: logs each call, takes 0.2 s, and makes the folder that `uv venv` makes.
UV = """#!/bin/bash
echo "$1 $2" >>"{log}"
sleep 0.2
[[ "$1" != venv ]] || mkdir -p "${{!#}}/bin"
"""


@pytest.fixture(autouse=True)
def _uv(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").touch()
    uv = tmp_path / "uv"
    uv.write_text(UV.format(log=tmp_path / "log"))
    uv.chmod(0o755)


def install(tmp_path: Path, stamp: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.install", str(stamp), str(tmp_path / "requirements.txt")],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_of_two_processes_installs_and_the_other_waits(tmp_path: Path) -> None:
    both = [install(tmp_path, tmp_path / "venv" / "installed") for _ in range(2)]
    errors = [one.communicate(timeout=30)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], errors
    assert (tmp_path / "log").read_text() == "venv --quiet\npip install\n"


def test_a_folder_that_cannot_be_written_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "venv").write_text("a file is in the way")
    process = install(tmp_path, tmp_path / "venv" / "installed")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == f"{tmp_path}/venv cannot be written: File exists"
