"""Fake commands, to be put first on PATH: each records how it was called, and takes only the flags it knows.

What a fake does is a program: a Python file with ``main(command, flags, rest, stdin, state)``, which prints the answer
and may keep files in the folder ``state``; see fake_command.py for how it is called.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class CommandCall:
    """One call of a fake command."""

    name: str
    argv: list[str]
    stdin: str
    cwd: str
    environment: dict[str, str]

    @property
    def line(self) -> str:
        """The call as a shell reads it."""
        return shlex.join([self.name, *self.argv])


class FakeCommands:
    """A folder of fake commands.

    Attributes:
        bin: the folder for PATH.
        state: where the programs keep what they are told.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.bin = directory / "bin"
        self.state = directory / "state"
        for folder in (self.bin, self.state, directory / "programs"):
            folder.mkdir(parents=True)
        (directory / "accepts.json").write_text("{}")
        (directory / "faults.json").write_text("[]")

    def add(
        self,
        name: str,
        *,
        program: Path | None = None,
        answer: str = "",
        accepts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Make, or replace, the command ``name``.

        Args:
            name: such as ``gcloud``.
            program: what it does; without one it prints ``answer``.
            answer: what it prints.
            accepts: its flags by subcommand, as fake_command.parse takes them; None takes anything.
        """
        source = program.read_text() if program else f"def main(**_):\n    print({answer!r}, end='')\n"
        (self._directory / "programs" / f"{name}.py").write_text(source)
        known = json.loads((self._directory / "accepts.json").read_text())
        (self._directory / "accepts.json").write_text(json.dumps(known | {name: accepts}))
        script = self.bin / name
        script.write_text(
            f"#!{sys.executable} -ISB\nimport sys, pathlib\nsys.path.insert(0, {str(HERE)!r})\n"
            f"import fake_command\nsys.exit(fake_command.main({name!r}, pathlib.Path({str(self._directory)!r})))\n"
        )
        script.chmod(0o755)

    def fail(self, name: str, *words: str, code: int = 1, message: str = "told to fail", after: int = 0) -> None:
        """Let the command fail once, at a call with all these words; ``after`` so many such calls that go through."""
        faults = json.loads((self._directory / "faults.json").read_text())
        faults.append({"name": name, "words": words, "code": code, "message": message, "after": after})
        (self._directory / "faults.json").write_text(json.dumps(faults))

    def calls(self, name: str | None = None) -> list[CommandCall]:
        """How the commands were called, or one of them, in order."""
        log = self._directory / "calls.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        calls = [CommandCall(**json.loads(line)) for line in lines]
        return [call for call in calls if name in (None, call.name)]

    def forget(self) -> None:
        """Forget the calls until now; what the programs keep stays."""
        (self._directory / "calls.jsonl").unlink(missing_ok=True)
