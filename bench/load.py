"""Many calls at little cost: prebuilt requests on kept-alive connections."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook

from bench.function_process import SECRET

MESSAGE = b'{"type": "jobs.due"}'
_STARTED = re.compile(rb'"started": ?([0-9]+)')


def signed(body: bytes = MESSAGE) -> dict[str, str]:
    """Return the headers of a message that the database sends now. They are valid for five minutes."""
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("wake_1", now, body.decode())
    return {
        "Content-Type": "application/json",
        "webhook-id": "wake_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }


@dataclass(frozen=True)
class Answers:
    """The result of a load.

    Attributes:
        count: how many answers arrived, all with the expected status.
        started: how many started jobs they report.
        seconds: how long the load took.
    """

    count: int
    started: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.count / self.seconds


def load(
    port: int, body: bytes, headers: Mapping[str, str], *, status: int, connections: int, seconds: float
) -> Answers:
    """Call from that many connections at once for that long; every answer must have the status.

    Raises:
        RuntimeError: an answer had another status.
    """
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST / HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    return asyncio.run(_load(port, request, f" {status} ".encode(), connections, seconds))


async def _load(port: int, request: bytes, expected: bytes, connections: int, seconds: float) -> Answers:
    began = time.perf_counter()
    callers = (_call(port, request, expected, began + seconds) for _ in range(connections))
    counts = await asyncio.gather(*callers)
    count, started = (sum(column) for column in zip(*counts, strict=True))
    return Answers(count, started, time.perf_counter() - began)


async def _call(port: int, request: bytes, expected: bytes, until: float) -> tuple[int, int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = started = 0
    while time.perf_counter() < until:
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            # The server has closed the connection: send the request again on a new one.
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        if expected not in head[:16]:
            raise RuntimeError(f"expected {expected!r}, got {head!r}")
        body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        count += 1
        if found := _STARTED.search(body):
            started += int(found[1])
        if b"connection: close" in head.lower():
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return count, started
