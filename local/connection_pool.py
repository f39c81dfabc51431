"""Database connections that a stand-in keeps open between its requests, as the original's pool does."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

import psycopg

Connect: TypeAlias = Callable[[], psycopg.Connection]


class Connections:
    """Transactions over a few connections; a connection whose server has ended is replaced.

    Args:
        connect: Gives a new connection, autocommit off.
        most: How many may be in use at a time; further callers wait.
    """

    def __init__(self, connect: Connect, *, most: int = 20) -> None:
        self._connect = connect
        self._idle: deque[psycopg.Connection] = deque()
        self._free = threading.BoundedSemaphore(most)
        self._closed = False

    @contextmanager
    def transaction(self, begin: Callable[[psycopg.Connection], object]) -> Iterator[psycopg.Connection]:
        """Give a connection in a transaction whose first statement is ``begin``'s; commit at the end of the block.

        Raises:
            psycopg.Error: From connecting, from ``begin`` or from committing.
        """
        with self._free:
            connection = self._begun(begin)
            try:
                yield connection
                connection.commit()
            finally:
                self._give_back(connection)

    def close(self) -> None:
        """Close the idle connections; each running transaction closes its own when it ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _begun(self, begin: Callable[[psycopg.Connection], object]) -> psycopg.Connection:
        while self._idle:
            # An idle connection does not notice that its server has ended; a new one reaches the new server.
            with suppress(IndexError, psycopg.OperationalError):
                return _begun(self._idle.pop(), begin)
        return _begun(self._connect(), begin)

    def _give_back(self, connection: psycopg.Connection) -> None:
        with suppress(psycopg.Error):
            connection.rollback()
        if connection.closed or self._closed:
            connection.close()
        else:
            self._idle.append(connection)


def _begun(connection: psycopg.Connection, begin: Callable[[psycopg.Connection], object]) -> psycopg.Connection:
    try:
        begin(connection)
    except BaseException:
        connection.close()
        raise
    return connection
