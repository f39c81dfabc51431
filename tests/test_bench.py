"""Each benchmark runs at its smallest size, so that none rots; no timing passes or fails."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest

from bench import concurrency, table, trigger_cost
from bench.__main__ import PROGRAMS, main

# The slow ones. `make bench` runs all.
VARIATIONS = {"backfill", "burst", "cold_start", "end_to_end", "hanging", "warm"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.variation] * (name in VARIATIONS)) for name in PROGRAMS]
)
def test_a_program_measures_its_rows(name: str, tmp_path: Path) -> None:
    program = importlib.import_module(f"bench.{name}")

    rows = program.measure(small=True)

    assert sorted(row.row for row in rows) == sorted(program.ROWS)
    assert all(row.holds for row in rows)
    table.write_json(rows, tmp_path / "bench.json")
    for told in json.loads((tmp_path / "bench.json").read_text()):
        assert set(told) >= {"row", "name", "ours", "baseline", "ratio", "goal", "met", "stand_in"}
        assert math.isfinite(told["ratio"])


def test_the_programs_have_every_row_once() -> None:
    rows = [row for name in PROGRAMS for row in importlib.import_module(f"bench.{name}").ROWS]
    assert sorted(rows) == list(range(1, 19))


@pytest.mark.parametrize(("rows", "said"), [("99", "there is no row 99: there are 1 to 18"), ("1,x", "invalid")])
def test_rows_that_there_are_not_are_refused(rows: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--rows", rows])
    assert said in capsys.readouterr().err


def test_harmless_measures_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    trigger_cost.main(["--uploads", "2", "--rounds", "1"])

    printed = capsys.readouterr().out
    for case in trigger_cost.CASES:
        assert case in printed
    assert "A bulk delete of 2 with the ledger locked" in printed


def test_with_several_of_everything_nothing_is_started_or_claimed_twice(capsys: pytest.CaptureFixture[str]) -> None:
    concurrency.main(["--jobs", "12", "--small"])

    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [(row[0], row[2], row[4]) for row in rows] == [("1", "0", "0"), ("2", "0", "0"), ("4", "0", "0")]


ROW = table.Row(7, "start (ms)", 300.0, 200.0, 1.5, "<= 1.4", stand_in=False, more={"of it imports (ms)": 1234.5})


@pytest.mark.parametrize(
    ("ratio", "goal", "holds", "met"),
    [
        (1.4, "<= 1.4", True, True),
        (1.41, "<= 1.4", True, False),
        (0.9, ">= 0.9", True, True),
        (0.89, ">= 0.9", True, False),
        (1.0, "<= 1.4", False, False),
    ],
)
def test_a_goal_is_met_by_the_ratio_and_by_what_else_it_asks_for(
    ratio: float, goal: str, holds: bool, met: bool
) -> None:
    assert table.Row(1, "", 1, 1, ratio, goal, stand_in=False, holds=holds).met is met


def test_the_document_is_given_the_table_and_keeps_the_rest(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"# Before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n")

    table.write_document([ROW], document)
    table.write_document([ROW], document)

    text = document.read_text()
    assert text.startswith("# Before\n\n")
    assert text.endswith(f"{table.END}\n\nafter\n")
    assert text.count("| 7 | start (ms) | 300 | 200 | 1.5 | ≤ 1.4 | **no** |  |") == 1
    assert "- 7: of it imports (ms): 1,234\n" in text
    assert "old" not in text
