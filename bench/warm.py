"""Rows 7, 16 and 17: a warm function's throughput, its refusals and its memory.

The function has one core. The load and the server that the function calls share the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.function_process import BOUND, ON_UPLOAD, ONE_LINE, THREE_CALLS, Serving, deployed, environment
from bench.load import MESSAGE, Answers, load, signed
from bench.side_by_side import LOADING, in_turns, pinned, ratio
from bench.table import Row
from bench.upstream import Upstream
from shared.worker import DRAINS

ROWS = (7, 16, 17)
JSON = {"Content-Type": "application/json"}
THREADS = 16
DELAY = 0.05


def measure(small: bool) -> list[Row]:
    """Measure the three rows."""
    programs = deployed(small=small)
    length, rounds = (0.2, 1) if small else (3.0, 7)
    with Upstream(DELAY) as slow, pinned(LOADING):
        return [
            _throughput(programs, environment(slow.origin), length, rounds),
            *_refusals_and_memory(programs, environment(slow.origin), length, rounds),
        ]


def _jobs(served: Serving, connections: int, length: float) -> Answers:
    return load(served.port, MESSAGE, signed(), status=200, connections=connections, seconds=length)


def _throughput(programs: Path, settings: Mapping[str, str], length: float, rounds: int) -> Row:
    """Jobs a second when every outgoing call takes 50 ms and there is always another job."""
    with (
        Serving(programs, ON_UPLOAD, settings, threads=THREADS) as ours,
        Serving(programs, THREE_CALLS, settings, threads=THREADS) as bare,
    ):
        for served in (ours, bare):
            served.first_answer(MESSAGE, signed())

        def a_second(served: Serving, connections: int) -> Callable[[], float]:
            def run() -> float:
                answers = _jobs(served, connections, length)
                return answers.started / answers.seconds

            return run

        times = in_turns({"ours": a_second(ours, DRAINS), "bare": a_second(bare, THREADS)}, rounds)
    return Row(
        7,
        "jobs a second of one process, outgoing calls taking 50 ms, compared with three bare calls a job, 16 at a time",
        statistics.median(times["ours"]),
        statistics.median(times["bare"]),
        ratio(times["ours"], times["bare"]),
        ">= 3",
        stand_in=True,
    )


def _refusals_and_memory(programs: Path, settings: Mapping[str, str], length: float, rounds: int) -> list[Row]:
    """Unsigned calls refused a second; then the memory of both functions, after jobs for on-upload."""
    with (
        Serving(programs, ON_UPLOAD, settings, threads=THREADS) as ours,
        Serving(programs, ONE_LINE, settings, threads=THREADS) as one_line,
        Serving(programs, BOUND, settings, threads=THREADS) as bound,
    ):
        for served in (ours, one_line, bound):
            served.first_answer(MESSAGE, JSON)

        def calls(served: Serving, status: int) -> Callable[[], float]:
            return lambda: (
                load(served.port, MESSAGE, JSON, status=status, connections=THREADS, seconds=length).per_second
            )

        cases = {"ours": calls(ours, 401), "one line": calls(one_line, 200), "bound": calls(bound, 401)}
        times = in_turns(cases, rounds)
        _jobs(ours, DRAINS, length)
        _jobs(bound, THREADS, length)
        memory = {"ours": ours.memory(), "one line": one_line.memory(), "bound": bound.memory()}
    refusals = Row(
        16,
        "unsigned calls refused a second, one core, compared with a one-line function's answers",
        statistics.median(times["ours"]),
        statistics.median(times["one line"]),
        ratio(times["ours"], times["one line"]),
        ">= 0.9",
        stand_in=False,
        more={"ratio of the least that a function of this project needs": ratio(times["bound"], times["one line"])},
    )
    return [
        refusals,
        Row(
            17,
            "memory of a serving instance under load, compared with a one-line function's (MB)",
            memory["ours"] / 1e6,
            memory["one line"] / 1e6,
            memory["ours"] / memory["one line"],
            "<= 1.5",
            stand_in=True,
            more={"ratio of the least that a function of this project needs": memory["bound"] / memory["one line"]},
        ),
    ]
