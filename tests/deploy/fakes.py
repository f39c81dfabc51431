"""Fake commands, to be put first on PATH: each records its calls, and accepts only the flags it knows.

The command is a shell script. It sends its arguments and standard input to the test's own process, where a function
does the work, and prints the answer. So a call starts no Python interpreter.
"""

from __future__ import annotations

import shlex
import shutil
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """#!{bash}
IFS= read -r -d '' stdin
exec 3<>/dev/tcp/127.0.0.1/{port}
printf '%s\\0' {name} "$PWD" "$#" "$@" "$stdin" >&3
IFS= read -r -d '' code <&3
IFS= read -r -d '' out <&3
IFS= read -r -d '' err <&3
printf '%s' "$out"
printf '%s' "$err" >&2
exit "$code"
"""


class CommandError(Exception):
    """Makes a fake fail with this message and exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class CommandCall:
    """One call of a fake command.

    Attributes:
        argv: the words after the command's name.
        command: the subcommand, such as ``run deploy``; empty where flags are not checked.
        flags: the flags with their values; a flag that was given several times has one value a line.
        rest: the other words.
    """

    name: str
    argv: list[str]
    stdin: str
    cwd: Path
    command: str
    flags: dict[str, str]
    rest: list[str]

    @property
    def line(self) -> str:
        """The call as a shell reads it."""
        return shlex.join([self.name, *self.argv])


Program = Callable[[CommandCall], str]


@dataclass(frozen=True)
class _Command:
    program: Program
    accepts: Mapping[str, Sequence[str]] | None


@dataclass
class _Fault:
    name: str
    words: set[str]
    error: CommandError
    after: int


class FakeCommands:
    """A folder of fake commands, until ``close``.

    Attributes:
        bin: the folder for PATH.
    """

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir(parents=True)
        self._commands: dict[str, _Command] = {}
        self._faults: list[_Fault] = []
        self._calls: list[CommandCall] = []
        self._lock = threading.Lock()
        self._server: socketserver.ThreadingTCPServer | None = None

    def add(
        self,
        name: str,
        program: Program | None = None,
        *,
        answer: str = "",
        accepts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Make, or replace, the command ``name``.

        Args:
            name: such as ``gcloud``.
            program: returns what it prints, or raises CommandError; without one it prints ``answer``.
            answer: what it prints.
            accepts: its flags by subcommand, as ``parse`` takes them; None takes anything.
        """
        self._commands[name] = _Command(program or (lambda _: answer), accepts)
        script = self.bin / name
        script.write_text(_SCRIPT.format(bash=shutil.which("bash"), name=name, port=self._port()))
        script.chmod(0o755)

    def fail(self, name: str, *words: str, code: int = 1, message: str = "told to fail", after: int = 0) -> None:
        """Let the command fail once, at a call with all these words, after ``after`` such calls that succeed."""
        self._faults.append(_Fault(name, set(words), CommandError(message, code), after))

    def calls(self, name: str | None = None) -> list[CommandCall]:
        """The calls of all commands, or of one, in order."""
        return [call for call in self._calls if name in (None, call.name)]

    def forget(self) -> None:
        """Forget the calls until now."""
        self._calls.clear()

    def close(self) -> None:
        """Stop the server that answers for the commands."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _port(self) -> int:
        if self._server is None:
            commands = self

            class Handler(socketserver.StreamRequestHandler):
                def handle(self) -> None:
                    commands._answer(self)

            self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        port: int = self._server.server_address[1]
        return port

    def _answer(self, connection: socketserver.StreamRequestHandler) -> None:
        fields = _fields(connection)
        name, cwd, count = (next(fields) for _ in range(3))
        argv = [next(fields) for _ in range(int(count))]
        stdin = next(fields)
        # One at a time: commands may be called side by side, and a program keeps state.
        with self._lock:
            try:
                out, err, code = self._run(name, argv, stdin, Path(cwd)), "", 0
            except CommandError as error:
                out, err, code = "", f"{error}\n", error.code
        connection.wfile.write(f"{code}\0{out}\0{err}\0".encode())

    def _run(self, name: str, argv: list[str], stdin: str, cwd: Path) -> str:
        known = self._commands[name]
        wrong = ""
        command, flags, rest = "", dict[str, str](), argv
        if known.accepts is not None:
            try:
                command, flags, rest = parse(argv, known.accepts)
            except ValueError as error:
                wrong = f"{name}: {error}"
        call = CommandCall(name, argv, stdin, cwd, command, flags, rest)
        self._calls.append(call)
        if wrong:
            raise CommandError(wrong, 64)
        for fault in self._faults:
            if fault.name == name and fault.words <= set(argv):
                fault.after -= 1
                if fault.after < 0:
                    self._faults.remove(fault)
                    raise fault.error
                break
        return known.program(call)


def _fields(connection: socketserver.StreamRequestHandler) -> Iterator[str]:
    """Read the fields, each of which ends with a NUL."""
    pending = b""
    while chunk := connection.request.recv(65536):
        *whole, pending = (pending + chunk).split(b"\0")
        yield from (field.decode() for field in whole)


def parse(argv: Sequence[str], accepts: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, str], list[str]]:
    """Take a command line apart: the subcommand, its flags with their values, and the other words.

    Args:
        argv: the words after the command's name.
        accepts: flags by subcommand ("run deploy"); one that takes a value ends in ``=``, one that may be given again
            in ``=*``. Those under "" fit all.

    Raises:
        ValueError: an unknown subcommand or flag, a missing value or an extra one, a flag that is given twice.
    """
    words = [word for word in argv if not word.startswith("-")]
    fitting = [sub for sub in accepts if sub.split() == words[: len(sub.split())]]
    if not fitting or (fitting == [""] and len(accepts) > 1):
        raise ValueError(f"no such subcommand: {words}")
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
        if flag in known and not equals:
            flags[flag] = ""
        elif {f"{flag}=", f"{flag}=*"} & known:
            if not equals and (value := next(remaining, "")) == "":
                raise ValueError(f"{flag} takes a value")
            if flag in flags and f"{flag}=*" not in known:
                raise ValueError(f"{flag} is given twice")
            flags[flag] = f"{flags[flag]}\n{value}" if flag in flags else value
        else:
            raise ValueError(f"{command}: unknown flag {word}")
    return command, flags, rest[len(command.split()) :]
