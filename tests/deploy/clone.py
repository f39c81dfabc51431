"""A developer's clone of the project with its own environment, in which deploy.sh runs fake commands."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from local.functions import ROOT
from tests.deploy.fakes import FakeCommands

PARTS = (
    *("Makefile", "deploy.sh", "deploy", "functions", "shared", "supabase", "requirements.txt"),
    *("requirements-deploy.txt", ".env.example"),
)
# The real commands that deploy.sh calls. Only these and the fakes are on its PATH.
TOOLS = (
    *("awk", "base64", "bash", "cat", "chmod", "cp", "cut", "diff", "dirname", "env", "grep", "head"),
    *("make", "mkdir", "mktemp", "mv", "rm", "sed", "sleep", "tr"),
)


# The result is the same for each clone, and the search takes time.
_found = cache(shutil.which)


class Clone:
    """The project's files in a folder, with ``.env`` files, and the commands that its deploy.sh finds.

    Attributes:
        root: the folder.
        commands: the fakes.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory / "a clone"
        self.root.mkdir(parents=True)
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, self.root / part)
        self.commands = FakeCommands(directory / "fakes")
        self.home = directory / "home"
        self.home.mkdir()
        self._tools = directory / "tools"
        self._tools.mkdir()
        self.give(*TOOLS)
        (self._tools / "python3").symlink_to(sys.executable)
        # As if `make` had installed what deploy.sh needs.
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        (self.root / ".venv" / "deploy").touch()

    def give(self, *tools: str) -> None:
        """Put real commands of this machine on the PATH."""
        for tool in tools:
            found = _found(tool)
            assert found, f"no {tool} here"
            (self._tools / tool).symlink_to(found)

    def take(self, tool: str) -> None:
        """Take a command off the PATH, real or fake."""
        (self._tools / tool).unlink(missing_ok=True)
        (self.commands.bin / tool).unlink(missing_ok=True)

    def write_env(self, values: Mapping[str, str], environment: str = "") -> None:
        """Write ``.env``, or ``.env.<environment>``."""
        text = "".join(f"{name}={value}\n" for name, value in values.items())
        self.env_file(environment).write_text(text)

    def read_env(self, environment: str = "") -> dict[str, str]:
        """Read that file; {} when there is none."""
        file = self.env_file(environment)
        lines = file.read_text().splitlines() if file.exists() else []
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def env_file(self, environment: str = "") -> Path:
        """The path of an environment's settings."""
        return self.root / (f".env.{environment}" if environment else ".env")

    def deploy(
        self, *arguments: str, environment: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``deploy.sh`` from another folder, without a terminal."""
        return self._run([str(self.root / "deploy.sh"), *arguments], environment or {}, input=stdin or "")

    def answer(self, answer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``deploy.sh`` at a terminal where somebody types this line."""
        ours, its = pty.openpty()
        try:
            os.write(ours, f"{answer}\n".encode())
            return self._run([str(self.root / "deploy.sh"), *arguments], {}, stdin=its)
        finally:
            os.close(ours)
            os.close(its)

    def bash(self, script: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run lines of bash in the clone, with deploy.sh's common part loaded as deploy.sh loads it."""
        head = f"set -euo pipefail\ncd {str(self.root)!r}\nsource deploy/common.sh\nsource deploy/settings.sh\n"
        return self._run(["bash", "-c", head + script], environment or {}, input="")

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start ``deploy.sh``; its stderr can be read while it runs."""
        return subprocess.Popen(
            [str(self.root / "deploy.sh"), *arguments],
            cwd=self.home,
            env=self._environment(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": f"{self.commands.bin}:{self._tools}", "HOME": str(self.home), **environment}

    def _run(
        self, command: Sequence[str], environment: Mapping[str, str], **stdin: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.home,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            **stdin,
        )
