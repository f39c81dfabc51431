"""Row 10: another webhook of the project while our function hangs, compared with the same project without us."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator

from bench.database import BUCKET, OURS, database
from bench.pipeline import Webhook, sending
from bench.table import Row
from bench.upstream import Upstream

ROWS = (10,)
UPLOAD_EVERY = 0.5
HOOK_EVERY = 1.1  # not pg_net's own second, so that the calls come at any point of its cycle


def measure(small: bool) -> list[Row]:
    """Measure the row: two projects at the same time, uploads in both, a function only in one."""
    length = 2.5 if small else 60.0
    with (
        _hanging() as url,
        database(max_connections="100") as ours,
        database(max_connections="100") as without,
        Upstream(0, dsn=ours.postgres.dsn("authenticator")) as receiver,
        Upstream(0, dsn=without.postgres.dsn("authenticator")) as other_receiver,
    ):
        ours.rules((BUCKET, "clips/**", "video/*"))
        ours.admin.execute("update ittybit.functions set url = null where name = 'push-back'")
        ours.admin.execute("update ittybit.functions set url = %s where name = 'on-upload'", [url])
        ours.use(OURS)
        without.use(None)
        with (
            sending(ours, without),
            Webhook(ours, receiver, every=HOOK_EVERY) as hook,
            Webhook(without, other_receiver, every=HOOK_EVERY) as alone,
        ):
            until = time.monotonic() + length
            number = 0
            while time.monotonic() < until:
                number += 1
                for one in (ours, without):
                    one.put(f"clips/{number}.mp4")
                time.sleep(UPLOAD_EVERY)
    mean, mean_alone = statistics.mean(hook.waits), statistics.mean(alone.waits)
    return [
        Row(
            10,
            "another webhook's mean wait in the minute after our function began to hang, compared with a project"
            " without us; ratio: the difference (s)",
            mean,
            mean_alone,
            mean - mean_alone,
            "<= 1",
            stand_in=True,
            more={
                "mean wait in the first half (s)": statistics.mean(hook.waits[: len(hook.waits) // 2]),
                "mean wait in the second half (s)": statistics.mean(hook.waits[len(hook.waits) // 2 :]),
                "the longest wait (s)": max(hook.waits),
            },
        )
    ]


@contextlib.contextmanager
def _hanging() -> Iterator[str]:
    """Yield the address of a server that accepts every call and answers none."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()
