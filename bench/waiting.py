"""Row 25: an upload with a million queued jobs, compared with one with none; both with a million stored objects."""

from __future__ import annotations

import statistics
import time

from bench.database import BUCKET, OURS, Database, database
from bench.side_by_side import in_turns, ratio, seconds
from bench.table import Row
from bench.uploads import processor_time

ROWS = (25,)


def measure(small: bool) -> list[Row]:
    """Measure the row with uploads that send a wake-up, so that each also looks at pause, ceilings and holds."""
    queued, uploads, rounds = (1000, 3, 2) if small else (1_000_000, 200, 11)
    with (
        database(cheap_net=True, shared_buffers="1GB", max_wal_size="4GB") as target,
        database(cheap_net=True, shared_buffers="1GB", max_wal_size="4GB") as empty,
    ):
        for one in (target, empty):
            one.rules((BUCKET, "clips/**", "video/*"))
        target.put_backlog(queued)
        empty.use(None)
        empty.put_at_once(queued)
        empty.admin.execute("vacuum (analyze) storage.objects")
        empty.use(OURS)
        times = in_turns(
            {
                "queued": lambda: processor_time(target, uploads, alone=True),
                "empty": lambda: processor_time(empty, uploads, alone=True),
                "queued, by the clock": lambda: _put(target, uploads),
                "empty, by the clock": lambda: _put(empty, uploads),
            },
            rounds,
        )
    return [
        Row(
            25,
            f"processor time of an upload with {queued:,} queued jobs, compared with one with an empty ledger (µs)",
            statistics.median(times["queued"]) * 1e6,
            statistics.median(times["empty"]) * 1e6,
            ratio(times["queued"], times["empty"]),
            "<= 1.1",
            stand_in=True,
            more={"ratio by the wall clock": ratio(times["queued, by the clock"], times["empty, by the clock"])},
        )
    ]


def _put(target: Database, uploads: int) -> float:
    """How long that many uploads of new objects take, most of which send no wake-up."""
    folder = time.time_ns()
    return seconds(lambda: target.put(*(f"clips/{folder}/{number}.mp4" for number in range(uploads))))
