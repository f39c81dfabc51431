"""The report of a run: as JSON, and as a table for people."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.fault_run.broken_parts import Breakage
from local.fault_run.database_copy import CopyReport
from local.fault_run.function_outage import Absence
from local.fault_run.lost_wake_ups import LostHour
from local.fault_run.scheduled import Scheduled


@dataclass(frozen=True)
class Report:
    """The figures of a run; ``local.fault_run.witness`` defines the counts that are not listed here.

    Attributes:
        api: The generation of ittybit's API.
        uploads: Objects stored by the load, without overwrites; the parts after the load store their own.
        faults: How often each kind happened.
        harmed: The uploaders' requests that failed, or took over 2 s, while the database was up.
        settle_s: Seconds from the answer to an upload to the end of its last job, over all contents processed.
        http_calls: Calls to the functions (by pg_net), to ittybit, and by the functions to the project.
        database_copy: The copy of the database that ran beside the original for the whole load.
        absence: Four days without functions.
        lost_hour: An hour of lost wake-ups.
        scheduled: A scheduler as the only waker.
        breakage: Broken parts.
        idle_calls: Calls of any kind in the silent hour: an hour of ticks after everything was done.
        unexplained: Objects, present or deleted, for which ``ittybit.explain`` has no answer under some rule.
        load_s, whole_s: Seconds that the load and the whole run took.
        examples: Some findings for each count that is not 0.
    """

    seed: int
    api: str
    idempotency: str
    uploads: int
    faults: Mapping[str, int]
    harmed: int
    lost: int
    started_twice: int
    ambiguous: int
    self_started: int
    settle_s: Mapping[str, float]
    http_calls: Mapping[str, int]
    database_copy: CopyReport
    absence: Absence
    lost_hour: LostHour
    scheduled: Scheduled
    breakage: Breakage
    idle_calls: int
    unexplained: int
    load_s: float
    whole_s: float
    examples: Mapping[str, Sequence[str]]

    @property
    def is_good(self) -> bool:
        """Whether the promises were kept."""
        return not (
            self.harmed
            or self.lost
            or self.started_twice
            or self.self_started
            or not self.database_copy.is_good
            or self.absence.processed < self.absence.jobs
            or not self.lost_hour.is_good
            or self.scheduled.processed < self.scheduled.jobs
            or self.idle_calls
            or self.unexplained
        )

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    def table(self) -> str:
        """Return the figures, a line each."""
        copy = self.database_copy
        settle = ", ".join(f"{name} {value:.1f}" for name, value in self.settle_s.items())
        calls = ", ".join(f"{count:,} to {whom}" for whom, count in self.http_calls.items())
        rows: list[tuple[str, Any]] = [
            ("uploads", f"{self.uploads:,} in {self.load_s:.0f} s; the run took {self.whole_s:.0f} s"),
            ("seed", f"{self.seed}, ittybit's API {self.api}, Idempotency-Key {self.idempotency}"),
            ("faults", f"{sum(self.faults.values()):,} of {len(self.faults)} kinds"),
            *((f"  {kind}", count) for kind, count in self.faults.items()),
            ("settle, s", settle),
            ("HTTP calls", calls),
            (
                "beside a copy of the database",
                f"{copy.started} starts and {copy.changed} changes by {copy.wake_ups} wake-ups for its {copy.jobs}"
                f" jobs, {copy.refused} claims refused",
            ),
            (
                "away for 4 days",
                f"{self.absence.processed} of {self.absence.jobs} jobs processed,"
                f" {self.absence.out_of_turn} out of turn",
            ),
            (
                "an hour of lost wake-ups",
                f"{self.lost_hour.processed} of {self.lost_hour.jobs} jobs processed by {self.lost_hour.calls}"
                f" wake-ups, after {self.lost_hour.lost} were lost",
            ),
            (
                "with a scheduler alone",
                f"{self.scheduled.processed} of {self.scheduled.jobs} jobs processed by {self.scheduled.calls} calls",
            ),
            (
                "with a part broken",
                f"{self.breakage.uploads} objects stored and {self.breakage.deletes} deleted while each of"
                f" {self.breakage.parts} parts was broken, {self.breakage.healed} jobs made by the sweep",
            ),
            ("calls in an idle hour", self.idle_calls),
            ("unexplained", self.unexplained),
            ("harmed", self.harmed),
            ("lost", self.lost),
            ("started twice", self.started_twice),
            ("self-started", self.self_started),
            ("ambiguous", self.ambiguous),
        ]
        lines = [f"{name:32} {value}" for name, value in rows]
        lines += [f"{name}: {one}" for name, found in self.examples.items() for one in found]
        return "\n".join(lines)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """The median, the 99th percentile (the smallest value that 99 % do not exceed) and the worst; 0 without values."""
    ordered = sorted(seconds) or [0.0]
    places = {"median": 0.5, "p99": 0.99, "worst": 1.0}
    return {name: round(ordered[math.ceil(share * len(ordered)) - 1], 3) for name, share in places.items()}
