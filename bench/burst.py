"""Rows 4, 5, 6 and 11: 10,000 uploads one by one until all jobs are started, and another webhook of the project."""

from __future__ import annotations

import statistics
import time

from bench.function_process import THREE_CALLS, Serving, deployed, environment
from bench.load import MESSAGE, load, signed
from bench.pipeline import Way, Webhook, sending, way
from bench.side_by_side import cpu_seconds
from bench.table import Row
from bench.upstream import Upstream

ROWS = (4, 5, 6, 11)
PACE = 200  # calls a second: pg_net's batch, once a second (supabase/pg_net, README)
DELAY = 0.05
THREADS = 16
# How many calls were queued in pg_net so far.
_SENT = "select last_value from net.http_request_queue_id_seq"


def measure(small: bool) -> list[Row]:
    """Measure the four rows in one burst."""
    uploads, alone, length = (20, 1.0, 0.2) if small else (10_000, 20.0, 3.0)
    with (
        way(small=small, delay=DELAY) as one,
        Upstream(DELAY) as canned,
        Serving(deployed(small=small), THREE_CALLS, environment(canned.origin), threads=THREADS) as bare,
    ):
        bare.first_answer(MESSAGE, signed())
        with sending(one.target):
            with Webhook(one.target, one.upstream, every=0.3 if small else 1.3) as without:
                time.sleep(alone)
            before = [_cpu(bare, length) for _ in range(3)]
            sent, calls, busy = _sent(one), one.upstream.calls(), cpu_seconds(one.function.processes)
            with Webhook(one.target, one.upstream, every=0.3 if small else 1.3) as during:
                began = time.time()
                one.target.put(*(f"clips/2026/{number}.mp4" for number in range(uploads)))
                stored = time.time() - began
                arrived = [one.upstream.start_arrived() for _ in range(uploads)]
                busy = cpu_seconds(one.function.processes) - busy
                calls, sent = one.upstream.calls() - calls, _sent(one) - sent
                took = arrived[-1][0] - began
        bare_cpu = statistics.median([*before, *(_cpu(bare, length) for _ in range(3))])
    wake_ups = sent - len(during.waits)
    a_job = calls.total() / uploads
    return [
        Row(
            4,
            f"{uploads:,} uploads one by one until all are started, ittybit answering in 50 ms, compared with pg_net's"
            " own pace (s)",
            took,
            uploads / PACE,
            took / (uploads / PACE),
            "<= 0.45",
            stand_in=True,
            holds=len({mark for _, mark in arrived}) == uploads,
            more={"until all are stored (s)": stored},
        ),
        Row(
            5,
            "outgoing calls of the function for each job started in that burst, with at most 400 wake-ups",
            a_job,
            3,
            a_job,
            "<= 1.3",
            stand_in=True,
            holds=wake_ups <= 400,
            more={
                "wake-ups": wake_ups,
                "claims and reports for each job": calls["ledger"] / uploads,
                "checks for each job": calls["checks"] / uploads,
            },
        ),
        Row(
            6,
            "processor time of the function for a job in that burst, compared with a function of three bare calls (ms)",
            busy / uploads * 1000,
            bare_cpu * 1000,
            busy / uploads / bare_cpu,
            "<= 0.4",
            stand_in=True,
        ),
        Row(
            11,
            "the longest wait of another webhook during that burst, compared with before it; ratio: the difference (s)",
            max(during.waits),
            max(without.waits),
            max(during.waits) - max(without.waits),
            "<= 2.5",
            stand_in=True,
            more={
                "median wait (s)": statistics.median(during.waits),
                "median wait before the burst (s)": statistics.median(without.waits),
            },
        ),
    ]


def _sent(one: Way) -> int:
    row = one.target.admin.execute(_SENT).fetchone()
    return int(row[0]) if row else 0


def _cpu(bare: Serving, length: float) -> float:
    """Processor time of a job in the function of three bare calls."""
    before = cpu_seconds(bare.processes)
    answers = load(bare.port, MESSAGE, signed(), status=200, connections=THREADS, seconds=length)
    return (cpu_seconds(bare.processes) - before) / answers.count
