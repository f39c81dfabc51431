"""Settling: without faults, until no job has a next step. Idle waits are cut short.

What a job waits for may be shifted into the past (``due_at``) without making anything possible that real time would
not, as long as nobody can be about to start it:

- A job that is started is only checked. When does not matter.
- A job that is queued, not leased (``claimed_at`` is null) and not in doubt (``in_doubt_since`` is null) waits for the
  end of a backoff, a hold or a busy output. Nobody holds a start of it.
- A queued job that is leased may be about to be started. One in doubt may have a request under way that takes effect
  late. That is what the lease, and the minute after a report in doubt, are for. These waits are cut short only while
  *all is at rest*: pg_net stopped, the functions ended, and neither ittybit nor the project with a request in hand.
  Whatever starts there were have then happened or never will, and the ledger looks for them first.

Leases of checks that began in the last 10 s are left: an invocation lasts 8 s, so who has them may be at work. The
probe of a hold is one job at a time whenever it comes, and is brought forward likewise. Wake-ups may come from anybody
at any time: where there is work and none is under way, one is sent. The sweep, which pg_cron runs every ten seconds, is
run more often. So the figures for a job that met faults near the end of the load are better than they would be by the
clock: backoffs, leases and holds are up to an hour, a minute and five minutes there. Those that ended before are as
measured.
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
      else claimed_at is null and in_doubt_since is null
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
select count(*), count(*) filter (where state = 'queued' and in_doubt_since is not null)
from ittybit.jobs where due_at is not null
"""
_LEFT: Final = """
select rule, name, state, attempt, lost, claimed_at, in_doubt_since, due_at - now(), undecided, reason, error
from ittybit.jobs where due_at is not null order by due_at limit 20
"""
_EVERY: Final = 0.5  # seconds between two looks
# Seconds without a change until all is brought to rest: soon with nothing left but starts in doubt; while there are
# others only after an invocation's time, for a batch takes that long, and to end the functions takes it from them.
_REST_AFTER: Final = 3.0
_REST_AT_LAST: Final = 10.0


class SettlingError(RuntimeError):
    """Something is still to be done when the time is over; the message lists it."""


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
    """Let everything be due that nobody can be about to start, and wake whom it is for."""
    stack.sql(_IDLE)
    bring_probes_forward(stack)
    stack.sql(_WAKE)


def bring_probes_forward(stack: Stack) -> None:
    """Let each hold try the next job, once the one that was sent has had 15 s."""
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
            raise SettlingError(f"{left} jobs still have something to do:\n{jobs}")
        if (left, in_doubt) != former:
            changed_at, former, rest_after = now, (left, in_doubt), _REST_AFTER
        if in_doubt and now > changed_at + (rest_after if left == in_doubt else _REST_AT_LAST):
            say(f"settling: {in_doubt} starts in doubt; all is brought to rest to end their leases")
            with host.at_rest():
                stack.sql(_ALL)
            # What was started a moment ago may need that long for its first answer.
            changed_at, rest_after = time.monotonic(), _REST_AT_LAST
        cut_idle_waits_short(stack)
        time.sleep(_EVERY)


def _sweep(stack: Stack) -> int:
    """Run one round of the sweep from the beginning; return how many jobs it made."""
    [(rounds, healed)] = stack.sql("select rounds, healed from ittybit.sweep")
    while stack.sql("select rounds from ittybit.sweep") < [(rounds + 2,)]:
        stack.sql("select ittybit.sweep_page()")
    return int(stack.sql("select healed from ittybit.sweep")[0][0]) - int(healed)
