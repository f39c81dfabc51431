"""What a fake command runs: it records the call, checks its flags, fails as told, and else answers by its program.

Started by the scripts that fakes.py writes, in a process of its own and without the test's packages.
"""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any


def main(name: str, directory: Path) -> int:
    """Be the command ``name``; the exit code."""
    argv = sys.argv[1:]
    stdin = "" if sys.stdin.isatty() else sys.stdin.read()
    call = {"name": name, "argv": argv, "stdin": stdin, "cwd": str(Path.cwd()), "environment": dict(os.environ)}
    # One at a time: commands may be called side by side, and a program keeps state.
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (directory / "calls.jsonl").open("a") as log:
            log.write(json.dumps(call) + "\n")
        if (fault := _fault(directory / "faults.json", name, argv)) is not None:
            print(fault["message"], file=sys.stderr)
            return int(fault["code"])
    accepts = json.loads((directory / "accepts.json").read_text())[name]
    try:
        command, flags, rest = ("", {}, argv) if accepts is None else parse(argv, accepts)
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 64
    program = runpy.run_path(str(directory / "programs" / f"{name}.py"))
    answer: Any = program["main"](command=command, flags=flags, rest=rest, stdin=stdin, state=directory / "state")
    return int(answer or 0)


def _fault(file: Path, name: str, argv: list[str]) -> dict[str, Any] | None:
    """The fault that this call is to have; each is had once."""
    faults: list[dict[str, Any]] = json.loads(file.read_text())
    for fault in faults:
        if fault["name"] != name or not set(fault["words"]) <= set(argv):
            continue
        fault["after"] -= 1
        if is_due := fault["after"] < 0:
            faults.remove(fault)
        file.write_text(json.dumps(faults))
        return fault if is_due else None
    return None


def parse(argv: list[str], accepts: dict[str, list[str]]) -> tuple[str, dict[str, str], list[str]]:
    """Take a command line apart: the subcommand, its flags with their values, and the other words.

    Args:
        argv: the words after the command's name.
        accepts: flags by subcommand ("run deploy"); one that takes a value ends in ``=``. Those under "" fit all.

    Raises:
        ValueError: no such subcommand, no such flag, a value missing or too much, a flag given twice.
    """
    words = [word for word in argv if not word.startswith("-")]
    fitting = [sub for sub in accepts if sub.split() == words[: len(sub.split())]]
    if not fitting:
        raise ValueError(f"no subcommand in {argv}")
    command = max(fitting, key=lambda sub: len(sub.split()))
    known = {*accepts[command], *accepts.get("", [])}
    flags: dict[str, str] = {}
    rest: list[str] = []
    remaining = iter(argv)
    for word in remaining:
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag in flags and f"{flag}=*" not in known:
            raise ValueError(f"{flag} is given twice")
        if f"{flag}=" in known or f"{flag}=*" in known:
            if not equals:
                value = next(remaining, "")
                if not value:
                    raise ValueError(f"{flag} takes a value")
            flags[flag] = f"{flags[flag]}\n{value}" if flag in flags else value
        elif flag in known and not equals:
            flags[flag] = ""
        else:
            raise ValueError(f"{command}: unknown flag {word}")
    return command, flags, rest[len(command.split()) :]
