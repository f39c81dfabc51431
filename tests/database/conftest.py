"""The database side on real servers: the wheel's PostgreSQL 18 and, where the machine has one, 15."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.postgres import Postgres, installed_binaries
from local.stack import migrate
from tests.database.project import SECRET, Project

BINARIES = [path for path in installed_binaries() if path == installed_binaries()[0] or path.parent.name == "15"]


@pytest.fixture(scope="session", params=BINARIES, ids=lambda path: path.parent.name.removeprefix("pginstall"))
def postgres(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server with the roles and schemas of a hosted project, without the migrations."""
    with Postgres.start(binaries=request.param) as server:
        server.prepare()
        yield server


@pytest.fixture(scope="session")
def database(postgres: Postgres) -> Iterator[Project]:
    """A project with the migrations, its secret and its buckets; empty before each test."""
    migrate(postgres)
    project = Project(postgres)
    project.sql("select vault.create_secret(%s, 'ittybit_functions_secret')", SECRET)
    buckets = "insert into storage.buckets (id, name, public) values (%s, %s, %s)"
    for name in ("uploads", "results", "published"):
        project.superuser.execute(buckets, [name, name, name == "published"])
    yield project
    project.close()


@pytest.fixture(autouse=True)
def _empty(database: Project) -> None:
    database.reset()


@pytest.fixture
def waiting(database: Project) -> Project:
    """A project with three jobs that no call was made for yet: their objects are 1.mp4 to 3.mp4."""
    database.rule()
    database.put_unsent(3)
    return database


@pytest.fixture
def claimed(database: Project) -> Project:
    """A project with one job, a.mp4, its attempt 1 claimed for a start."""
    database.rule()
    database.put("a.mp4")
    assert database.claim(database.job()["id"], 1)["claimed"]
    return database
