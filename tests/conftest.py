"""Settings of all tests: no proxy, and few inputs by hypothesis, the same in each run. ``make fuzz`` tries more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

import httpx
import pytest
from hypothesis import HealthCheck, settings

from local.postgres import Postgres

# The tests call only servers on this machine, so they use no proxy.
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]

# Each client would read the authorities' certificates, in 30 ms of processor time. So all clients share them.
vars(httpx._transports.default)["create_ssl_context"] = cache(httpx.create_ssl_context)

# No deadline: on a busy machine an example may take longer than the last one did.
settings.register_profile(
    "tests",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option behind ``make test EVERY=yes``."""
    parser.addoption("--every", action="store_true", help="run all variations, on all versions of PostgreSQL")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run variations only with ``--every``, and long tests first, so that no worker is left with one at the end."""
    if not config.getoption("every"):
        variations = [item for item in items if item.get_closest_marker("variation")]
        config.hook.pytest_deselected(items=variations)
        items[:] = [item for item in items if item not in set(variations)]
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A PostgreSQL with the roles and schemas of a hosted project, for tests that make databases of their own."""
    with Postgres.start() as postgres:
        postgres.prepare()
        yield postgres
