"""A search for a start in doubt continues where an earlier one stopped, in whichever process that was."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from shared import ittybit_requests
from shared.errors import Answered, Unanswered, Unfinished
from shared.ittybit import Ittybit
from shared.ittybit_models import Action, Searched
from tests.functions.ittybit_alone import RUN, Alone, client
from tests.functions.scripted import ORIGIN, Answer, Scripted

pytestmark = pytest.mark.generations("automations", "jobs")
# The list that a search reads.
PAGES = "/(tasks|jobs)$"


class Search:
    """The search for one start in pages of two: each attempt has a new client, and what the ledger kept.

    Attributes:
        mark: what it searches for.
        pages: how many pages an attempt has time for.
        searched: what the ledger keeps.
        asked: the cursors of the last attempt: None for the first page.
        old: the ids of the starts among which it searches, oldest first.
    """

    def __init__(self, ittybit: Alone, action: Action) -> None:
        self._ittybit = ittybit
        self._action = action
        self.mark = "old-0.1"
        self.pages = 1000
        self.searched = Searched()
        self.asked: list[str | None] = []
        self.old: list[str] = []

    def start(self, *marks: str, minutes: int) -> list[str]:
        """Start work, so many minutes ago, and return its ids in ittybit's list."""
        known = set(self._records)
        for mark in marks:
            self._ittybit.client.start(self._action, f"{self._ittybit.source}?job={mark}", mark)
        made = {id_: record for id_, record in self._records.items() if id_ not in known}
        for record in made.values():
            for task in getattr(record, "tasks", [record]):
                task.created_at -= minutes * 60
        return list(made)

    def forget(self, id_: str) -> None:
        """Let ittybit forget a task or job."""
        del self._records[id_]

    @property
    def _records(self) -> dict[str, Any]:
        """Ittybit's list, oldest first."""
        records = self._ittybit.stand_in._records
        lists: dict[str, dict[str, Any]] = {"automations": records.tasks, "jobs": records.jobs}
        return lists[self._ittybit.generation]

    def attempt(self, client: Ittybit | None = None) -> str | None:
        """Search in what was started in the last 50 minutes."""
        now = datetime.now(UTC)
        seen = self._ittybit.faults.requests = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ittybit_requests, "PAGE", 2)
            patch.setattr(ittybit_requests.Api, "is_late", property(lambda _: len(seen) >= self.pages))
            try:
                return (client or self._ittybit.client).find(
                    self._action, self.mark, now - timedelta(minutes=50), now, self.searched
                )
            finally:
                self.asked = [parse_qs(one.query).get("after", [None])[0] for one in seen]
                self._ittybit.faults.requests = None

    def runs_out_of_time(self, pages: int) -> None:
        """Make an attempt that has time for so many pages."""
        enough, self.pages = self.pages, pages
        with pytest.raises(Unfinished):
            self.attempt()
        assert len(self.asked) == pages
        self.pages = enough


@pytest.fixture
def search(ittybit: Alone, action: Action) -> Search:
    """The search for the oldest of twelve starts, which were made thirty minutes ago."""
    search = Search(ittybit, action)
    for other in list(search._records):
        search.forget(other)
    search.old = search.start(*(f"old-{number}.1" for number in range(12)), minutes=30)
    return search


def test_a_search_continues_where_the_one_before_stopped(search: Search) -> None:
    old = search.old
    search.runs_out_of_time(pages=3)
    assert search.searched.down_to == old[6]
    search.runs_out_of_time(pages=2)
    assert search.asked == [old[6], old[4]]
    assert search.searched.down_to == old[2]
    assert search.attempt()
    assert search.asked == [old[2]]


def test_what_is_newer_than_the_first_attempt_is_not_read(search: Search) -> None:
    search.mark = "nobody.1"
    search.runs_out_of_time(pages=5)
    search.start("new-0.1", "new-1.1", minutes=0)
    assert search.attempt() is None
    assert search.asked == [search.old[2]]


@pytest.mark.parametrize("status", [400, 429, 503])
def test_an_error_leaves_what_was_read_before_it(ittybit: Alone, search: Search, status: int) -> None:
    ittybit.faults.add("GET", PAGES, status=status, headers={"retry-after": "3600"}, at=[3])
    with pytest.raises(Answered):
        search.attempt()
    assert search.asked == [None, search.old[10], search.old[8], search.old[6]]
    assert search.attempt()
    assert search.asked == [search.old[6], search.old[4], search.old[2]]


@pytest.mark.parametrize("status", [429, 503])
def test_an_error_behind_the_start_does_not_hide_it(ittybit: Alone, search: Search, status: int) -> None:
    for mark in ("old-9.1", "old-8.1"):
        search.mark, search.searched = mark, Searched()
        ittybit.faults.add("GET", PAGES, status=status, headers={"retry-after": "3600"}, at=[2])
        assert search.attempt()
        assert search.asked == [None, search.old[10]]
        ittybit.faults.clear()


@pytest.mark.parametrize("seed", range(12))
def test_whichever_pages_fail_each_start_is_found_and_no_other(ittybit: Alone, search: Search, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    started: dict[str, str | None] = {}
    for search.mark in ("old-0.1", "old-3.1", "old-6.1", "old-9.1", "never.1"):
        search.searched = Searched()
        started[search.mark] = search.attempt()
    assert list(started.values()).count(None) == 1
    waiting, found = {mark: Searched() for mark in started}, dict[str, str | None]()
    while waiting:
        ittybit.faults.clear()
        status = chance.choice([400, 429, 503])
        ittybit.faults.add("GET", PAGES, status=status, headers={"retry-after": "3600"}, at=[chance.randrange(6)])
        search.start("new.1", minutes=0)
        one, search.pages = ittybit.client, chance.randint(1, 4)
        for search.mark, kept in chance.sample(list(waiting.items()), len(waiting)):
            search.searched = kept.model_copy()
            try:
                found[search.mark] = search.attempt(one)
                del waiting[search.mark]
            except (Answered, Unfinished):
                if chance.random() < 0.7:  # else the function is killed, and the ledger keeps what it had
                    waiting[search.mark] = search.searched
    assert found == started


@pytest.mark.generations("automations")
def test_the_page_of_a_start_whose_run_is_unknown_is_read_again(scripted: Scripted) -> None:
    task = {"id": "task_1", "url": "https://project.test/a.mp4?job=a.1"}
    scripted.script(ittybit=[Answer([task], headers={"has-more": "true"}), Answer([{"id": "task_0"}])])
    now, searched = datetime.now(UTC), Searched()
    with pytest.raises(Unanswered, match="no run_id"):
        client(ORIGIN).find(RUN, "a.1", now, now, searched)
    assert searched == Searched()


def test_a_part_whose_last_item_ittybit_has_lost_is_read_again(search: Search) -> None:
    old = search.old
    search.runs_out_of_time(pages=3)
    search.forget(old[6])
    assert search.attempt()
    assert search.asked == [old[6], None, old[10], old[8], old[5], old[3], old[1]]


def test_an_empty_page_after_the_last_item_does_not_end_the_search(ittybit: Alone, search: Search) -> None:
    search.runs_out_of_time(pages=3)
    ittybit.faults.add("GET", PAGES, status=200, body={"data": []}, at=[0])
    assert search.attempt()
    assert search.asked == [search.old[6], None, *search.old[10:0:-2]]


@pytest.mark.parametrize("status", [429, 503])
def test_a_part_is_not_forgotten_when_ittybit_is_busy(ittybit: Alone, search: Search, status: int) -> None:
    search.runs_out_of_time(pages=3)
    ittybit.faults.add("GET", PAGES, status=status, headers={"retry-after": "3600"}, at=[0])
    with pytest.raises(Answered):
        search.attempt()
    assert search.attempt()
    assert search.asked == [search.old[6], search.old[4], search.old[2]]


@pytest.mark.generations("automations")
def test_a_list_without_times_is_read_to_its_end(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    late = iter([False, True, False, False])
    monkeypatch.setattr(ittybit_requests.Api, "is_late", property(lambda _: next(late)))
    pages = [Answer([{"id": f"task_{number}"}, {"id": f"task_{number + 1}"}]) for number in (0, 2, 4)]
    scripted.script(ittybit=[*pages, Answer([])])
    now, searched = datetime.now(UTC), Searched()
    with pytest.raises(Unfinished):
        client(ORIGIN).find(RUN, "a.1", now, now, searched)
    assert searched == Searched(down_to="task_3")
    assert client(ORIGIN).find(RUN, "a.1", now, now, searched) is None
    assert searched == Searched(down_to="task_5")


def test_searches_of_one_client_share_their_pages(ittybit: Alone, search: Search) -> None:
    one = ittybit.client
    assert search.attempt(one)
    search.mark = "old-1.1"
    assert search.attempt(one)
    assert search.asked == []
    # From an item in the middle of a page, and to one.
    search.searched = Searched(down_to=search.old[7])
    assert search.attempt(one)
    assert search.asked == []
    other, search.searched = ittybit.client, Searched(down_to=search.old[7])
    assert search.attempt(other)
    search.searched = Searched()
    assert search.attempt(other)
    assert search.asked == [None, search.old[10], search.old[8]]


@pytest.mark.generations("automations")
def test_a_list_whose_pages_go_round_in_circles_is_an_error(scripted: Scripted) -> None:
    pages = [Answer([{"id": f"task_{number}"} for number in numbers]) for numbers in ((0, 1), (2, 3), (0, 1))]
    scripted.script(ittybit=pages)
    now = datetime.now(UTC)
    with pytest.raises(Unanswered, match="repeats a page"):
        client(ORIGIN).find(RUN, "a.1", now, now, Searched())
