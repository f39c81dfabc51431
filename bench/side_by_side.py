"""Measures two or more cases in turns, so that other work on the machine slows all of them alike."""

from __future__ import annotations

import contextlib
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

# The server gets one core and the load the other, if there are two.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVING, LOADING = CORES[0], CORES[-1]


def in_turns(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure every case once a round, in reverse order every other round; return each case's measurements."""
    measured: dict[str, list[float]] = {case: [] for case in cases}
    for number in range(rounds):
        for case in sorted(cases, reverse=number % 2 == 1):
            measured[case].append(cases[case]())
    return measured


def ratio(ours: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(ours, baseline, strict=True))


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes by the wall clock, with the garbage collector off."""
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    finally:
        gc.enable()


def pin(core: int, process: int = 0) -> None:
    """Pin a process (0: this thread), and the processes that it starts from now on, to one core; only on Linux."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, {core})


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Pin this thread to one core until the ``with`` block ends."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    pin(core)
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def cpu_seconds(processes: Sequence[int]) -> float:
    """Processor time that the processes have used so far, to the nanosecond (Linux: /proc/<pid>/task/*/schedstat)."""
    tasks = (task for process in processes for task in Path(f"/proc/{process}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
