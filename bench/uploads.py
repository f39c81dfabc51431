"""Rows 1 to 3: what the trigger adds to an upload that a rule is for, to one that no rule is for, and to 10,000."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from psycopg.rows import dict_row

from bench.database import BUCKET, OURS, Database, database
from bench.side_by_side import in_turns, ratio, seconds
from bench.table import Row

ROWS = (1, 2, 3)
MATCHING = (BUCKET, "clips/**", "video/*")
# The worst case: all in the object's own bucket, each with a pattern of its own.
NOT_MATCHING = tuple((BUCKET, f"team-{number}/uploads/*.mp4", "video/*") for number in range(100))


def measure(small: bool) -> list[Row]:
    """Measure the three rows; ``small`` is for trying the program out."""
    uploads, rounds, at_once = (3, 2, 50) if small else (200, 15, 10_000)
    with database(durable=True, cheap_net=True) as synced:
        matching = _matching(synced, uploads, rounds)
        not_matching = _not_matching(synced, uploads, rounds)
    with database(cheap_net=True) as unsynced:
        without_disk = _not_matching(unsynced, uploads, rounds)
        bulk = _bulk(unsynced, at_once, 2 if small else 5)
    more = {"ratio where a commit does not wait for the disk": without_disk.ratio, **without_disk.more}
    return [matching, Row(**{**not_matching.__dict__, "more": more}), bulk]


def _each(target: Database, trigger: str | None, uploads: int) -> Callable[[], float]:
    """Seconds for one upload, with one trigger in force."""

    def run() -> float:
        target.use(trigger)
        target.empty()
        # The first ones make plans and files.
        target.put(*(f"clips/first/{number}.mp4" for number in range(10)))
        names = [f"clips/2026/{number}.mp4" for number in range(uploads)]
        return seconds(lambda: target.put(*names)) / uploads

    return run


def _matching(target: Database, uploads: int, rounds: int) -> Row:
    target.rules(MATCHING)
    cases = {"none": None, "guide": "guide", "ours": OURS}
    times = in_turns({case: _each(target, trigger, uploads) for case, trigger in cases.items()}, rounds)
    none = statistics.median(times["none"])
    ours, guide = statistics.median(times["ours"]) - none, statistics.median(times["guide"]) - none
    return Row(
        1,
        "time added to an upload that a rule is for, beside the guide's trigger (µs)",
        ours * 1e6,
        guide * 1e6,
        ours / guide,
        "<= 1.5",
        stand_in=True,
        more={"the whole upload without a trigger (µs)": none * 1e6},
    )


def _not_matching(target: Database, uploads: int, rounds: int) -> Row:
    target.rules(*NOT_MATCHING)
    times = in_turns({"none": _each(target, None, uploads), "ours": _each(target, OURS, uploads)}, rounds)
    return Row(
        2,
        "an upload that none of 100 rules is for, beside one without a trigger (µs)",
        statistics.median(times["ours"]) * 1e6,
        statistics.median(times["none"]) * 1e6,
        ratio(times["ours"], times["none"]),
        "<= 1.05",
        stand_in=False,
    )


def _bulk(target: Database, count: int, rounds: int) -> Row:
    target.rules(MATCHING)

    def with_trigger(trigger: str) -> Callable[[], float]:
        def run() -> float:
            target.use(trigger)
            target.empty()
            return seconds(lambda: target.put_at_once(count))

        return run

    times = in_turns({"guide": with_trigger("guide"), "ours": with_trigger(OURS)}, rounds)
    target.use(OURS)
    target.empty()
    target.put_at_once(count)
    return Row(
        3,
        f"{count:,} objects in one statement, beside the guide's trigger (s)",
        statistics.median(times["ours"]),
        statistics.median(times["guide"]),
        ratio(times["ours"], times["guide"]),
        "<= 1.5",
        stand_in=True,
        holds=_start_all(target) == count,
    )


def _start_all(target: Database) -> int:
    """Let every call that waits at pg_net start its job, and the sender send the rest; return how many started."""
    connection = target.admin
    take = "delete from net.http_request_queue returning convert_from(body, 'UTF8')::jsonb as message"
    with connection.cursor(row_factory=dict_row) as cursor:
        while True:
            messages = [row["message"] for row in cursor.execute(take).fetchall()]
            for message in messages:
                _start(target, message["job"], message["attempt"])
            sent = connection.execute("select ittybit.send_due()").fetchone()
            if not messages and sent == (0,):
                break
    started = connection.execute("select count(*) from ittybit.jobs where state = 'started' and attempt = 1").fetchone()
    return int(started[0]) if started else 0


def _start(target: Database, job: str, attempt: int) -> None:
    claim = target.admin.execute("select public.ittybit_claim(%s, %s) ->> 'step'", [job, attempt], prepare=True)
    if claim.fetchone() == ("start",):
        target.admin.execute(
            "select public.ittybit_report(%s, %s, 'started', 'run_' || %s)", [job, attempt, job], prepare=True
        )
