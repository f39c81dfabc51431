"""A scheduler as the only waker: the project has no pg_net and no pg_cron.

The scheduler is a loop that calls each function with the bearer token, whether there is work or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from local.fault_run.host import WORKING, Host
from local.fault_run.settling import SettlingError
from local.fault_run.uploads import Uploads
from local.stack import Stack

_EVERY: Final = 0.5  # seconds between two rounds of calls; a real scheduler would call once a minute
_OPEN: Final = "select count(*) from ittybit.jobs where due_at is not null"
_JOBS: Final = """
select count(*), count(*) filter (where state = 'succeeded') from ittybit.jobs where name like 'scheduled/%%'
"""


@dataclass(frozen=True)
class Scheduled:
    """What happened to the uploads while only the scheduler called.

    Attributes:
        jobs: How many jobs there were.
        processed: How many of them succeeded.
        calls: How often the scheduler called.
    """

    jobs: int
    processed: int
    calls: int


def drive_by_schedule(
    stack: Stack, host: Host, load: Uploads, *, uploads: int, seconds: float, say: Callable[[str], None]
) -> Scheduled:
    """Stop pg_net and pg_cron, upload, and call the functions until everything is processed.

    Raises:
        SettlingError: some jobs have not ended within ``seconds``.
    """
    host.pg_cron.stop()
    host.pg_net.pause()
    for number in range(uploads):
        load.upload(f"scheduled/{number:05}.mp4", f"scheduled {number} ".encode() * 20)
    calls = 0
    deadline = time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=30, headers={"authorization": f"Bearer {stack.token}"}) as http:
        while (left := stack.sql(_OPEN)) != [(0,)]:
            if time.monotonic() > deadline:
                raise SettlingError(f"{left[0][0]} jobs are still open, with a scheduler alone")
            for name in WORKING:
                http.post(stack.functions[name].url, json={"type": "jobs.due"}).raise_for_status()
                calls += 1
            time.sleep(_EVERY)
    [(jobs, processed)] = stack.sql(_JOBS)
    say(f"a scheduler alone: {processed} of {jobs} jobs processed by {calls} calls")
    host.pg_net.resume()
    host.pg_cron.start()
    return Scheduled(jobs, processed, calls)
