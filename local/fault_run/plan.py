"""The plan of a run, made from the seed alone: the load, and when each fault happens.

Each fault has a planned place: the 17th start at ittybit, the 23rd claim, the moment when a third of the load is done.
With the same seed, each kind of fault happens equally often in every run. Which jobs the faults hit depends on the
threads, and differs from run to run.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Change = Literal["upload", "overwrite", "rename", "delete"]
Mishap = Literal["function_killed", "database_killed", "queue_lost", "queue_sent_twice", "payment_required"]
Origin = Literal["ittybit", "supabase"]

# Longer than the 8 s that an invocation may take.
HANG: Final = 9.0
# Rare: pg_net sends its next wake-ups when the slowest of the last has been answered or has timed out after 5 s. If one
# call in a hundred hung, those would set the pace of the whole run, and fewer of the other faults would happen.
_HANGING: Final = 0.001
# A function is killed while it waits for one of these requests, with all jobs that it has claimed.
WAITING_PLACES: Final = ("claim", "sign", "start", "check", "report")
# Steps of the load a second: what two cores carry while they run all the rest.
PACE: Final = 12.0
# The load takes at least this long, so that it is not over before the first faults.
_LEAST_SECONDS: Final = 15.0

_CHANGES: Final[tuple[tuple[Change, float], ...]] = (("overwrite", 0.06), ("rename", 0.04), ("delete", 0.03))
_WAKE_UPS: Final = (("wake_up_dropped", 0.1), ("wake_up_doubled", 0.1), ("wake_up_delayed", 0.1))
# Each mishap happens once for so many uploads, and at least so many times.
_MISHAPS: Final[tuple[tuple[Mishap, int, int], ...]] = (
    ("function_killed", 400, 5),
    ("database_killed", 2500, 1),
    ("queue_lost", 250, 1),
    ("queue_sent_twice", 250, 1),
    ("payment_required", 1000, 1),
)

# How many requests surely come for each upload, or for each second of the load. Three rules match an upload, so it
# means three starts, or fewer if it is overwritten or deleted before. A call to the project is for all jobs of a batch,
# and comes as often as a function wakes.
_Sure = Literal["upload", "second"]
_Groups = tuple[tuple[Origin, str, str, _Sure, float, tuple[tuple[str, float, dict[str, Any]], ...]], ...]
_HTTP: Final[_Groups] = (
    (
        "ittybit",
        "POST",
        "/tasks|/runs|/automations/[^/]+/run|/jobs",
        "upload",
        2.4,
        (
            ("ittybit_429", 0.01, {"status": 429, "headers": {"Retry-After": "1"}, "body": {"kind": "rate_limited"}}),
            ("ittybit_500", 0.01, {"status": 500, "body": {"kind": "internal_error", "message": "Oops."}}),
            ("ittybit_503", 0.01, {"status": 503}),
            ("ittybit_hung_and_accepted", _HANGING, {"hang": HANG}),
            ("ittybit_hung_and_lost", _HANGING, {"hang": HANG, "drop": "before"}),
            ("ittybit_accepted_and_dropped", 0.02, {"drop": "after"}),
            ("ittybit_dropped", 0.01, {"drop": "before"}),
        ),
    ),
    (
        "ittybit",
        "GET",
        "/(tasks|runs|jobs|connections)(/[^/]+)?",
        "upload",
        2.4,
        (
            ("ittybit_read_429", 0.01, {"status": 429, "headers": {"Retry-After": "1"}}),
            ("ittybit_read_500", 0.01, {"status": 500}),
            ("ittybit_read_dropped", 0.01, {"drop": "before"}),
        ),
    ),
    (
        "supabase",
        "POST",
        "/rest/v1/rpc/ittybit_claim",
        "second",
        2.0,
        (
            ("claim_lost_before", 0.03, {"drop": "before"}),
            ("claim_lost_after", 0.03, {"drop": "after"}),
            ("claim_hung_and_leased", 0.003, {"hang": HANG}),
            ("claim_refused", 0.03, {"status": 503}),
        ),
    ),
    (
        "supabase",
        "POST",
        "/rest/v1/rpc/ittybit_report",
        "second",
        0.5,  # most reports travel with the next claim
        (
            ("report_lost_before", 0.05, {"drop": "before"}),
            ("report_lost_after", 0.05, {"drop": "after"}),
            ("report_hung_and_applied", 0.005, {"hang": HANG}),
            ("report_refused", 0.05, {"status": 503}),
        ),
    ),
    (
        "supabase",
        "POST",
        "/storage/v1/object/sign/[^/]+",
        "second",
        1.0,
        (("sign_500", 0.05, {"status": 500}), ("sign_dropped", 0.05, {"drop": "before"})),
    ),
)


@dataclass(frozen=True)
class Step:
    """One change of object number ``item``; the changes of one object keep their order."""

    item: int
    change: Change


@dataclass(frozen=True)
class HttpFault:
    """A fault that hits the requests at these places among all that match; see ``local.fault_injection.Faults.add``."""

    kind: str
    origin: Origin
    method: str
    path: str
    at: frozenset[int]
    options: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Plan:
    """The load and the faults of a run.

    Attributes:
        steps: The load, in order.
        seconds: How long it takes, at least.
        http: Faults of requests to ittybit and to Supabase.
        wake_ups: For each kind of fault, the numbers of the wake-ups that it hits.
        mishaps: The other faults, in order, each with the part of the load (0 to 1) after which it happens.
    """

    seed: int
    uploads: int
    steps: tuple[Step, ...]
    seconds: float
    http: tuple[HttpFault, ...]
    wake_ups: dict[str, frozenset[int]]
    mishaps: tuple[tuple[float, Mishap], ...]


def make_plan(uploads: int, seed: int, pace: float = PACE) -> Plan:
    """Plan a run of so many uploads, with so many steps a second and at least one fault of each kind.

    Raises:
        ValueError: fewer uploads than the kinds of faults need, or a pace that is not above 0.
    """
    if uploads < 30:
        raise ValueError("a fault run needs at least 30 uploads")
    if not pace > 0:
        raise ValueError("the pace is a number of changes a second, more than 0")
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    steps = _steps(chance, uploads)
    seconds = max(len(steps) / pace, _LEAST_SECONDS)
    sure = {"upload": float(uploads), "second": seconds}
    http = tuple(
        HttpFault(kind, origin, method, path, at, options)
        for origin, method, path, unit, each, kinds in _HTTP
        for (kind, _, options), at in zip(
            kinds, _places(chance, int(sure[unit] * each), [share for _, share, _ in kinds]), strict=True
        )
    )
    wake_ups = dict(
        zip(
            [kind for kind, _ in _WAKE_UPS],
            _places(chance, int(seconds), [share for _, share in _WAKE_UPS]),
            strict=True,
        )
    )
    mishaps = [
        (chance.uniform(0.05, 0.95), kind) for kind, each, least in _MISHAPS for _ in range(max(least, uploads // each))
    ]
    return Plan(seed, uploads, steps, seconds, http, wake_ups, tuple(sorted(mishaps)))


def _places(chance: random.Random, among: int, shares: Sequence[float]) -> list[frozenset[int]]:
    """Draw the places of each share of ``among``: at least one each, and no place twice."""
    counts = [max(1, round(share * among)) for share in shares]
    drawn = chance.sample(range(among), sum(counts))
    return [frozenset(drawn.pop() for _ in range(count)) for count in counts]


def _steps(chance: random.Random, uploads: int) -> tuple[Step, ...]:
    """Each object's upload, and for some of them an overwrite, a rename or a deletion, soon or much later."""
    placed: list[tuple[float, Step]] = [(item, Step(item, "upload")) for item in range(uploads)]
    for change, share in _CHANGES:
        for item in chance.sample(range(uploads), max(1, round(share * uploads))):
            placed.append((item + chance.choice((0.1, 2, 20, 200)) * chance.random(), Step(item, change)))
    # Leave out what was planned for an object after its deletion.
    steps, deleted = [], set()
    for _, step in sorted(placed, key=lambda one: one[0]):
        if step.item not in deleted:
            steps.append(step)
        if step.change == "delete":
            deleted.add(step.item)
    return tuple(steps)
