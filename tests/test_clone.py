"""A clone of the project, on a machine whose git writes Windows line endings."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from local.functions import ROOT


def test_a_clone_has_unix_line_endings_whatever_git_is_set_to(tmp_path: Path) -> None:
    if not (git := shutil.which("git")):
        pytest.skip("no git here")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    origin = tmp_path / "origin"
    shutil.copytree(
        ROOT, origin, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*_cache", "__pycache__", ".env")
    )
    run(git, "init", "--quiet", str(origin))
    run(git, "-C", str(origin), "add", "--all")
    run(git, "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "all")
    run(git, "clone", "--quiet", "--config", "core.autocrlf=true", str(origin), str(tmp_path / "clone"))

    files = run(git, "-C", str(tmp_path / "clone"), "ls-files", "--eol").splitlines()
    assert len(files) > 100
    assert [line for line in files if "w/crlf" in line or "w/mixed" in line] == []
    assert run(str(tmp_path / "clone" / "deploy.sh"), "--help").startswith("Usage:")
