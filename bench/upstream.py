"""A server as cheap as possible for what the functions call (the two RPCs and ittybit), which also receives a webhook.

It is a process of its own (``python -m bench.upstream``), so that it can have another core than the functions. It first
prints its address. With a database, it then prints a line for each start and each webhook that arrives: the kind, the
time in Unix seconds, and the start's mark or the webhook's number. It ends when its standard input ends.
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
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import LiteralString, Self

from psycopg_pool import AsyncConnectionPool

from bench.side_by_side import LOADING, pin

Answering = Callable[[bytes, bytes], Awaitable[bytes]]

# Called as PostgREST does: by name, with the body's arguments, as service_role.
_RPC: dict[bytes, LiteralString] = {
    b"/rest/v1/rpc/ittybit_claim": (
        "select public.ittybit_claim("
        "function => r.function, project => r.project, jobs => r.jobs, reports => r.reports"
        ")::text from json_to_record(%s::json) as r (function text, project text, jobs integer, reports jsonb)"
    ),
    b"/rest/v1/rpc/ittybit_report": (
        "select public.ittybit_report(reports => r.reports)::text from json_to_record(%s::json) as r (reports jsonb)"
    ),
}
_MARK = re.compile(rb"job=([0-9a-f.-]+)")
# A claim never asks for more than 100 jobs.
_JOBS = [
    json.dumps(
        {
            "job": f"7a528c1c-005f-4bc2-bb6f-38b460de86{number:02}",
            "generation": 1,
            "attempt": 1,
            "step": "start",
            "mark": f"7a528c1c-005f-4bc2-bb6f-38b460de86{number:02}.1",
            "bucket": "media",
            "name": f"clips/2026/{number}.mp4",
            "public": True,
            "action": {"automation_id": "auto_1"},
        }
    )
    for number in range(100)
]
_RUN = {"id": "run_1", "automation_id": "auto_1", "status": "pending", "created_at": "2026-11-23T22:40:59Z"}
_STARTS = b"/run"


def _answer(content: str) -> bytes:
    body = content.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _canned(delay: float, due: int | None) -> Answering:
    """Answer after ``delay``. A claim gets all it asks for; with ``due``, a drain's first claim gets ``due`` jobs."""
    started = _answer(json.dumps(_RUN))

    async def answer(path: bytes, body: bytes) -> bytes:
        await asyncio.sleep(delay)
        if path not in _RPC:
            return started
        asked = json.loads(body)
        jobs = asked.get("jobs", 0)
        if due is not None:
            jobs = 0 if asked["reports"] else min(jobs, due)
        more = jobs == asked.get("jobs")
        return _answer(f'{{"jobs": [{", ".join(_JOBS[:jobs])}], "more": {json.dumps(more)}, "reports": []}}')

    return answer


def _of_database(pool: AsyncConnectionPool, delay: float) -> Answering:
    """Answer RPCs from the database, and calls to ittybit after ``delay``; count the functions' calls by kind."""
    calls: Counter[str] = Counter()

    async def answer(path: bytes, body: bytes) -> bytes:
        if path == b"/calls":
            return _answer(json.dumps(calls))
        if path.startswith(b"/hook/"):
            print("hook", time.time(), path[6:].decode(), flush=True)
            return _answer("{}")
        if statement := _RPC.get(path):
            calls["ledger"] += 1
            async with pool.connection() as connection:
                cursor = await connection.execute(statement, [body.decode()], prepare=True)
                row = await cursor.fetchone()
            return _answer(row[0] if row else "null")
        if path.endswith(_STARTS):
            calls["starts"] += 1
            mark = _MARK.search(body)
            print("start", time.time(), mark[1].decode() if mark else "", flush=True)
            run = f"run_{calls['starts']}"
        else:
            calls["checks"] += 1
            run = path.rpartition(b"/")[2].decode()
        await asyncio.sleep(delay)
        return _answer(json.dumps({**_RUN, "id": run}))

    return answer


class _Connection(asyncio.Protocol):
    """One connection, kept alive; its requests come one after the other."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._received = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: a server gets this kind
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


async def _serve(delay: float, dsn: str | None, due: int | None) -> None:
    pool = AsyncConnectionPool(dsn or "", min_size=16, open=False, kwargs={"autocommit": True})
    if dsn:
        await pool.open(wait=True)
    answering = _of_database(pool, delay) if dsn else _canned(delay, due)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(answering), "127.0.0.1", 0, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await pool.close()


class Upstream:
    """The server in its own process, from construction until the ``with`` block ends.

    Args:
        delay: seconds until ittybit answers; without a database, until every answer.
        dsn: the database that answers the RPCs; without one, the answers are canned.
        due: how many jobs a drain finds, if the answers are canned; by default always as many as it asks for.

    Attributes:
        origin: its address.
    """

    def __init__(self, delay: float, *, dsn: str | None = None, due: int | None = None) -> None:
        command = [sys.executable, "-m", "bench.upstream", "--delay", str(delay)]
        command += ["--dsn", dsn] if dsn else []
        self._process = subprocess.Popen(
            [*command, *(["--due", str(due)] if due is not None else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            text=True,
        )
        pin(LOADING, self._process.pid)
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.origin = self._process.stdout.readline().rstrip("\n")
        # Read the lines at once: a full pipe would block the server.
        self._arrived: dict[str, queue.SimpleQueue[tuple[float, str]]] = {
            "start": queue.SimpleQueue(),
            "hook": queue.SimpleQueue(),
        }
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start_arrived(self) -> tuple[float, str]:
        """Wait for the next start; return when it arrived, in Unix seconds, and its mark."""
        return self._arrived["start"].get(timeout=60)

    def hook_arrived(self) -> tuple[float, str]:
        """Wait for the next call of ``/hook/<number>``; return when it arrived, and the number."""
        return self._arrived["hook"].get(timeout=60)

    def calls(self) -> Counter[str]:
        """How many calls the functions have made, by kind; only with a database."""
        with urllib.request.urlopen(f"{self.origin}/calls") as answer:  # noqa: S310 - our own loopback address
            return Counter(json.load(answer))

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with self._process.stdout as lines:
            for line in lines:
                kind, moment, what = line.rstrip("\n").split(" ")
                self._arrived[kind].put((float(moment), what))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()
        self._process.wait()
        self._listener.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.upstream")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until each answer")
    parser.add_argument("--dsn", help="the database that answers the RPCs")
    parser.add_argument("--due", type=int, help="jobs that a drain finds, if the answers are canned")
    options = parser.parse_args()
    asyncio.run(_serve(options.delay, options.dsn, options.due))
