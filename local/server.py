"""One HTTP server of the embedded stack: a WSGI application on a free loopback port, served by threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class _QuietHandler(WSGIRequestHandler):
    """Speaks HTTP/1.1, as the originals do, but with one request a connection, and writes no access log."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name for it
        """Drop the line: each stand-in keeps its own journal."""


class Server:
    """A WSGI application listening on 127.0.0.1 from construction until ``close``.

    Attributes:
        origin: ``http://127.0.0.1:<port>``, without a trailing slash.
    """

    def __init__(self, app: WSGIApplication, *, port: int = 0) -> None:
        self._server: BaseWSGIServer = make_server("127.0.0.1", port, app, threaded=True, request_handler=_QuietHandler)
        # A thread whose client has gone silent must not hold up the process's end.
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._server.block_on_close = False  # type: ignore[attr-defined]
        # pg_net opens a whole batch of connections at once.
        self._server.socket.listen(512)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; their own threads finish the answers in progress."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
