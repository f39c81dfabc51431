"""The output of programs: colours and bars in a terminal, neither in a file."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from deploy.output import Screen, coloured
from local.functions import ROOT

# A stand-in for pip: it prints a line for each package that it fetches, and makes a folder when it installs one.
PIP = """#!{python}
import pathlib, sys
seen = pathlib.Path("{seen}")  # a pipe, which says that the bar was shown
if sys.argv[1:3] == ["-m", "venv"]:
    (pathlib.Path(sys.argv[3]) / "bin").mkdir(parents=True)
    (pathlib.Path(sys.argv[3]) / "bin" / "python").symlink_to(sys.argv[0])
elif "{fails}":
    print("ERROR: no such package", file=sys.stderr)
    sys.exit(1)
else:
    site = pathlib.Path(sys.argv[0]).parent.parent / "lib" / "python3" / "site-packages"
    for line in (1, 2):
        print(f"Collecting p{{line}}==1 (from -r requirements.txt (line {{line}}))", flush=True)
        seen.read_text()
    (site / "p1.dist-info").mkdir(parents=True)
    print("Installing collected packages: p1, p2", flush=True)
    seen.read_text()
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def shown(stream: io.StringIO) -> str:
    with Screen(stream) as screen:
        screen.bar("uploading", 0.5)
        screen.line(coloured("done", "green", stream))
        screen.bar("uploading", 2)
    return stream.getvalue()


HALF, FULL = f"uploading  [{'#' * 15}{'.' * 15}]  50%", f"uploading  [{'#' * 30}] 100%"


def test_a_terminal_shows_colours_and_a_bar_that_is_erased() -> None:
    erase = "\r\033[K"
    assert shown(Terminal()) == f"{HALF}{erase}\033[32mdone\033[0m\n{HALF}{erase}{FULL}{erase}"


@pytest.mark.parametrize("colours", ["1", "0"])
def test_no_color_removes_only_the_colours(monkeypatch: pytest.MonkeyPatch, colours: str) -> None:
    monkeypatch.setenv("NO_COLOR", colours)
    output = shown(Terminal())
    assert HALF in output
    assert "\033[32m" not in output


def test_a_file_and_a_terminal_that_cannot_move_its_cursor_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO()) == "done\n"
    monkeypatch.setenv("TERM", "dumb")
    assert shown(Terminal()) == "done\n"


def test_a_bar_is_not_wider_than_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    Screen(stream).bar("uploading", 0.5)
    assert len(stream.getvalue()) == 19


def in_terminal(
    command: list[str], environment: Mapping[str, str], seen: Path, waits_for: Sequence[str]
) -> tuple[int, str]:
    """Run a command in a terminal; return its exit status and its output.

    The command reads from ``seen`` to wait until each of ``waits_for`` was shown.
    """
    ours, its = pty.openpty()
    waiting = [text.encode() for text in waits_for]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        output = b""
        try:
            while piece := os.read(ours, 65536):
                output += piece
                while waiting and waiting[0] in output:
                    seen.write_text("")
                    waiting.pop(0)
        except OSError:  # it has ended
            pass
        os.close(ours)
    return process.returncode, output.decode()


@pytest.mark.parametrize("fails", ["", "yes"])
def test_the_installation_shows_a_bar(tmp_path: Path, fails: str) -> None:
    python = tmp_path / "python3"
    seen = tmp_path / "seen"
    os.mkfifo(seen)
    python.write_text(PIP.format(python=sys.executable, fails=fails, seen=seen))
    python.chmod(0o755)
    (tmp_path / "requirements.txt").write_text("p1==1\np2==1\n")
    script = f"import sys; sys.executable = {str(python)!r}; from deploy.install import main; from pathlib import Path;"
    script += f"sys.exit(main(Path({str(tmp_path / 'venv' / 'made')!r}), Path({str(tmp_path / 'requirements.txt')!r})))"
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "COLUMNS": "80"}
    status, output = in_terminal([sys.executable, "-c", script], environment, seen, ("20%", "40%", "73%"))
    last = output.replace("\r\n", "\n").rpartition("\033[K")[2]
    if fails:
        assert (status, "ERROR: no such package\n" in last) == (1, True), output
    else:
        assert (status, last) == (0, "")
        bars = [piece.rpartition("] ")[2].strip() for piece in output.split("\r\033[K") if "installing  [" in piece]
        assert bars == sorted(bars, key=lambda bar: int(bar[:-1]))
        assert {"20%", "40%", "73%"} <= set(bars), bars
