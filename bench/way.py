"""Rows 4 and 14: from the commit of an upload to ittybit's receipt of the start, for 10,000 at once and for one.

The stand-in pg_net sends; a function in a process of its own claims, starts and reports; the RPCs are the database's.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from psycopg.types.json import Jsonb

from bench.database import BUCKET, OURS, Database, database
from bench.load import MESSAGE, signed
from bench.serving import ON_UPLOAD, Serving, deployed, environment, serving
from bench.side_by_side import cpu_seconds, in_turns, ratio
from bench.table import Row
from bench.upstream import Upstream
from local.pg_cron import PgCronWorker
from local.pg_net import PgNetWorker

ROWS = (4, 14)
# A batch of 200 is under way for as long as 200 / THREADS calls take; beyond these, it waits for the core.
THREADS = 64
PACE = 200  # calls a second: pg_net's batch, once a second (supabase/pg_net, README)
# After its last batch pg_net looks twice more, a second apart, before it waits to be woken.
IDLE = 2.5


@dataclass(frozen=True)
class Way:
    """All that lies between an upload and ittybit."""

    target: Database
    upstream: Upstream
    function: Serving


@contextlib.contextmanager
def way(*, small: bool, delay: float, threads: int) -> Iterator[Way]:
    """Run it, its function warm; nothing is sent before pg_net and pg_cron are started."""
    programs = deployed(small=small)
    with (
        database(max_connections="100") as target,
        Upstream(delay, dsn=f"{target.postgres.dsn('authenticator')} options='-c role=service_role'") as upstream,
        serving(programs, ON_UPLOAD, environment(upstream.origin), threads=threads) as function,
    ):
        # A job that is not there: the claim answers so, and everything has been used once.
        function.first_answer(MESSAGE, signed())
        target.rules((BUCKET, "clips/**", "video/*"))
        target.use(OURS)
        target.admin.execute(
            "update ittybit.settings set on_upload_url = %s, unanswered_calls = 1000",
            [function.url],
        )
        yield Way(target, upstream, function)


def measure(small: bool) -> list[Row]:
    """Measure both rows."""
    return [_burst(small), _one(small)]


def _burst(small: bool) -> Row:
    uploads = 20 if small else 10_000
    with way(small=small, delay=0.05, threads=THREADS) as one:
        net, cron = PgNetWorker(one.target.postgres), PgCronWorker(one.target.postgres)
        net.start()
        cron.start()
        busy = cpu_seconds(one.function.processes)
        began = time.time()
        one.target.put(*(f"clips/2026/{number}.mp4" for number in range(uploads)))
        stored = time.time() - began
        marks: list[str] = []
        last = began
        for _ in range(uploads):
            last, mark = one.upstream.start_arrived()
            marks.append(mark)
        took = last - began
        busy = cpu_seconds(one.function.processes) - busy
        cron.stop()
        net.stop()
    return Row(
        4,
        f"{uploads:,} uploads to all started, ittybit answering in 50 ms, beside pg_net's own pace (s)",
        took,
        uploads / PACE,
        took / (uploads / PACE),
        "<= 1.2",
        stand_in=True,
        holds=len(set(marks)) == uploads,
        more={
            "until all were stored (s)": stored,
            "processor time of the function, a job (ms)": busy / uploads * 1000,
        },
    )


def _one(small: bool) -> Row:
    pause, rounds = (0.0, 1) if small else (IDLE, 11)
    with way(small=small, delay=0, threads=16) as one, httpx.Client(trust_env=False) as client:
        net = PgNetWorker(one.target.postgres)
        net.start()
        number = 0

        def ours() -> float:
            nonlocal number
            number += 1
            time.sleep(pause)
            one.target.put(f"clips/2026/{number}.mp4")
            committed = time.time()
            return one.upstream.start_arrived()[0] - committed

        def bare() -> float:
            time.sleep(pause)
            url = f"{one.upstream.origin}/automations/auto_1/run"
            body = Jsonb({"url": "https://a.test/a"})
            one.target.admin.execute("select net.http_post(url := %s, body := %s)", [url, body])
            committed = time.time()
            return one.upstream.start_arrived()[0] - committed

        def claim() -> float:
            """Seconds for a claim that is won, as a function makes it."""
            nonlocal number
            number += 1
            time.sleep(pause)
            job = _unsent(one.target, f"clips/2026/{number}.mp4")
            url = f"{one.upstream.origin}/rest/v1/rpc/ittybit_claim"
            began = time.perf_counter()
            answer = client.post(url, json={"job": job, "attempt": 1}).raise_for_status()
            took = time.perf_counter() - began
            if not answer.json()["claimed"]:
                raise RuntimeError(f"the claim was not won: {answer.text}")
            return took

        if not small:
            for first in (ours, bare, claim):
                first()
        times = in_turns({"ours": ours, "bare": bare, "claim": claim}, rounds)
        net.stop()
    baseline = [bare + claim for bare, claim in zip(times["bare"], times["claim"], strict=True)]
    return Row(
        14,
        "commit of an upload to ittybit's receipt of the start, idle, beside a bare call of pg_net and one claim (ms)",
        statistics.median(times["ours"]) * 1000,
        statistics.median(baseline) * 1000,
        ratio(times["ours"], baseline),
        "<= 1.15",
        stand_in=True,
        more={
            "of the baseline, pg_net's call (ms)": statistics.median(times["bare"]) * 1000,
            "and the claim (ms)": statistics.median(times["claim"]) * 1000,
        },
    )


def _unsent(target: Database, name: str) -> str:
    """Store an object of which nobody is told, and return its job, as if attempt 1 had been sent."""
    target.admin.execute("update ittybit.settings set nudge = false")
    target.put(name)
    target.admin.execute("update ittybit.settings set nudge = true")
    sent = "update ittybit.jobs set attempt = 1, due_at = now() + ittybit.lease() where name = %s returning id::text"
    row = target.admin.execute(sent, [name]).fetchone()
    return str(row[0]) if row else ""
