"""Settling: the stack runs without faults until no job has a next step. Idle waits are cut short.

A job's wait is cut short by making it due now (``due_at``). Nothing can happen then that could not happen in real time,
as long as no function can be about to start the job:

- A started job is only checked. It does not matter when.
- A queued job that is neither leased (``claimed_at`` is null) nor in doubt (``in_doubt_since`` is null) waits for the
  end of a backoff, a hold or a busy output. No function is about to start it.
- A job whose search ran out of time (``searching``) waits for the next attempt, which continues it.
- A queued job that is leased may be started at any moment. A start in doubt may have a request in progress that takes
  effect late. The lease, and the minute after a report in doubt, exist for these cases. These waits are cut short only
  while *everything is at rest*: pg_net and the functions are stopped, and no request to ittybit or to the project is in
  progress. Each start has then happened or never will, and the function looks for it before it starts the job again.

Leases of checks that began in the last 10 s stay: an invocation lasts 8 s, so their function may still be at work. A
hold probes with one job at a time, so a probe is brought forward too. A wake-up may come at any time, so one is sent
when there is work and pg_net has none queued. The sweep, which pg_cron runs every ten seconds, runs more often.

A job that met faults near the end of the load therefore ends sooner than in real time, where a backoff lasts up to an
hour, a lease a minute and a hold five minutes. The figures of jobs that ended before are as measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from local.fault_run.host import Host
from local.stack import Stack

_IDLE: Final = """
update ittybit.jobs as j set due_at = now()
from (
  select id from ittybit.jobs
  where due_at > now()
    and case
      when state = 'started' then claimed_at is null or claimed_at < now() - interval '10 seconds'
      else claimed_at is null and (in_doubt_since is null or reason = 'searching')
    end
  for update skip locked
) as idle
where j.id = idle.id
"""
_PROBES: Final = """
update ittybit.holds set probe_at = now()
where probe_at > now() and probe_at not between now() + interval '45 seconds' and now() + interval '60 seconds'
"""
_WAKE: Final = """
select ittybit.post_wake_up(f.url)
from ittybit.functions as f
where exists (select from ittybit.work(f.name, 1))
  and not exists (select from net.http_request_queue as q where q.url = f.url)
"""
_ALL: Final = "update ittybit.jobs set due_at = now() where due_at > now()"
_OPEN: Final = """
select
  count(*),
  count(*) filter (
    where state = 'queued' and in_doubt_since is not null
      and (reason is distinct from 'searching' or claimed_at < now() - interval '10 seconds')
  )
from ittybit.jobs where due_at is not null
"""
_LEFT: Final = """
select rule, name, state, attempt, lost, claimed_at, in_doubt_since, due_at - now(), undecided, reason, error
from ittybit.jobs where due_at is not null order by due_at limit 20
"""
_EVERY: Final = 0.5  # seconds between two looks
# After so many seconds without a change, everything is brought to rest: soon if only starts in doubt are left, else
# after an invocation's time, because a batch may take that long and stopping the functions would interrupt it.
_REST_AFTER: Final = 3.0
_REST_AT_LAST: Final = 10.0


class SettlingError(RuntimeError):
    """Some jobs are still open when time is over; the message of ``settle`` lists them."""


def settle(stack: Stack, host: Host, *, seconds: float, say: Callable[[str], None]) -> None:
    """Return when no job has a ``due_at`` and the sweep has looked through everything once since then.

    Raises:
        SettlingError: not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        _finish(stack, host, deadline, say)
        if _sweep(stack) == 0:
            return


def cut_idle_waits_short(stack: Stack) -> None:
    """Make every job due that no function can be about to start, and wake the functions that have work."""
    stack.sql(_IDLE)
    bring_probes_forward(stack)
    stack.sql(_WAKE)


def bring_probes_forward(stack: Stack) -> None:
    """Let each hold probe with its next job, once the last probe has had 15 s."""
    stack.sql(_PROBES)


def _finish(stack: Stack, host: Host, deadline: float, say: Callable[[str], None]) -> None:
    changed_at, former, rest_after = time.monotonic(), (0, 0), _REST_AFTER
    while True:
        [(left, in_doubt)] = stack.sql(_OPEN)
        if left == 0:
            return
        now = time.monotonic()
        if now > deadline:
            jobs = "\n".join(map(str, stack.sql(_LEFT)))
            raise SettlingError(f"{left} jobs are still open:\n{jobs}")
        if (left, in_doubt) != former:
            changed_at, former, rest_after = now, (left, in_doubt), _REST_AFTER
        if in_doubt and now > changed_at + (rest_after if left == in_doubt else _REST_AT_LAST):
            say(f"settling: {in_doubt} starts in doubt; everything is brought to rest to end their leases")
            with host.at_rest():
                stack.sql(_ALL)
            # A job that was started a moment ago may wait that long for its first answer.
            changed_at, rest_after = time.monotonic(), _REST_AT_LAST
        cut_idle_waits_short(stack)
        time.sleep(_EVERY)


def _sweep(stack: Stack) -> int:
    """Run one whole round of the sweep; return how many jobs it made."""
    [(rounds, healed)] = stack.sql("select rounds, healed from ittybit.sweep")
    while stack.sql("select rounds from ittybit.sweep") < [(rounds + 2,)]:
        stack.sql("select ittybit.sweep_page()")
    return int(stack.sql("select healed from ittybit.sweep")[0][0]) - int(healed)
