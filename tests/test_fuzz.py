"""tests/fuzz.py: it counts the inputs, finds what is wrong, and says both in its last line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from local.functions import ROOT

HOLDS = """
from hypothesis import given, strategies as st

@given(st.integers())
def test_holds(number: int) -> None:
    with open({log!r}, "a") as log:
        log.write("x")

def test_of_one_input() -> None:
    raise AssertionError("is no property")
"""
BREAKS = """
from hypothesis import given, strategies as st

@given(st.integers())
def test_breaks(number: int) -> None:
    assert number < 1000
"""


def fuzz(folder: Path) -> tuple[int, list[str]]:
    """Fuzz for a moment; return the exit status and what was printed."""
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "0.5", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_each_input_is_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "test_one.py").write_text(HOLDS.format(log=str(log)))
    status, lines = fuzz(tmp_path)
    run = len(log.read_text())
    assert run > 1
    assert (status, lines[-1]) == (0, f"fuzz: {run:,} inputs, 0 findings")


def test_a_finding_is_printed_with_its_smallest_input_and_fails(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(BREAKS)
    (tmp_path / "test_two.py").write_text(HOLDS.format(log=str(tmp_path / "log")))
    status, lines = fuzz(tmp_path)
    output = "\n".join(lines)
    assert status == 1
    assert lines[-1].endswith(" inputs, 1 findings")
    assert "number=1000," in output
    assert "@reproduce_failure(" in output


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("import no_such_module")
    status, lines = fuzz(tmp_path)
    assert (status, lines[-1]) == (1, "fuzz: 0 inputs, 1 findings")
