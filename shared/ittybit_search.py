"""The search for a start in doubt: reads ittybit's list from the newest item back, and looks for the start's mark.

The ledger keeps how far it came, so the next attempt continues there, in whichever process. What is newer than the
first attempt needs no search: that comes after the start's lease, at least a minute later (ittybit.lease), and no
attempt starts the job before the search has ended.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.errors import Answered, ServiceError, Unanswered, Undecided, Unfinished
from shared.ittybit_models import Listed, Searched
from shared.ittybit_requests import Api

# The job's next attempt continues a search that ran out of time, until the doubt is this old.
SEARCH_PERIOD = timedelta(hours=1)
# The error that a search allows in comparing ittybit's clock with the ledger's: with a Date header, and without one.
CLOCKS_COMPARED = timedelta(seconds=30)
CLOCKS_UNKNOWN = timedelta(minutes=10)


class _Page(NamedTuple):
    """One page of a list.

    Attributes:
        is_empty: whether it has no items.
        marked: for each mark, the newest item that carries it.
        oldest: when the last of its items was made.
        following: the next page's cursor; None on the last page.
    """

    is_empty: bool
    marked: dict[str, Listed]
    oldest: datetime | None
    following: str | None


class Newest:
    """One of ittybit's lists, read from the newest back as far as a search needs it.

    Any number of threads may search at a time. They share the pages, and each page is indexed by mark: after
    an outage there may be hundreds of searches among thousands of tasks.
    """

    def __init__(self, api: Api, path: str) -> None:
        self._api = api
        self._path = path
        self._lock = threading.Lock()
        self._pages: dict[str | None, _Page] = {}
        self._error: ServiceError | None = None

    def find(self, mark: str, since: datetime, now: datetime, searched: Searched) -> Listed | None:
        """The newest work that carries the mark and was made since then; None if there certainly is none.

        ``Ittybit.find`` describes the rest.
        """
        with self._lock:
            try:
                return self._read_back(mark, since, now, searched)
            except Unfinished:
                if now - since < SEARCH_PERIOD:
                    raise
        raise Undecided("ittybit", "an hour was too short to search all of its list", in_doubt=True)

    def _read_back(self, mark: str, since: datetime, now: datetime, searched: Searched) -> Listed | None:
        """Read on from where the search came to, page by page, until the work is older than ``since``.

        A search that finds the start stays at its page. If the report is lost, the next attempt finds it again.
        """
        if searched.down_to is not None and not self._has(searched.down_to):
            searched.down_to = searched.oldest = None
        passed: set[str | None] = set()
        while searched.down_to not in passed:
            passed.add(searched.down_to)
            page = self._page(searched.down_to)
            begins = since + self._ahead(now)
            found = page.marked.get(mark)
            if found is not None and (found.created_at is None or found.created_at >= begins):
                return found
            if page.following is None or (page.oldest is not None and page.oldest < begins):
                return None
            searched.down_to, searched.oldest = page.following, page.oldest
        raise Unanswered("ittybit", "a list repeats a page")

    def _ahead(self, now: datetime) -> timedelta:
        """How far ittybit's clock is at least ahead of the ledger's ``now``; negative when it may be behind."""
        return self._api.clock - now - CLOCKS_COMPARED if self._api.clock else -CLOCKS_UNKNOWN

    def _has(self, id_: str) -> bool:
        """Whether ittybit still has the item. If not, it refuses it as a cursor, or answers with an empty page."""
        try:
            if not self._page(id_).is_empty:
                return True
            del self._pages[id_]
        except Answered as error:
            if error.effect != "fail":
                raise
        return False

    def _page(self, cursor: str | None) -> _Page:
        """The page that continues the list after a cursor. It is fetched unless one with the cursor in it is here.

        Raises:
            Unfinished: there is no time to fetch it.
            ServiceError: ittybit's error. Unless it is about the cursor, every later call that would fetch gets it too.
        """
        if cursor in self._pages:
            return self._pages[cursor]
        if self._error is not None:
            raise self._error
        if cursor is not None and self._api.is_late:
            raise Unfinished("ittybit", "there was no time to search all of its list", in_doubt=True)
        try:
            items, following = self._api.page(self._path, Listed, cursor, order="desc")
        except ServiceError as error:
            if cursor is None or error.effect != "fail":
                self._error = error
            raise
        # This page ends where it meets one that is here.
        met = next((place for place, item in enumerate(items) if item.id != cursor and item.id in self._pages), None)
        if met is not None:
            items, following = items[: met + 1], items[met].id
        marked = {mark: item for item in reversed(items) for mark in item.marks}
        oldest = next((item.created_at for item in reversed(items) if item.created_at), None)
        page = _Page(not items, marked, oldest, following)
        self._pages |= dict.fromkeys([cursor, *(item.id for item in items[:-1])], page)
        return page
