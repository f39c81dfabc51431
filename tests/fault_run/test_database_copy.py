"""The starts and changes of a copy of the database are counted, when the copy accepts its function's claims."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from local.fault_run.database_copy import CopyReport, DatabaseCopy
from local.fault_run.database_outages import Outages
from local.fault_run.host import Host
from local.fault_run.plan import make_plan
from local.fault_run.uploads import BUCKET, Uploads
from local.project import KEPT, Project
from local.stack import Stack
from tests.waiting import until


@pytest.fixture
def copy() -> Iterator[DatabaseCopy]:
    """A copy that has woken its own function, and refused the function's claims."""
    with contextlib.ExitStack() as stopping:
        stack = stopping.enter_context(Stack.start(processes=False, encode=False, honour_idempotency=False))
        with contextlib.closing(Project(stack)) as project:
            project.create_bucket(BUCKET)
            project.add_rule("kept", **project.action(KEPT))
        host = Host.start(stack, list)
        stopping.callback(host.stop)
        load = Uploads(stack, make_plan(30, 1), Outages(), has_room=lambda: True)
        stopping.callback(load.stop)
        copy = DatabaseCopy.start(stack, host, load)
        stopping.callback(copy.stop)
        until(lambda: stack.sql("select 1 from ittybit.jobs where due_at is not null") == [], seconds=90)
        until(lambda: copy.claims[400], seconds=90)
        yield copy


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_copy_that_accepts_claims_is_found(copy: DatabaseCopy) -> None:
    refused = copy.claims[400]
    with psycopg.connect(copy.postgres.dsn("postgres")) as database:
        database.execute("update ittybit.settings set project = %s where singleton", [copy.origin])
    until(lambda: copy.claims[200], seconds=90)
    until(lambda: copy.started, seconds=90)

    beside = copy.end()

    assert (beside.jobs, beside.refused >= refused > 0, beside.is_good) == (20, True, False)
    assert beside.started > 0
    assert beside.changed > 0


@pytest.mark.parametrize(
    "wrong",
    [CopyReport(60, 9, 0, 0, 0), CopyReport(60, 9, 3, 1, 0), CopyReport(60, 9, 3, 0, 1), CopyReport(0, 9, 3, 0, 0)],
)
def test_each_wrong_figure_makes_a_run_fail(wrong: CopyReport) -> None:
    assert CopyReport(60, 9, 3, 0, 0).is_good
    assert not wrong.is_good
