"""Row 19: several function processes at once claim and start no job twice.

Every wake-up is delivered twice, as pg_net does when it fails in the middle of a batch. Commits wait for the disk, as
in hosted projects. ittybit answers after a second, so that a process waits for it and not for a core of this machine.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.claims import BATCH, Caller
from bench.database import BUCKET, Database, database
from bench.function_process import ON_UPLOAD, Serving, deployed, environment
from bench.load import MESSAGE, signed
from bench.side_by_side import CORES
from bench.table import Row
from bench.upstream import Upstream
from shared.worker import DRAINS, THREADS

ROWS = (19,)
COUNTS = (1, 2, 4)
_WAITING = "select exists (select from ittybit.jobs where state = 'queued')"


def measure(small: bool) -> list[Row]:
    """Measure the row, and the same numbers of callers that claim and report without functions."""
    programs = deployed(small=small)
    # Jobs for each process: its threads start them in eight seconds.
    jobs, delay = (12, 0.05) if small else (8 * DRAINS * THREADS, 1.0)
    steps: dict[int, float] = {}
    claims: dict[int, float] = {}
    twice = 0
    with (
        database(durable=True, max_connections="100") as target,
        Upstream(delay, dsn=f"{target.postgres.dsn('authenticator')} options='-c role=service_role'") as upstream,
        contextlib.ExitStack() as functions,
    ):
        served = [
            functions.enter_context(
                Serving(programs, ON_UPLOAD, environment(upstream.origin), core=CORES[number % len(CORES)])
            )
            for number in range(max(COUNTS))
        ]
        for one in served:
            one.first_answer(MESSAGE, signed())
        target.rules((BUCKET, "clips/**", "video/*"))
        target.admin.execute("update ittybit.functions set url = null")
        for count in COUNTS:
            marks, steps[count] = _start_all(target, jobs * count, served[:count], upstream)
            claimed, claims[count] = _claim_all(target, jobs * count, upstream.origin, callers=count)
            twice += _twice(marks, jobs * count) + _twice(claimed, jobs * count)
    return [
        Row(
            19,
            "starts and checks a second of 4 function processes, ittybit answering in 1 s, compared with 1; none twice",
            steps[4],
            steps[1],
            steps[4] / steps[1],
            ">= 3.5",
            stand_in=True,
            holds=twice == 0,
            more={
                "starts and checks a second of 2 processes": steps[2],
                "ratio of 2 processes to 1": steps[2] / steps[1],
                f"the maximum of a process, {THREADS} threads in each of {DRAINS} drains": DRAINS * THREADS / delay,
                **{f"jobs claimed and reported a second by {count} callers at once": claims[count] for count in COUNTS},
            },
        )
    ]


def _twice(names: list[str], jobs: int) -> int:
    """How many names are duplicates; raise RuntimeError if a job is missing."""
    counts = Counter(names)
    if len(counts) != jobs:
        raise RuntimeError(f"{jobs} jobs, {len(counts)} seen")
    return counts.total() - jobs


def _start_all(target: Database, jobs: int, served: Sequence[Serving], upstream: Upstream) -> tuple[list[str], float]:
    """Wake the functions until all jobs are started; return the marks, and how many calls a second ittybit got."""
    target.empty()
    target.put_backlog(jobs)
    headers = signed()

    def wake(function: Serving) -> None:
        while target.one(_WAITING):
            for _ in range(2):
                client.post(function.url, content=MESSAGE, headers=headers).raise_for_status()

    before = upstream.calls()
    began = time.perf_counter()
    with httpx.Client(trust_env=False, timeout=60) as client, ThreadPoolExecutor(DRAINS * len(served)) as pool:
        list(pool.map(wake, [*served] * DRAINS))
    took = time.perf_counter() - began
    calls = upstream.calls() - before
    return [upstream.start_arrived()[1] for _ in range(calls["starts"])], (calls["starts"] + calls["checks"]) / took


def _claim_all(target: Database, jobs: int, project: str, *, callers: int) -> tuple[list[str], float]:
    """Let that many callers claim and report at once without pauses; return the jobs, and how many a second."""
    target.empty()
    target.put_backlog(jobs)

    def work(caller: Caller) -> list[str]:
        claimed = []
        while batch := caller.claim(BATCH):
            claimed += [job["job"] for job in batch if job["step"] == "start"]
        return claimed

    with contextlib.ExitStack() as open_ones, ThreadPoolExecutor(callers) as pool:
        started = [open_ones.enter_context(Caller(target, project=project)) for _ in range(callers)]
        began = time.perf_counter()
        claimed = [job for jobs in pool.map(work, started) for job in jobs]
    return claimed, jobs / (time.perf_counter() - began)
