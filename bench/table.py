"""The rows of one run: as a table to read, as ``build/bench.json``, and as the table of docs/performance.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from local.functions import ROOT

JSON = ROOT / "build" / "bench.json"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_NUMBERED = re.compile(r"(?:\| |- )(\d+)(?: \||:)")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        row: its number.
        name: what was measured, with the unit of ``ours`` and ``baseline``.
        baseline: what a user would have without us; None where the goal is a bare number.
        ratio: ours to baseline, the median of the rounds; ours alone where there is no baseline.
        goal: the limit for ``ratio``, such as ``<= 1.5``. None if there is a bound.
        bound: the ratio of the least that keeps the same promises, measured in the same run. It replaces a goal that it
            shows to be out of reach.
        holds: whether the goal's other conditions are met.
        stand_in: whether a stand-in took part.
        more: further figures of the same run, for the document.
    """

    row: int
    name: str
    ours: float
    baseline: float | None
    ratio: float
    goal: str | None
    stand_in: bool
    bound: float | None = None
    holds: bool = True
    more: dict[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        if self.goal is None:
            return None
        sign, limit = self.goal.split()
        within = self.ratio <= float(limit) if sign == "<=" else self.ratio >= float(limit)
        return within and self.holds


def markdown(rows: Iterable[Row], former: str = "") -> str:
    """Return the table as the document has it, with the rows of the former table that were not measured now."""
    measured = {row.row: _lines(row) for row in rows}
    kept: dict[int, list[str]] = {}
    for line in former.splitlines():
        if (number := _NUMBERED.match(line)) and int(number[1]) not in measured:
            kept.setdefault(int(number[1]), []).append(line)
    lines = [line for _, row in sorted((kept | measured).items()) for line in row]
    head = ["| # | what | ours | baseline | ratio | goal | met | stand-in |", "|---|---|---|---|---|---|---|---|"]
    more = [line for line in lines if line.startswith("-")]
    table = [*head, *(line for line in lines if line.startswith("|"))]
    return "\n".join([*table, *(["", "In the same runs:", "", *more] if more else [])]) + "\n"


def _lines(row: Row) -> list[str]:
    """A row's line of the table, and a line for each further figure."""
    if row.bound is not None:
        goal, met = f"bound {_short(row.bound)}", f"{_short(row.ratio / row.bound)} times the bound"
    else:
        goal, met = (row.goal or "").replace("<=", "≤").replace(">=", "≥"), "yes" if row.met else "**no**"
    stand_in = "yes" if row.stand_in else ""
    figures = f"{_short(row.ours)} | {_short(row.baseline)} | {_short(row.ratio)}"
    more = [f"- {row.row}: {name}: {_short(value)}" for name, value in row.more.items()]
    return [f"| {row.row} | {row.name} | {figures} | {goal} | {met} | {stand_in} |", *more]


def _short(value: float | None) -> str:
    """Three significant digits, and never an exponent."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_json(rows: Sequence[Row], file: Path = JSON) -> None:
    """Write every row, and whether its goal is met."""
    file.parent.mkdir(exist_ok=True)
    content = [{**{k: v for k, v in asdict(row).items() if k != "holds"}, "met": row.met} for row in rows]
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_document(rows: Sequence[Row], document: Path = DOCUMENT) -> None:
    """Write the rows into the table between the document's two marks; its other rows stay."""
    head, _, rest = document.read_text().partition(BEGIN)
    former, _, tail = rest.partition(END)
    document.write_text(f"{head}{BEGIN}\n{markdown(rows, former)}{END}{tail}")
