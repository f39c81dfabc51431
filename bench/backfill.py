"""Row 18: the plan of a backfill over a million objects, compared with an index-only count of them."""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Callable
from typing import LiteralString

import psutil

from bench.database import BUCKET, TASK, Database, database
from bench.side_by_side import in_turns, ratio, seconds
from bench.table import Row

ROWS = (18,)
_PLAN = "select * from ittybit.backfill('rule-0')"
_PUSH_BACK = "update ittybit.rules set automation_id = null, task = %s where name = 'rule-0'"
_COUNT = "select count(*) from storage.objects where bucket_id = 'media'"
# What no plan can do without: it reads each object's row and matches it with the rule.
_MATCHED = """
select count(*) from storage.objects as o, ittybit.rules as r
where r.name = 'rule-0' and o.bucket_id = r.bucket_id and ittybit.fits(r, o.name, o.metadata)
"""


def measure(small: bool) -> list[Row]:
    """Measure the ratio of times and the ratio of memory. The larger one counts."""
    objects, rounds = (2000, 2) if small else (1_000_000, 5)
    with database(shared_buffers="1GB", max_wal_size="4GB") as target:
        target.use(None)
        target.put_at_once(objects)
        target.admin.execute("vacuum (analyze) storage.objects")
        target.rules((BUCKET, "clips/**", "video/*"))
        target.admin.execute("update ittybit.rules set active_since = now()")
        statements: dict[str, LiteralString] = {"plan": _PLAN, "count": _COUNT, "matched": _MATCHED}
        times = in_turns({case: _timed(target, text, objects) for case, text in statements.items()}, rounds)
        memory = {"plan": _peak(target, _PLAN), "count": _peak(target, _COUNT)}
        target.admin.execute(_PUSH_BACK, [json.dumps(TASK)])
        push_back = _timed(target, _PLAN, objects)()
    time_ratio, memory_ratio = ratio(times["plan"], times["count"]), memory["plan"] / memory["count"]
    return [
        Row(
            18,
            f"the plan of a backfill over {objects:,} objects, compared with an index-only count of them (ms)",
            statistics.median(times["plan"]) * 1000,
            statistics.median(times["count"]) * 1000,
            max(time_ratio, memory_ratio),
            None,
            stand_in=False,
            bound=ratio(times["matched"], times["count"]),
            more={
                "every object's row read and matched with the rule (ms)": statistics.median(times["matched"]) * 1000,
                "the plan for a rule of push-back (ms)": push_back * 1000,
                "peak memory of the database process that plans (MB)": memory["plan"] / 1e6,
                "peak memory of the one that counts (MB)": memory["count"] / 1e6,
                "objects planned in a second": objects / statistics.median(times["plan"]),
            },
        )
    ]


def _timed(target: Database, statement: LiteralString, objects: int) -> Callable[[], float]:
    def run() -> float:
        answer: list[tuple[object, ...] | None] = []
        took = seconds(lambda: answer.append(target.admin.execute(statement).fetchone()))
        if answer[0] is None or objects not in answer[0]:
            raise RuntimeError(f"{statement} answered {answer}")
        return took

    return run


def _peak(target: Database, statement: LiteralString) -> float:
    """The peak memory of a fresh database process that runs the statement, in bytes, without shared memory."""
    with target.another() as connection:
        process = psutil.Process(connection.info.backend_pid)
        ended, peak = threading.Event(), [0]

        def watch() -> None:
            while not ended.wait(0.01):
                memory = process.memory_info()
                peak[0] = max(peak[0], memory.rss - memory.shared)

        watcher = threading.Thread(target=watch)
        watcher.start()
        connection.execute(statement)
        ended.set()
        watcher.join()
    return max(float(peak[0]), 1.0)
