"""Tests of the database run on PostgreSQL 15, or on the wheel's 18 if the machine has no 15. Some run on both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from local.postgres import Postgres, installed_binaries
from local.stack import migrate
from tests.database.project import SECRET, Project
from tests.database.rows import Row

BINARIES = [path for path in installed_binaries() if path == installed_binaries()[0] or path.parent.name == "15"]
# Tests of what differs between versions: schema, privileges, plans, locks. `make test EVERY=yes` runs all on both.
ON_EVERY_POSTGRES = {
    *("test_bounds", "test_claims", "test_closed", "test_copies", "test_doctor", "test_harmless", "test_held_up"),
    *("test_hostile", "test_install", "test_outage", "test_sweep", "test_triggers"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the servers of a file's tests."""
    if "database" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2]
        on_every = name in ON_EVERY_POSTGRES or metafunc.config.getoption("every")
        servers = BINARIES if on_every else BINARIES[-1:]
        names = [path.parent.name.removeprefix("pginstall") for path in servers]
        metafunc.parametrize("database", servers, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def projects() -> Iterator[Callable[[Path], Project]]:
    """Gives a project on the PostgreSQL of these binaries, with the migrations, a secret and buckets.

    Each server is started once in a session, also when its tests alternate with those of another.
    """
    with ExitStack() as running:

        @cache
        def start(binaries: Path) -> Project:
            server = running.enter_context(Postgres.start(binaries=binaries))
            server.prepare()
            migrate(server)
            project = Project(server)
            running.callback(project.close)
            project.sql("select vault.create_secret(%s, 'ittybit_functions_secret')", SECRET)
            buckets = "insert into storage.buckets (id, name, public) values (%s, %s, %s)"
            for name in ("uploads", "results", "published"):
                project.superuser.execute(buckets, [name, name, name == "published"])
            return project

        yield start


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest, projects: Callable[[Path], Project]) -> Project:
    """One of these projects, emptied before each test."""
    return projects(request.param)


@pytest.fixture(autouse=True)
def _empty(database: Project) -> None:
    database.reset()


@pytest.fixture
def waiting(database: Project) -> Project:
    """A project with three waiting jobs, of 1.mp4 to 3.mp4, and without wake-ups for them."""
    database.rule()
    for number in (1, 2, 3):
        database.put(f"{number}.mp4")
    database.messages()
    return database


@pytest.fixture
def lease(database: Project) -> Row:
    """The lease of the project's only job: attempt 1 of a start of a.mp4."""
    database.rule()
    database.put("a.mp4")
    [lease] = database.claim()
    return lease
