"""Several functions and several callers at once, and no job claimed or started twice.

The first two steps of docs/scale.md, tried with the database and the functions as deployed; commits wait for the disk,
as hosted. Every wake-up is delivered twice, as pg_net does when it fails in the middle of a batch.
Run: ``python -m bench.concurrency``.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from bench.claims import BATCH, Caller
from bench.database import BUCKET, OURS, Database, database
from bench.function_process import ON_UPLOAD, deployed, environment, serving
from bench.load import MESSAGE, signed
from bench.upstream import Upstream

WAKE_UPS = 4  # at a time, for each function
_WAITING = "select exists (select from ittybit.jobs where state = 'queued')"


def main(arguments: list[str] | None = None) -> None:
    """Try one, two and four of each, and print how fast they were."""
    parser = argparse.ArgumentParser(prog="python -m bench.concurrency", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--small", action="store_true", help="use the environment that is there")
    options = parser.parse_args(arguments)
    programs = deployed(small=options.small)
    with (
        database(durable=True) as target,
        Upstream(0.05, dsn=f"{target.postgres.dsn('authenticator')} options='-c role=service_role'") as upstream,
        contextlib.ExitStack() as functions,
    ):
        served = [functions.enter_context(serving(programs, ON_UPLOAD, environment(upstream.origin))) for _ in range(4)]
        for one in served:
            one.first_answer(MESSAGE, signed())
        target.rules((BUCKET, "clips/**", "video/*"))
        target.use(OURS)
        target.admin.execute("update ittybit.functions set url = null")
        print("| of each | jobs started a second | started twice | claimed and reported a second | claimed twice |")
        print("|---|---|---|---|---|")
        for count in (1, 2, 4):
            marks, started = _start_all(target, options.jobs, [one.url for one in served[:count]], upstream)
            claimed, ledger = _claim_all(target, options.jobs, upstream.origin, callers=count)
            print(
                f"| {count} | {started:,.0f} | {_twice(marks, options.jobs)} |"
                f" {ledger:,.0f} | {_twice(claimed, options.jobs)} |"
            )


def _twice(names: list[str], jobs: int) -> int:
    """How many more there are than jobs; raise RuntimeError when one is missing."""
    counts = Counter(names)
    if len(counts) != jobs:
        raise RuntimeError(f"{jobs} jobs, {len(counts)} seen")
    return counts.total() - jobs


def _start_all(target: Database, jobs: int, urls: list[str], upstream: Upstream) -> tuple[list[str], float]:
    """Wake the functions until all jobs are started; return the marks, and how many were started a second."""
    target.empty()
    target.put_at_once(jobs)
    headers = signed()

    def wake(number: int) -> None:
        while target.one(_WAITING):
            for _ in range(2):
                client.post(urls[number % len(urls)], content=MESSAGE, headers=headers).raise_for_status()

    before = upstream.calls()["starts"]
    began = time.perf_counter()
    with httpx.Client(trust_env=False, timeout=60) as client, ThreadPoolExecutor(WAKE_UPS * len(urls)) as pool:
        list(pool.map(wake, range(WAKE_UPS * len(urls))))
    took = time.perf_counter() - began
    marks = [upstream.start_arrived()[1] for _ in range(upstream.calls()["starts"] - before)]
    return marks, jobs / took


def _claim_all(target: Database, jobs: int, project: str, *, callers: int) -> tuple[list[str], float]:
    """Let so many callers at once claim and report, with nothing between; return the jobs, and how many a second."""
    target.empty()
    target.put_at_once(jobs)

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


if __name__ == "__main__":
    main()
