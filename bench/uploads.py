"""Rows 1 to 3: the cost that the trigger adds to a single upload, to one in a burst, and to one without a rule."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from bench.database import BOUND, BUCKET, CALLING_BOUND, GUIDE, LEAST, OURS, Database, database
from bench.side_by_side import cpu_seconds, in_turns, ratio, seconds
from bench.table import Row

ROWS = (1, 2, 3)
MATCHING = (BUCKET, "clips/**", "video/*")
# The worst case: all in the object's own bucket, each with a pattern of its own.
NOT_MATCHING = tuple((BUCKET, f"team-{number}/uploads/*.mp4", "video/*") for number in range(100))
_WOKEN = "select ittybit.set_last_woken('on-upload', %s)"


def measure(small: bool) -> list[Row]:
    """Measure the three rows."""
    uploads, rounds = (3, 2) if small else (200, 15)
    with database(cheap_net=True) as target:
        matching = _matching(target, uploads, rounds)
        without_disk = _not_matching(target, uploads, rounds)
    with database(durable=True, cheap_net=True) as synced:
        not_matching = _not_matching(synced, uploads, rounds)
    more = {"ratio when commits do not wait for the disk": without_disk.ratio}
    more |= {"the bound when commits do not wait for the disk": without_disk.bound or 0.0}
    return [*matching, replace(not_matching, more=more)]


def _each(target: Database, trigger: str | None, uploads: int) -> Callable[[], float]:
    """Seconds for one upload, with one trigger enabled."""

    def run() -> float:
        _prepare(target, trigger)
        names = [f"clips/2026/{number}.mp4" for number in range(uploads)]
        return seconds(lambda: target.put(*names)) / uploads

    return run


def processor_time(target: Database, uploads: int, *, alone: bool) -> float:
    """The median of the database's processor seconds for uploads, each of a new object.

    Args:
        target: the database.
        uploads: how many uploads.
        alone: whether nothing was woken lately before each upload, so that it sends a wake-up.
    """
    process = [target.storage.info.backend_pid]

    def one() -> float:
        # In both cases, so that the caches are equally cold.
        target.admin.execute(_WOKEN, [0 if alone else int(time.time() * 1000)], prepare=True)
        before = cpu_seconds(process)
        target.put(f"clips/2026/{time.time_ns()}.mp4")
        return cpu_seconds(process) - before

    return statistics.median(one() for _ in range(uploads))


def _with_trigger(target: Database, trigger: str | None, uploads: int, *, alone: bool) -> Callable[[], float]:
    """``processor_time`` with one trigger enabled, on an empty ledger each time."""

    def run() -> float:
        _prepare(target, trigger)
        return processor_time(target, uploads, alone=alone)

    return run


def _prepare(target: Database, trigger: str | None) -> None:
    target.use(trigger)
    target.empty()
    # The first uploads make plans and files.
    target.put(*(f"clips/first/{number}.mp4" for number in range(10)))


def _matching(target: Database, uploads: int, rounds: int) -> list[Row]:
    """The cost of each trigger: ours with a wake-up and in a burst, compared with a minimal one of equal promises."""
    target.rules(MATCHING)
    triggers = {"none": (None, True), "guide": (GUIDE, True), "least": (LEAST, True)}
    triggers |= {"alone": (OURS, True), "bound alone": (CALLING_BOUND, True)}
    triggers |= {"burst": (OURS, False), "bound burst": (BOUND, False)}
    times = in_turns(
        {case: _with_trigger(target, trigger, uploads, alone=alone) for case, (trigger, alone) in triggers.items()},
        rounds,
    )
    none = statistics.median(times.pop("none"))
    added = {case: statistics.median(measured) - none for case, measured in times.items()}
    more = {
        "the trigger of ittybit's guide, which promises nothing (µs)": added["guide"] * 1e6,
        "a handler, the query for rules, the ledger's row and a signed call (µs)": added["bound alone"] * 1e6,
        "the same without the call, which is the bound of row 2 (µs)": added["bound burst"] * 1e6,
        "the whole upload without a trigger (µs)": none * 1e6,
    }
    name = "processor time the trigger adds to an upload {}, compared with a minimal trigger of equal promises (µs)"
    return [
        Row(
            number,
            name.format(which),
            added[case] * 1e6,
            added["least"] * 1e6,
            added[case] / added["least"],
            None,
            stand_in=True,
            bound=added[f"bound {case}"] / added["least"],
            more=more if number == 1 else {},
        )
        for number, which, case in (
            (1, "that sends a wake-up", "alone"),
            (2, "in a burst, where most send no wake-up", "burst"),
        )
    ]


def _not_matching(target: Database, uploads: int, rounds: int) -> Row:
    target.rules(*NOT_MATCHING)
    cases = {"none": None, "ours": OURS, "bound": BOUND}
    times = in_turns({case: _each(target, trigger, uploads) for case, trigger in cases.items()}, rounds)
    return Row(
        3,
        "an upload that none of 100 rules matches, compared with one without a trigger (µs)",
        statistics.median(times["ours"]) * 1e6,
        statistics.median(times["none"]) * 1e6,
        ratio(times["ours"], times["none"]),
        None,
        stand_in=False,
        bound=ratio(times["bound"], times["none"]),
    )
