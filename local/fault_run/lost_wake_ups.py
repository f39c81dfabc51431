"""Lost wake-ups: for an hour every wake-up is lost, while objects are stored.

The run does not wait an hour. Sixty times it stores some objects, lets pg_cron tick, empties pg_net's queue, and moves
all times of open jobs and of functions a minute back. Then pg_net works again. The next tick has to be enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from local.fault_run.host import Host
from local.fault_run.settling import SettlingError
from local.fault_run.uploads import Uploads
from local.fault_run.wake_ups import WakeUps
from local.stack import Stack

_MINUTES: Final = 60
_QUEUED: Final = "select count(*) from net.http_request_queue"
_MINUTE_PASSES: Final = """
with jobs as (
  update ittybit.jobs
  set created_at = created_at - interval '1 minute', due_at = due_at - interval '1 minute'
  where due_at is not null
), functions as (
  update ittybit.functions
  set awaited_since = awaited_since - interval '1 minute', claimed_at = claimed_at - interval '1 minute'
  where url is not null
)
select ittybit.set_last_woken(name, greatest(ittybit.last_woken(name) - 60000, 0))
from ittybit.functions where url is not null
"""
_WAITING: Final = "select count(*) from ittybit.jobs where name like 'unwoken/%%' and state = 'queued' and attempt = 0"
_OPEN: Final = "select count(*) from ittybit.jobs where due_at is not null"
_PROCESSED: Final = "select count(*) from ittybit.jobs where name like 'unwoken/%%' and state = 'succeeded'"
_EVERY: Final = 0.5  # seconds between two looks


@dataclass(frozen=True)
class LostHour:
    """What happened to the uploads of an hour without wake-ups.

    Attributes:
        lost: Wake-ups that were lost.
        jobs: Jobs that waited at its end, none of them ever claimed.
        processed: How many of the hour's jobs succeeded.
        calls: Wake-ups that were sent afterwards, until everything was processed.
    """

    lost: int
    jobs: int
    processed: int
    calls: int

    @property
    def is_good(self) -> bool:
        """Whether every job was processed, and by no more wake-ups than jobs: lost wake-ups are not sent later."""
        return self.lost > 0 and 0 < self.jobs == self.processed and self.calls <= self.jobs


def lose_wake_ups_for_an_hour(
    stack: Stack,
    host: Host,
    wake_ups: WakeUps,
    load: Uploads,
    *,
    uploads: int,
    seconds: float,
    say: Callable[[str], None],
) -> LostHour:
    """Lose all wake-ups for an hour, upload meanwhile, and wait until everything is processed without further help.

    Raises:
        SettlingError: some jobs have not ended within ``seconds``.
    """
    host.pg_net.pause()
    lost = 0
    for minute in range(_MINUTES):
        for number in range(minute * uploads // _MINUTES, (minute + 1) * uploads // _MINUTES):
            load.upload(f"unwoken/{number:05}.mp4", f"unwoken {number} ".encode() * 20)
        stack.sql("select ittybit.wake_functions()")
        lost += stack.sql(_QUEUED)[0][0]
        host.pg_net.lose_queue()
        stack.sql(_MINUTE_PASSES)
    [(jobs,)] = stack.sql(_WAITING)
    say(f"all wake-ups were lost for an hour, {lost} of them: {jobs} jobs wait")
    before = wake_ups.sent
    host.pg_net.resume()
    deadline = time.monotonic() + seconds
    while (left := stack.sql(_OPEN)) != [(0,)]:
        if time.monotonic() > deadline:
            raise SettlingError(f"{left[0][0]} jobs are still open, after an hour of lost wake-ups")
        time.sleep(_EVERY)
    calls = wake_ups.sent - before
    [(processed,)] = stack.sql(_PROCESSED)
    say(f"{processed} of {jobs} jobs processed by {calls} wake-ups")
    return LostHour(lost, jobs, processed, calls)
