from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from local.postgres import Postgres
from tests.database.conftest import BINARIES
from tests.deploy.clone import Clone
from tests.deploy.clouds import Cloud, Host
from tests.deploy.developer import Developer
from tests.deploy.hosted import GOOGLE, KUBERNETES, SETTINGS


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A clone of the project, with no settings and no commands yet."""
    clone = Clone(tmp_path)
    yield clone
    clone.commands.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[int], Postgres]]:
    """Return a function that gives a server of the n-th BINARIES, with a hosted project's roles and schemas."""
    with ExitStack() as running:

        @cache
        def start(which: int) -> Postgres:
            server = running.enter_context(Postgres.start(binaries=BINARIES[which]))
            server.prepare()
            return server

        yield start


@pytest.fixture
def developer(request: pytest.FixtureRequest, servers: Callable[[int], Postgres], clone: Clone) -> Iterator[Developer]:
    """A developer with a Supabase project without the schema, and a clone whose .env is for that project.

    The PostgreSQL is the newest, or the one that ``parametrize("developer", …, indirect=True)`` names.
    """
    developer = Developer(servers(getattr(request, "param", 0)), clone)
    yield developer
    developer.close()


@pytest.fixture
def host(clone: Clone) -> Host:
    """The commands of every runtime, for a clone with all settings."""
    clone.write_env(SETTINGS | GOOGLE | KUBERNETES)
    return Host(clone.commands)


@pytest.fixture
def cloud(host: Host) -> Cloud:
    """The stand-in for Google Cloud."""
    return host.cloud
