"""Rows 8 and 9: from an upload's commit to ittybit's receipt of the start; from a stored result to a succeeded job."""

from __future__ import annotations

import statistics
import time

import httpx
from psycopg.types.json import Jsonb

from bench.pipeline import Way, way
from bench.side_by_side import in_turns, ratio
from bench.table import Row
from local.media import make_clip
from local.pg_net import PgNetWorker
from local.project import BUCKET, Project
from local.stack import Stack

ROWS = (8, 9)
# After its last batch pg_net looks for calls twice more, a second apart, before it waits to be woken.
IDLE = 2.5
_SEEN = """
select extract(epoch from j.finished_at - o.created_at)::float8
from ittybit.jobs as j
join storage.objects as o on 's3://' || o.bucket_id || '/' || o.name = any (j.outputs)
where j.name = %s and j.state = 'succeeded'
"""
_STILL = {
    "kind": "image",
    "options": {"width": 320, "format": "jpeg"},
    "destination": f"s3://{BUCKET}/processed/{{dir}}{{stem}}.jpeg",
}


def measure(small: bool) -> list[Row]:
    """Measure both rows."""
    return [_upload_to_start(small), _result_to_row(small)]


def _upload_to_start(small: bool) -> Row:
    pause, rounds = (0.0, 1) if small else (IDLE, 11)
    with way(small=small, delay=0) as one, httpx.Client(trust_env=False) as client:
        net = PgNetWorker(one.target.postgres)
        net.start()
        number = 0

        def idle() -> str:
            """Wait until nothing runs, and return the name of a new object."""
            nonlocal number
            number += 1
            time.sleep(pause)
            one.target.admin.execute("delete from ittybit.jobs")
            return f"clips/2026/{number}.mp4"

        def ours() -> float:
            name = idle()
            one.target.put(name)
            committed = time.time()
            return one.upstream.start_arrived()[0] - committed

        def bare() -> float:
            idle()
            url = f"{one.upstream.origin}/automations/auto_1/run"
            body = Jsonb({"url": "https://a.test/a"})
            one.target.admin.execute("select net.http_post(url := %s, body := %s)", [url, body])
            committed = time.time()
            return one.upstream.start_arrived()[0] - committed

        def claim() -> float:
            """Seconds that a function's claim of one job takes."""
            name = idle()
            _unsent(one, name)
            url = f"{one.upstream.origin}/rest/v1/rpc/ittybit_claim"
            asked = {"function": "on-upload", "project": one.upstream.origin, "jobs": 32, "reports": []}
            began = time.perf_counter()
            answer = client.post(url, json=asked).raise_for_status()
            took = time.perf_counter() - began
            if [job["name"] for job in answer.json()["jobs"]] != [name]:
                raise RuntimeError(f"another claim was expected: {answer.text}")
            return took

        if not small:
            for first in (ours, bare, claim):
                first()
        times = in_turns({"ours": ours, "bare": bare, "claim": claim}, rounds)
        net.stop()
    baseline = [bare + claim for bare, claim in zip(times["bare"], times["claim"], strict=True)]
    return Row(
        8,
        "from an upload's commit to ittybit's receipt of the start, idle, compared with a bare pg_net call and a claim"
        " (ms)",
        statistics.median(times["ours"]) * 1000,
        statistics.median(baseline) * 1000,
        ratio(times["ours"], baseline),
        "<= 1.15",
        stand_in=True,
        more={
            "the baseline's pg_net call (ms)": statistics.median(times["bare"]) * 1000,
            "the baseline's claim (ms)": statistics.median(times["claim"]) * 1000,
        },
    )


def _unsent(one: Way, name: str) -> None:
    """Store an object without a wake-up."""
    one.target.admin.execute("update ittybit.functions set url = null")
    one.target.put(name)
    one.target.admin.execute("update ittybit.functions set url = %s where name = 'on-upload'", [one.function.url])


def _result_to_row(small: bool) -> Row:
    """One upload after the other through the whole stack, each a task whose result is stored in the bucket."""
    rounds = 1 if small else 25
    waits: list[float] = []
    with Stack.start() as stack:
        project = Project(stack)
        project.create_bucket(BUCKET)
        project.create_connection()
        project.add_rule("still", task=_STILL)
        clip = stack.directory / "clip.mp4"
        make_clip(clip, seconds=1, size="320x240")
        for number in range(rounds):
            name = f"clips/{number}.mp4"
            project.upload(BUCKET, name, clip, "video/mp4")
            until = time.monotonic() + 120
            while not (seen := stack.sql(_SEEN, (name,))):
                if time.monotonic() > until:
                    raise RuntimeError(f"{name} has not succeeded")
                time.sleep(0.05)
            waits.append(seen[0][0])
            time.sleep(0 if small else number % 5 * 0.3)  # at different points in the cycles of pg_net and pg_cron
        project.close()
    return Row(
        9,
        "from a stored result until its job's row says succeeded (s)",
        statistics.median(waits),
        None,
        statistics.median(waits),
        "<= 1",
        stand_in=True,
        more={"90th percentile (s)": statistics.quantiles(waits, n=10)[-1] if len(waits) > 1 else waits[0]},
    )
