"""What the functions call, as cheap as it can be: the two RPCs and ittybit.

A process of its own (``python -m bench.upstream``), so that it has a core beside the functions'. The first line that it
says is its address; from then on it says when each start arrived, in Unix seconds and with its mark, where it is asked
to. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import LiteralString, Self

from psycopg_pool import AsyncConnectionPool

from bench.side_by_side import LOADING, pin

Answering = Callable[[bytes, bytes], Awaitable[bytes]]

# As PostgREST calls them: by name, from the body, as service_role.
_RPC: dict[bytes, LiteralString] = {
    b"_claim": "select public.ittybit_claim(r.job, r.attempt)::text"
    " from json_to_record(%s::json) as r (job uuid, attempt integer)",
    b"report": "select public.ittybit_report(r.job, r.attempt, r.outcome, r.ittybit_id, r.progress)::text"
    " from json_to_record(%s::json) as r (job uuid, attempt integer, outcome text, ittybit_id text, progress real)",
}
_MARK = re.compile(rb"job=([0-9a-f.-]+)")
_CLAIM = {
    "claimed": True,
    "step": "start",
    "mark": "7a528c1c-005f-4bc2-bb6f-38b460de86d7.1",
    "look_since": None,
    "now": "2026-11-23T22:40:59.665398+00:00",
    "otherwise": None,
    "bucket": "media",
    "name": "clips/2026/a.mp4",
    "public": True,
    "automation_id": "auto_1",
    "task": None,
}
_RUN = {"id": "run_1", "automation_id": "auto_1", "status": "pending", "created_at": "2026-11-23T22:40:59Z"}


def _answer(content: str) -> bytes:
    body = content.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _canned(delay: float) -> Answering:
    """Answer everything after a while, always the same."""
    rpcs = {b"_claim": _answer(json.dumps(_CLAIM)), b"report": _answer('{"applied": true, "state": "started"}')}
    started = _answer(json.dumps(_RUN))

    async def answer(path: bytes, body: bytes) -> bytes:  # noqa: ARG001 - whatever is asked
        await asyncio.sleep(delay)
        return rpcs.get(path[-6:], started)

    return answer


def _of_database(pool: AsyncConnectionPool, delay: float) -> Answering:
    """Let the database answer the RPCs, and ittybit after a while; say when each start arrived."""
    runs = 0

    async def answer(path: bytes, body: bytes) -> bytes:
        nonlocal runs
        if statement := _RPC.get(path[-6:]):
            async with pool.connection() as connection:
                cursor = await connection.execute(statement, [body.decode()], prepare=True)
                row = await cursor.fetchone()
            return _answer(row[0] if row else "null")
        runs += 1
        number = runs
        mark = _MARK.search(body)
        print(time.time(), mark[1].decode() if mark else "", flush=True)
        await asyncio.sleep(delay)
        return _answer(json.dumps({**_RUN, "id": f"run_{number}"}))

    return answer


class _Connection(asyncio.Protocol):
    """One connection, kept alive; its requests come one after the other."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells mypy what a server is given
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            _, _, rest = head.lower().partition(b"content-length: ")
            after = end + 4 + int(rest.partition(b"\r\n")[0] or 0)
            if len(self._received) < after:
                return
            task = asyncio.ensure_future(self._answer(head.split(b" ", 2)[1], self._received[end + 4 : after]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._received = self._received[after:]

    async def _answer(self, path: bytes, body: bytes) -> None:
        self._transport.write(await self._answering(path, body))


async def _serve(delay: float, dsn: str | None) -> None:
    pool = AsyncConnectionPool(dsn or "", min_size=4, max_size=16, open=False, kwargs={"autocommit": True})
    if dsn:
        await pool.open(wait=True)
    answering = _of_database(pool, delay) if dsn else _canned(delay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answering), "127.0.0.1", 0, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await pool.close()


class Upstream:
    """It, in its process, from construction until the end of the with.

    Args:
        delay: seconds until ittybit answers, and without a database everything.
        dsn: the database that answers the RPCs; canned answers without one.

    Attributes:
        origin: its address.
    """

    def __init__(self, delay: float, *, dsn: str | None = None) -> None:
        command = [sys.executable, "-m", "bench.upstream", "--delay", str(delay)]
        self._process = subprocess.Popen(
            [*command, *(["--dsn", dsn] if dsn else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            text=True,
        )
        pin(LOADING, self._process.pid)
        # Read at once: a full pipe would hold it up.
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.origin = self._said.get()

    def start_arrived(self) -> tuple[float, str]:
        """Wait for the next start; return when it arrived, in Unix seconds, and its mark."""
        moment, _, mark = self._said.get(timeout=60).partition(" ")
        return float(moment), mark

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        with self._process.stdout as lines:
            for line in lines:
                self._said.put(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None  # noqa: S101 - as well
        self._process.stdin.close()
        self._process.wait()
        self._listener.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.upstream")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until each answer")
    parser.add_argument("--dsn", help="the database that answers the RPCs")
    options = parser.parse_args()
    asyncio.run(_serve(options.delay, options.dsn))
