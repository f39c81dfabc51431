"""Settling: without faults, until no job has anything left to do. Waits are cut short, but only those that are idle.

What a job waits for may be shifted into the past (``due_at``) without making anything possible that real time would
not, as long as nobody can be about to start it:

- A job that is started is only checked. When does not matter.
- Of a job that is queued and not in doubt (``doubt_since`` is null: every claim of a start sets it, in the same
  transaction) nobody holds a start. It waits for the end of a backoff, a hold, a busy output, or for a message that was
  not claimed; should that one still come, a later attempt has been sent and it is refused. Leases begun in the last
  15 s are left, so that messages under way are not made stale by the thousand.
- A job in doubt may have been claimed by a function that is about to start it, or may have a request under way that
  takes effect late. That is what its lease, and the minute after a report in doubt, are for. Its wait is cut short only
  while *all is at rest*: pg_net stopped, the functions ended, and neither ittybit nor the project with a request in
  hand. Whatever starts there were have then happened or never will, and the ledger looks for them first.

The probe of a hold is one job at a time whenever it comes, and is brought forward likewise. The sender and the sweep,
which pg_cron runs every few seconds, are run more often. So the figures for a job that met faults near the end of the
load are better than they would be by the clock: backoffs, leases and holds are up to an hour, a minute and five
minutes there. Those that ended before are as measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from local.fault_run.host import Host
from local.stack import Stack

_IDLE: Final = """
update ittybit.jobs set due_at = now()
where due_at > now()
  and (state = 'started' or doubt_since is null)
  and due_at not between now() + interval '45 seconds' and now() + interval '60 seconds'
"""
_PROBES: Final = """
update ittybit.holds set probe_at = now()
where probe_at > now() and (probe is null or probe_at < now() + interval '4 minutes 45 seconds')
"""
_ALL: Final = "update ittybit.jobs set due_at = now() where due_at > now()"
_OPEN: Final = """
select count(*), count(*) filter (where state = 'queued' and doubt_since is not null)
from ittybit.jobs where due_at is not null
"""
_LEFT: Final = """
select rule, name, state, attempt, claimed, reported, doubt_since, due_at - now(), restart, error
from ittybit.jobs where due_at is not null order by due_at limit 20
"""
_EVERY: Final = 0.5  # seconds between two looks
# Seconds without a change until all is brought to rest: soon with nothing left but starts in doubt; while others still
# move only when they do not, for a batch of messages takes its time, and to end the functions takes it from them.
_REST_AFTER: Final = 3.0
_REST_AT_LAST: Final = 20.0


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
    """Let everything be due that nobody can be about to start, and send it."""
    stack.sql(_IDLE)
    bring_probes_forward(stack)
    stack.sql("select ittybit.send_due()")


def bring_probes_forward(stack: Stack) -> None:
    """Let each hold try the next job, once the one that was sent has had 15 s."""
    stack.sql(_PROBES)


def _finish(stack: Stack, host: Host, deadline: float, say: Callable[[str], None]) -> None:
    changed_at, former = time.monotonic(), (0, 0)
    while True:
        [(left, in_doubt)] = stack.sql(_OPEN)
        if left == 0:
            return
        now = time.monotonic()
        if now > deadline:
            jobs = "\n".join(map(str, stack.sql(_LEFT)))
            raise SettlingError(f"{left} jobs still have something to do:\n{jobs}")
        if (left, in_doubt) != former:
            changed_at, former = now, (left, in_doubt)
        if in_doubt and now > changed_at + (_REST_AFTER if left == in_doubt else _REST_AT_LAST):
            say(f"settling: {in_doubt} starts in doubt; all is brought to rest to end their leases")
            with host.at_rest():
                stack.sql(_ALL)
            changed_at = time.monotonic()
        cut_idle_waits_short(stack)
        time.sleep(_EVERY)


def _sweep(stack: Stack) -> int:
    """Let the sweep go round once from the beginning; return what it found to do."""
    [(rounds, healed)] = stack.sql("select rounds, healed from ittybit.sweep")
    while stack.sql("select rounds from ittybit.sweep") < [(rounds + 2,)]:
        stack.sql("select ittybit.sweep_page()")
    return int(stack.sql("select healed from ittybit.sweep")[0][0]) - int(healed)
