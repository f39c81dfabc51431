"""A host that really rolls functions: a new process with other variables takes over when it is ready.

The address stays. The old process finishes its current calls and gets no new ones.
"""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from local.functions import FunctionProcess


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # pg_net sends a batch at once


class RollingFunction:
    """A function behind an address that stays, until ``close``.

    Attributes:
        url: where callers reach it.
        name: such as ``on-upload``.
        environment: the variables of the process that serves.
    """

    def __init__(self, name: str, environment: Mapping[str, str], logs: Path) -> None:
        self.name = name
        self.environment = dict(environment)
        self._logs = logs
        self._turn = threading.Condition()
        self._current_calls: Counter[FunctionProcess] = Counter()
        self._number = 0
        self._process = self._start()
        function = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                function._pass_on(self)

            def log_message(self, *_: object) -> None: ...

        self._server = _Server(("127.0.0.1", 0), Front)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def roll(self, changes: Mapping[str, str]) -> None:
        """Return when a process with these variables has taken over, and the old one has ended."""
        self.environment |= changes
        process, old = self._start(), self._process
        with self._turn:
            self._process = process
            self._turn.wait_for(lambda: self._current_calls[old] == 0, timeout=30)
        old.stop()

    def close(self) -> None:
        """End the process and the front."""
        self._server.shutdown()
        self._server.server_close()
        self._process.stop()

    def _start(self) -> FunctionProcess:
        self._number += 1
        log = self._logs / f"{self.name}-{self._number}.log"
        process = FunctionProcess(self.name, self.environment, log=log)
        process.wait_until_ready()
        return process

    def _pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        with self._turn:
            process = self._process
            self._current_calls[process] += 1
        try:
            connection = http.client.HTTPConnection(urlsplit(process.url).netloc, timeout=30)
            connection.request("POST", request.path, body, dict(request.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
        finally:
            with self._turn:
                self._current_calls[process] -= 1
                self._turn.notify_all()
        request.send_response(answer.status)
        request.send_header("Content-Type", answer.headers["Content-Type"])
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
