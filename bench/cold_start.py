"""Rows 14 and 15: from the start of a process to the answer to its first job, and to its first refusal."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.function_process import BOUND, ON_UPLOAD, ONE_LINE, Function, Serving, deployed, environment
from bench.load import MESSAGE, signed
from bench.side_by_side import LOADING, in_turns, pinned, ratio
from bench.table import Row
from bench.upstream import Upstream

ROWS = (14, 15)
JSON = {"Content-Type": "application/json"}


def measure(small: bool) -> list[Row]:
    """Measure both rows."""
    programs = deployed(small=small)
    with Upstream(delay=0, due=1) as upstream, pinned(LOADING):
        settings = environment(upstream.origin)
        cases = {
            "one line": _start(programs, ONE_LINE, settings, lambda: JSON, 200),
            "first job": _start(programs, ON_UPLOAD, settings, signed, 200),
            "first refusal": _start(programs, ON_UPLOAD, settings, lambda: JSON, 401),
            "bound job": _start(programs, BOUND, settings, signed, 200),
            "bound refusal": _start(programs, BOUND, settings, lambda: JSON, 401),
        }
        times = in_turns(cases, 1 if small else 25)
    return [
        _row(14, "from process start to the answer to the first wake-up, one job done (ms)", times, "job"),
        _row(15, "from process start to on-upload's first refusal (ms)", times, "refusal"),
    ]


def _start(
    programs: Path,
    function: Function,
    settings: Mapping[str, str],
    headers: Callable[[], Mapping[str, str]],
    status: int,
) -> Callable[[], float]:
    def run() -> float:
        sent = headers()
        began = time.perf_counter()
        with Serving(programs, function, settings) as served:
            answered = served.first_answer(MESSAGE, sent)
            took = time.perf_counter() - began
        if answered != status:
            raise RuntimeError(f"{function.name} answered {answered}, not {status}")
        return took

    return run


def _row(number: int, name: str, times: Mapping[str, list[float]], call: str) -> Row:
    mine, one_line = times[f"first {call}"], times["one line"]
    return Row(
        number,
        name,
        statistics.median(mine) * 1000,
        statistics.median(one_line) * 1000,
        ratio(mine, one_line),
        None,
        stand_in=number == 14,  # the first job calls stand-ins
        bound=ratio(times[f"bound {call}"], one_line),
    )
