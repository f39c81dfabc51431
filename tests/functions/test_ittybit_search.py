"""A search for a start in doubt continues where an earlier one stopped, and finds what was started since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from shared import ittybit_requests, ittybit_search
from shared.errors import Answered, Unfinished
from shared.ittybit_models import Action
from tests.functions.ittybit_alone import Alone

pytestmark = pytest.mark.generations("automations", "jobs")
LONG_AGO = timedelta(minutes=10)


@pytest.fixture(autouse=True)
def small_settled_pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pages of two items, each kept at once: the list grows only when the test starts something."""
    monkeypatch.setattr(ittybit_requests, "PAGE", 2)
    monkeypatch.setattr(ittybit_search, "SETTLED", timedelta(minutes=-1))
    ittybit_search._kept.clear()
    yield
    ittybit_search._kept.clear()


@pytest.fixture
def look(ittybit: Alone, action: Action) -> Callable[[str], str | None]:
    """Return a function that searches for a mark with a new client, as each call of a function does."""
    now = datetime.now(UTC)
    return lambda mark: ittybit.client.find(action, mark, now - LONG_AGO, now)


@pytest.fixture
def fetched(ittybit: Alone) -> Iterator[Callable[[], int]]:
    """Return a function that counts the pages fetched since its last call."""
    ittybit.faults.requests = []

    def count() -> int:
        asked = [one for one in ittybit.faults.requests or () if one.method == "GET" and "order=desc" in one.query]
        ittybit.faults.requests = []
        return len(asked)

    yield count
    ittybit.faults.requests = None


def start(ittybit: Alone, action: Action, *marks: str) -> None:
    for mark in marks:
        ittybit.client.start(action, f"{ittybit.source}?job={mark}", mark)


def pages(ittybit: Alone) -> str:
    return "/jobs" if ittybit.generation == "jobs" else "/tasks"


def test_each_page_is_fetched_once_and_later_starts_are_found(
    ittybit: Alone, action: Action, look: Callable[[str], str | None], fetched: Callable[[], int]
) -> None:
    marks = [f"kept-{number}.1" for number in range(9)]
    start(ittybit, action, *marks)
    assert look("nobody.1") is None
    assert fetched() >= 5

    found = [look(mark) for mark in marks]
    assert None not in found
    assert len(set(found)) == len(marks)
    # Only the first page for each.
    assert fetched() == len(marks)

    # Each new start moves every item to another place in its page.
    for mark in ("later-1.1", "later-2.1", "later-3.1"):
        start(ittybit, action, mark)
        assert look(mark) not in {None, *found}
        assert fetched() <= 2
        assert [look(one) for one in marks] == found
        fetched()


@pytest.mark.parametrize(("status", "is_kept"), [(429, True), (404, False)], ids=["known cursor", "forgotten cursor"])
def test_a_search_continues_where_a_failed_one_stopped_while_ittybit_knows_the_cursor(
    ittybit: Alone,
    action: Action,
    look: Callable[[str], str | None],
    fetched: Callable[[], int],
    status: int,
    is_kept: bool,
) -> None:
    start(ittybit, action, *(f"far-{number}.1" for number in range(8)))
    assert look("far-0.1")
    whole = fetched()
    ittybit_search._kept.clear()
    ittybit.faults.add("GET", pages(ittybit), status=status, headers={"retry-after": "3600"}, at=[3])
    with pytest.raises(Answered):
        look("far-0.1")
    assert fetched() == 4
    assert look("far-0.1")
    # The first page is fetched anew each time, and two more were kept.
    assert fetched() == whole - 2 * is_kept


def test_a_search_without_time_for_a_page_looks_at_the_kept_pages(
    ittybit: Alone, action: Action, look: Callable[[str], str | None]
) -> None:
    start(ittybit, action, *(f"slow-{number}.1" for number in range(8)))
    now = datetime.now(UTC)
    with pytest.raises(Unfinished):
        ittybit.within(0.9).find(action, "slow-0.1", now - LONG_AGO, now)
    assert look("slow-0.1")
    assert ittybit.within(0.9).find(action, "slow-0.1", now - LONG_AGO, now) == look("slow-0.1")


def test_a_page_that_may_still_change_is_fetched_again(
    ittybit: Alone,
    action: Action,
    look: Callable[[str], str | None],
    fetched: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ittybit_search, "SETTLED", timedelta(minutes=1))
    start(ittybit, action, *(f"new-{number}.1" for number in range(6)))
    assert look("new-0.1")
    first = fetched()
    assert look("new-0.1")
    assert fetched() == first >= 3


def test_no_more_pages_are_kept_than_a_search_may_read(
    ittybit: Alone, action: Action, look: Callable[[str], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(ittybit, action, *(f"many-{number}.1" for number in range(12)))
    assert look("nobody.1") is None
    monkeypatch.setattr(ittybit_search, "MAX_PAGES", 4)
    ittybit_search._kept.clear()
    for number in range(12):
        start(ittybit, action, f"more-{number}.1")
        assert look(f"more-{number}.1")
    assert max(len(pages) for pages in ittybit_search._kept.values()) <= 4
