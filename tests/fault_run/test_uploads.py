from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from local.fault_run.database_outages import Outages
from local.fault_run.plan import make_plan
from local.fault_run.uploads import BUCKET, Uploads
from local.project import Project
from local.stack import Stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.start(processes=False) as stack:
        with contextlib.closing(Project(stack)) as project:
            project.create_bucket(BUCKET)
        yield stack


@pytest.fixture
def outages() -> Outages:
    return Outages()


@pytest.fixture
def load(stack: Stack, outages: Outages) -> Iterator[Uploads]:
    load = Uploads(stack, make_plan(30, 1), outages, has_room=lambda: True)
    yield load
    load.stop()


def test_a_failed_or_slow_request_counts_as_harmed_and_a_failed_one_is_retried(stack: Stack, load: Uploads) -> None:
    stack.supabase.add("POST", f"/storage/v1/object/{BUCKET}/a", status=500)
    load.upload("a", b"1")
    assert len(load.harmed) == 1
    stack.supabase.add("DELETE", f"/storage/v1/object/{BUCKET}/a", drop="before")
    load.delete("a")
    assert len(load.harmed) == 2
    stack.supabase.add("POST", f"/storage/v1/object/{BUCKET}/a", hang=2.1)
    load.upload("a", b"2")
    assert len(load.harmed) == 3
    assert "slow" in load.harmed[-1]
    assert list(load.names) == ["a"]


def test_with_the_database_down_a_failed_request_is_only_retried(stack: Stack, load: Uploads, outages: Outages) -> None:
    with outages.one():
        stack.supabase.add("POST", f"/storage/v1/object/{BUCKET}/b", status=500)
        load.upload("b", b"1")
    # The change happens and its answer is lost: the retry finds nothing left to do.
    with outages.one():
        stack.supabase.add("POST", "/storage/v1/object/move", drop="after")
        load.rename("b", "c")
        stack.supabase.add("DELETE", f"/storage/v1/object/{BUCKET}/c", drop="after")
        load.delete("c")
    assert load.harmed == []
    assert load.names == {}


def test_an_outage_covers_the_requests_during_it_and_no_others() -> None:
    outages = Outages()
    assert not outages.touch(0, float("inf"))
    with outages.one():
        assert outages.touch(0, float("inf"))
        assert not outages.touch(0, 1)
