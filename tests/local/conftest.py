"""Fixtures for the embedded stack's tests."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from local.postgres import Postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A prepared server, one for each test module."""
    with Postgres.start() as server:
        server.prepare()
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A connection as the developer's role ``postgres``, each statement its own transaction."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as connection:
        yield connection
