"""Rows 9 to 12: a warm function's throughput, its processor time and its memory.

The function has one core; what loads it, and what it calls, have the other.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench.load import MESSAGE, Answers, load, signed
from bench.serving import ON_UPLOAD, ONE_LINE, THREE_CALLS, Serving, deployed, environment, serving
from bench.side_by_side import LOADING, SERVING, cpu_seconds, in_turns, pin, pinned, ratio
from bench.table import Row
from bench.upstream import Upstream

ROWS = (9, 10, 11, 12)
JSON = {"Content-Type": "application/json"}
THREADS = 16
DELAY = 0.05


def measure(small: bool) -> list[Row]:
    """Measure the four rows."""
    programs = deployed(small=small)
    length, rounds = (0.2, 1) if small else (3.0, 7)
    with Upstream(DELAY) as slow, Upstream(0) as quick, pinned(LOADING):
        return [
            _throughput(programs, environment(slow.origin), length, rounds),
            _cpu(programs, environment(quick.origin), length, rounds),
            *_refusals_and_memory(programs, environment(quick.origin), length, rounds),
        ]


def _jobs(served: Serving, connections: int, length: float, status: int = 202) -> Answers:
    return load(served.port, MESSAGE, signed(), status=status, connections=connections, seconds=length)


def _throughput(programs: Path, settings: Mapping[str, str], length: float, rounds: int) -> Row:
    """Jobs a second where every call out takes 50 ms."""
    with (
        serving(programs, ON_UPLOAD, settings, threads=THREADS) as ours,
        serving(programs, THREE_CALLS, settings, threads=THREADS) as bare,
    ):
        for served in (ours, bare):
            served.first_answer(MESSAGE, signed())
        cases = {
            "ours": lambda: _jobs(ours, THREADS, length).per_second,
            "bare": lambda: _jobs(bare, THREADS, length, 200).per_second,
        }
        times = in_turns(cases, rounds)
    return Row(
        9,
        "warm jobs a second, one core, 16 threads, 50 ms a call out, beside three bare calls",
        statistics.median(times["ours"]),
        statistics.median(times["bare"]),
        ratio(times["ours"], times["bare"]),
        ">= 0.9",
        stand_in=True,
    )


def _cpu(programs: Path, settings: Mapping[str, str], length: float, rounds: int) -> Row:
    """Processor time for one warm job, the framework's included, beside three calls in a loop with nothing around."""
    with (
        serving(programs, ON_UPLOAD, settings, threads=THREADS) as ours,
        serving(programs, THREE_CALLS, settings, threads=THREADS) as served_bare,
        _bare_calls(programs, settings) as bare,
    ):
        for served in (ours, served_bare):
            served.first_answer(MESSAGE, signed())
            _jobs(served, 1, length / 4, 202 if served is ours else 200)
        bare(10)

        def cpu_of(served: Serving, status: int) -> Callable[[], float]:
            def run() -> float:
                before = cpu_seconds(served.processes)
                count = _jobs(served, 1, length, status).count
                return (cpu_seconds(served.processes) - before) / count

            return run

        times = in_turns(
            {
                "ours": cpu_of(ours, 202),
                "bare": lambda: bare(max(10, int(length * 150))),
                "served": cpu_of(served_bare, 200),
            },
            rounds,
        )
    served_ratio = ratio(times["ours"], times["served"])
    return Row(
        10,
        "processor time of a warm job, beside three bare calls in a loop (ms)",
        statistics.median(times["ours"]) * 1000,
        statistics.median(times["bare"]) * 1000,
        ratio(times["ours"], times["bare"]),
        "<= 1.3",
        stand_in=True,
        more={
            "three bare calls served by functions-framework (ms)": statistics.median(times["served"]) * 1000,
            "ratio to that": served_ratio,
        },
    )


_LOOP = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from three_calls import three_calls
for line in sys.stdin:
    before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for _ in range(int(line)):
        three_calls("7a528c1c-005f-4bc2-bb6f-38b460de86d7", 1)
    print((sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before) / int(line), flush=True)
"""


@contextlib.contextmanager
def _bare_calls(programs: Path, settings: Mapping[str, str]) -> Iterator[Callable[[int], float]]:
    """Give what makes so many triples of calls in a process of its own, and answers the processor time of one."""
    process = subprocess.Popen(
        [programs / "python", "-c", _LOOP, THREE_CALLS.source.parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(settings),
        text=True,
    )
    pin(SERVING, process.pid)
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None  # noqa: S101 - it was asked for
    assert stdout is not None  # noqa: S101 - as well

    def run(count: int) -> float:
        print(count, file=stdin, flush=True)
        return float(stdout.readline())

    try:
        yield run
    finally:
        process.communicate()


def _refusals_and_memory(programs: Path, settings: Mapping[str, str], length: float, rounds: int) -> list[Row]:
    """Unsigned calls refused a second; then the memory of both under the load that each is for."""
    with (
        serving(programs, ON_UPLOAD, settings, threads=THREADS) as ours,
        serving(programs, ONE_LINE, settings, threads=THREADS) as one_line,
    ):
        for served in (ours, one_line):
            served.first_answer(MESSAGE, JSON)

        def calls(served: Serving, status: int) -> Callable[[], float]:
            return lambda: (
                load(served.port, MESSAGE, JSON, status=status, connections=THREADS, seconds=length).per_second
            )

        times = in_turns({"ours": calls(ours, 401), "one line": calls(one_line, 200)}, rounds)
        _jobs(ours, THREADS, length)
        memory = {"ours": ours.memory(), "one line": one_line.memory()}
    refusals = Row(
        11,
        "unsigned calls refused a second, one core, beside a one-line function's answers",
        statistics.median(times["ours"]),
        statistics.median(times["one line"]),
        ratio(times["ours"], times["one line"]),
        ">= 0.9",
        stand_in=False,
    )
    return [
        refusals,
        Row(
            12,
            "memory of a serving instance under load, beside a one-line function's (MB)",
            memory["ours"] / 1e6,
            memory["one line"] / 1e6,
            memory["ours"] / memory["one line"],
            "<= 1.5",
            stand_in=True,
        ),
    ]
