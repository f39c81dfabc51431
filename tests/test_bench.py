"""Each benchmark runs at its smallest size, to show that it still works. Timings are not tested."""

from __future__ import annotations

import importlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench import table, trigger_cost
from bench.__main__ import PROGRAMS, main
from bench.database import BOUND, CALLING_BOUND, GUIDE, LEAST, OURS, database
from bench.uploads import MATCHING

# The slow ones. `make bench` runs all.
VARIATIONS = {"backfill", "burst", "cold_start", "end_to_end", "hanging", "slow", "waiting", "warm"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.variation] * (name in VARIATIONS)) for name in PROGRAMS]
)
def test_a_program_measures_its_rows(name: str, tmp_path: Path) -> None:
    program = importlib.import_module(f"bench.{name}")

    rows = program.measure(small=True)

    assert sorted(row.row for row in rows) == sorted(program.ROWS)
    assert all(row.holds for row in rows)
    assert all((row.goal is None) is (row.bound is not None) for row in rows)
    table.write_json(rows, tmp_path / "bench.json")
    for row in json.loads((tmp_path / "bench.json").read_text()):
        assert set(row) >= {"row", "name", "ours", "baseline", "ratio", "goal", "met", "stand_in"}
        assert math.isfinite(row["ratio"])
        assert math.isfinite(row["bound"] or 0)


def test_each_row_belongs_to_one_program() -> None:
    rows = [row for name in PROGRAMS for row in importlib.import_module(f"bench.{name}").ROWS]
    assert sorted(rows) == list(range(1, 26))


@pytest.mark.parametrize(("rows", "error"), [("99", "there is no row 99: there are 1 to 25"), ("1,x", "invalid")])
def test_unknown_rows_are_refused(rows: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--rows", rows])
    assert error in capsys.readouterr().err


def test_trigger_cost_measures_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    trigger_cost.main(["--uploads", "2", "--rounds", "1"])

    printed = capsys.readouterr().out
    for case in trigger_cost.CASES:
        assert case in printed
    assert "A bulk delete of 2 with the ledger locked" in printed


def test_each_trigger_that_is_compared_does_its_work() -> None:
    # How many rows it writes into the minimal trigger's table, how many jobs, and how many calls.
    work: dict[str | None, tuple[int, int, int]] = {None: (0, 0, 0), GUIDE: (0, 0, 1), LEAST: (1, 0, 1)}
    work |= {BOUND: (0, 1, 0), CALLING_BOUND: (0, 1, 1), OURS: (0, 1, 1)}
    with database(cheap_net=True) as target:
        target.rules(MATCHING)
        for trigger, expected in work.items():
            target.use(trigger)
            target.empty()
            target.admin.execute("select ittybit.set_last_woken('on-upload', 0)")
            target.put("clips/2026/1.mp4")
            written = (
                target.one("select count(*) from public.least"),
                target.one("select count(*) from ittybit.jobs"),
                target.one("select count(*) from net.http_request_queue"),
            )
            assert written == expected, trigger


ROW = table.Row(7, "start (ms)", 300.0, 200.0, 1.5, "<= 1.4", stand_in=False, more={"of it imports (ms)": 1234.5})
KEPT = table.Row(2, "kept", 1.0, None, 1.0, "<= 5", stand_in=True)


def test_a_bound_replaces_the_goal() -> None:
    row = replace(ROW, goal=None, bound=1.2)

    assert row.met is None
    assert "| 7 | start (ms) | 300 | 200 | 1.5 | bound 1.2 | 1.25 times the bound |  |\n" in table.markdown([row])


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
def test_a_goal_needs_its_ratio_and_its_other_conditions(ratio: float, goal: str, holds: bool, met: bool) -> None:
    assert table.Row(1, "", 1, 1, ratio, goal, stand_in=False, holds=holds).met is met


def test_writing_rows_into_the_document_keeps_its_other_rows_and_its_text(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    former = table.markdown([replace(ROW, name="old"), replace(ROW, row=70, name="kept", more={"(s)": 12}), KEPT])
    document.write_text(f"# Before\n\n{table.BEGIN}\n{former}{table.END}\n\nafter\n")

    table.write_document([ROW], document)
    table.write_document([ROW], document)

    text = document.read_text()
    assert text.startswith("# Before\n\n")
    assert text.endswith(f"{table.END}\n\nafter\n")
    assert text.count("| 7 | start (ms) | 300 | 200 | 1.5 | ≤ 1.4 | **no** |  |") == 1
    assert text.count("- 7: of it imports (ms): 1,234\n") == 1
    assert "old" not in text
    assert re.findall(r"^\| (\d+) \| (\w+)", text, re.MULTILINE) == [("2", "kept"), ("7", "start"), ("70", "kept")]
    assert re.findall(r"^- (\d+): ", text, re.MULTILINE) == ["7", "70"]
