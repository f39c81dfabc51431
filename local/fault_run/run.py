"""One run, from the start of the stack to the report."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from psycopg.types.json import Jsonb

from local.fault_injection import Request
from local.fault_run import witness
from local.fault_run.broken_parts import break_each
from local.fault_run.chaos import Chaos
from local.fault_run.database_copy import DatabaseCopy
from local.fault_run.database_outages import Outages
from local.fault_run.evidence import gather
from local.fault_run.final_checks import idle_hour, unexplained
from local.fault_run.function_outage import go_away_for_days
from local.fault_run.host import Host
from local.fault_run.lost_wake_ups import lose_wake_ups_for_an_hour
from local.fault_run.plan import PACE, make_plan
from local.fault_run.progress import Progress
from local.fault_run.report import Report, percentiles
from local.fault_run.scheduled import drive_by_schedule
from local.fault_run.settling import settle
from local.fault_run.uploads import BUCKET, RESULTS, Uploads
from local.fault_run.wake_ups import WakeUps
from local.project import Project
from local.stack import Stack

# A rule of each sort, for the whole bucket. Two of them write their results into it: without a guard, a result would be
# processed again and again. These two are push-back's, so that one batch has several jobs of one object.
AUTOMATED: Final = "automated"
COPIED: Final = "copied"
WORKED: Final = "worked"
_RULES: Final = """
insert into ittybit.rules (name, bucket_id, automation_id, task, run, output_prefix) values
  (%s, %s, %s, %s, null, 'made/'),
  (%s, %s, null, %s, null, null),
  (%s, %s, null, null, %s, null)
"""
_KEPT: Final = {"kind": "video", "options": {}}
_TASK: Final = _KEPT | {"destination": f"s3://{BUCKET}/{RESULTS}{{name}}"}
_UPLOAD: Final = {"kind": "upload", "options": {"url": f"s3://{BUCKET}/{RESULTS}{{name}}.copy"}}
_RUN: Final = {"tasks": [_KEPT | {"next": [_UPLOAD]}]}
_NOTHING_QUEUED: Final = "delete from net.http_request_queue where true"
_CEILINGS: Final = "update ittybit.settings set starts_per_hour = 1000000, starts_per_day = 1000000"
_ENDS: Final = """
select etag, extract(epoch from max(finished_at))::float
from ittybit.jobs where state in ('succeeded', 'failed') group by etag
"""
_WORKERS: Final = 4
# The last faults may wait for starts in doubt, which wait for the end of their leases.
_LAST_FAULTS_SECONDS: Final = 120.0
_RENAMED_RESULTS: Final = 10
_EXAMPLES: Final = 10


def run(
    uploads: int,
    seed: int,
    *,
    pace: float = PACE,
    api: str = "automations",
    ignore_idempotency: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run so many uploads with the faults that the seed plans, and report.

    Args:
        uploads: How many objects are stored; at least 30.
        seed: Plans the load and the faults.
        pace: At most so many steps of the load a second.
        api: The generation of ittybit's API that the stand-in speaks.
        ignore_idempotency: Whether the stand-in ittybit ignores Idempotency-Key.
        say: Called with each line of progress.

    Raises:
        local.fault_run.settling.SettlingError: some jobs have not ended in time.
        local.fault_run.uploads.LoadError: a request failed at every try, or the storage server lost an object.
        ValueError: too few uploads, or a pace that is not above 0.
    """
    began = time.monotonic()
    plan = make_plan(uploads, seed, pace)
    options: dict[str, Any] = {
        "api": api,
        "encode": False,
        "honour_idempotency": not ignore_idempotency,
        "workers": _WORKERS,
    }
    wake_ups = WakeUps(plan.wake_ups, seed)
    with contextlib.ExitStack() as stopping:
        stack = stopping.enter_context(Stack.start(processes=False, say=say, **options))
        host = Host.start(stack, wake_ups.disturb)
        stopping.callback(host.stop)
        rules = _set_up(stack)
        to_ittybit: list[Request] = []
        to_supabase: list[Request] = []
        stack.ittybit_api.requests, stack.supabase.requests = to_ittybit, to_supabase

        progress = stopping.enter_context(Progress(stack, lambda: f"{load.done:4.0%} of the load", say))
        load = Uploads(stack, plan, Outages(), progress.has_room)
        stopping.callback(load.stop)
        chaos = Chaos(stack, host, plan, wake_ups, load)
        copy = DatabaseCopy.start(stack, host, load)
        stopping.callback(copy.stop)
        load.start()
        load_s = _carry_out(load, chaos)
        say("no more faults; settling")
        settle(stack, host, seconds=120 + uploads / 5, say=say)
        ends = dict(stack.sql(_ENDS))
        database_copy = copy.end()

        renamed = _rename_results(stack, load)
        absence = go_away_for_days(stack, host, load, uploads=max(20, min(uploads // 10, 300)), seconds=300, say=say)
        few = max(20, min(uploads // 20, 100))
        lost_hour = lose_wake_ups_for_an_hour(stack, host, wake_ups, load, uploads=few, seconds=180, say=say)
        scheduled = drive_by_schedule(stack, host, load, uploads=few, seconds=120, say=say)
        breakage = break_each(stack, host, load, uploads=max(2, min(uploads // 100, 50)), seconds=300, say=say)
        say("an hour passes in which nothing happens")
        # The last drain may still make a claim, and pg_net may send a wake-up: neither belongs to that hour.
        with host.at_rest():
            stack.sql(_NOTHING_QUEUED)
        calls = _calls(wake_ups, to_ittybit, to_supabase)
        idle_hour(stack)
        idle_calls = sum(_calls(wake_ups, to_ittybit, to_supabase).values()) - sum(calls.values())
        say("asking explain about every object")
        not_explained = unexplained(stack)
        found = witness.examine(gather(stack, load, to_ittybit, rules, renamed))

    faults = Counter(chaos.happened) + wake_ups.happened + load.happened
    examples = {"harmed": load.harmed, "unexplained": not_explained}
    examples |= {name: list(value) for name, value in vars(found).items()}
    return Report(
        seed=seed,
        api=api,
        idempotency="ignored" if ignore_idempotency else "honoured",
        uploads=uploads,
        faults=dict(sorted(faults.items())),
        harmed=len(load.harmed),
        lost=len(found.lost),
        started_twice=len(found.started_twice),
        ambiguous=len(found.ambiguous),
        self_started=len(found.self_started),
        settle_s=percentiles(_settled(load.stored_at, ends)),
        http_calls=calls,
        database_copy=database_copy,
        absence=absence,
        lost_hour=lost_hour,
        scheduled=scheduled,
        breakage=breakage,
        idle_calls=idle_calls,
        unexplained=len(not_explained),
        load_s=round(load_s, 1),
        whole_s=round(time.monotonic() - began, 1),
        examples={name: found[:_EXAMPLES] for name, found in examples.items() if found},
    )


def _set_up(stack: Stack) -> list[str]:
    """Make the bucket, the connection and the rules; return the rules' names."""
    project = Project(stack)
    try:
        project.create_bucket(BUCKET)
        project.create_connection()
        action = project.action(_KEPT)
    finally:
        project.close()
    stack.sql(_CEILINGS)
    automated = [action.get("automation_id"), None if "automation_id" in action else Jsonb(_KEPT)]
    stack.sql(_RULES, [AUTOMATED, BUCKET, *automated, COPIED, BUCKET, Jsonb(_TASK), WORKED, BUCKET, Jsonb(_RUN)])
    return [AUTOMATED, COPIED, WORKED]


def _carry_out(load: Uploads, chaos: Chaos) -> float:
    """Wait for the load, making the faults, then make the remaining faults; return the seconds that the load took."""
    began = time.monotonic()
    while (done := load.done) < 1:
        chaos.go_on(done)
        time.sleep(0.05)
    load_s = time.monotonic() - began
    deadline = time.monotonic() + _LAST_FAULTS_SECONDS
    while not chaos.is_over and time.monotonic() < deadline:
        chaos.finish()
        time.sleep(0.25)  # each try opens several connections
    chaos.end()
    return load_s


def _rename_results(stack: Stack, load: Uploads) -> list[str]:
    """Move some results out of the results' prefix, as a user may; return their new keys."""
    rows = stack.sql(
        "select name from storage.objects where bucket_id = %s and starts_with(name, %s) order by name limit %s",
        [BUCKET, RESULTS, _RENAMED_RESULTS],
    )
    for (name,) in rows:
        load.rename(name, name.replace(RESULTS, "kept/", 1))
    return [name.replace(RESULTS, "kept/", 1) for (name,) in rows]


def _settled(stored_at: Mapping[str, float], ends: Mapping[str, float]) -> list[float]:
    return [max(0.0, end - stored_at[tag]) for tag, end in ends.items() if tag in stored_at]


def _calls(wake_ups: WakeUps, to_ittybit: list[Request], to_supabase: list[Request]) -> dict[str, int]:
    """How many calls there have been to each receiver."""
    return {
        "functions": wake_ups.sent,
        "ittybit": len(to_ittybit),
        "supabase": sum(map(_is_from_function, to_supabase)),
    }


def _is_from_function(request: Request) -> bool:
    return request.method == "POST" and request.path.startswith(("/rest/v1/rpc/", "/storage/v1/object/sign/"))
