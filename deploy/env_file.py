"""Env files such as ``.env``: every reader uses the same grammar, that of python-dotenv.

Nothing is interpolated: ``${HOME}`` is these seven characters. ./deploy.sh runs ``python -m deploy.env_file FILE``: it
prints each name and value followed by a NUL, and an empty name at the end. With ``FILE NAME`` it sets NAME in the file
to the value on standard input.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dotenv.parser import Binding, parse_stream

_GRAMMAR = "A comment starts with #. A name consists of A-Z, 0-9 and _. A value with a line break or # needs quotes."
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")


class EnvFileError(Exception):
    """The file cannot be read or written; the message says where, and does not quote the file."""


def read(file: Path) -> dict[str, str]:
    """Return the variables of the file; an empty one counts as absent.

    Raises:
        EnvFileError: there is no such file, or one of its lines is malformed.
    """
    values = {one.key: one.value for one in _bindings(file) if one.key is not None}
    return {name: value for name, value in values.items() if value}


def keep(file: Path, name: str, value: str) -> None:
    """Set a variable in the file, in place of an earlier line of that name; the other lines stay as they are.

    The file is replaced as a whole: a reader sees the old file or the new one. Only its owner may read it, because it
    holds keys.

    Raises:
        EnvFileError: the file is malformed, or its folder cannot be written.
    """
    lines, line = [], f"{name}={value}\n"
    for one in _bindings(file) if file.exists() else ():
        blank = one.original.string[: len(one.original.string) - len(one.original.string.lstrip())]
        if one.key != name:
            lines.append(one.original.string)
        elif line:
            lines.append(blank + line)
            line = ""
    text = "".join(lines)
    if line:
        text += "\n" * bool(text and not text.endswith(("\n", "\r"))) + line
    target = file.resolve()
    try:
        with _aside(target) as made:
            made.write_bytes(text.encode())
            made.replace(target)
    except OSError as error:
        raise EnvFileError(f"{file} cannot be written in {target.parent}: {error.strerror}") from None


def _bindings(file: Path) -> Iterator[Binding]:
    """Yield the file's lines, in order, with its comments and blank lines."""
    try:
        # Some editors begin a file with a byte-order mark.
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise EnvFileError(f"{file}, line {line}: not UTF-8") from None
    except OSError as error:
        raise EnvFileError(f"{file} cannot be read: {error.strerror}") from None
    for one in parse_stream(io.StringIO(text, newline="")):
        is_blank = one.key is None and not one.error
        if not is_blank and (one.error or one.value is None or "\0" in one.value or not _NAME.fullmatch(one.key or "")):
            lead = re.match(r"\s*", one.original.string)
            line = one.original.line + len(re.findall(r"\r\n|\r|\n", lead[0] if lead else ""))
            raise EnvFileError(f"{file}, line {line}: not NAME=value")
        yield one


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Make a temporary file in the target's folder; delete it at the end unless it was moved."""
    handle, name = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def main(file: Path, name: str = "") -> int:
    """Print the file's variables, or set one; return 0, or 2 after saying what is wrong."""
    # SIGTERM acts like Ctrl-C, so that no temporary file is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if name:
            keep(file, name, sys.stdin.buffer.read().decode())
        else:
            pairs = "".join(f"{key}\0{value}\0" for key, value in read(file).items())
            sys.stdout.buffer.write(pairs.encode() + b"\0")
    except EnvFileError as error:
        print(f"deploy.sh: {error}\n  {_GRAMMAR}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
