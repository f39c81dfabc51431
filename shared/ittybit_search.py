"""The search for a start in doubt: reads ittybit's list from the newest item back, and looks for the start's mark.

The ledger keeps what was read for the job, so the next attempt continues, in whichever process. The first attempt comes
after the lease of the one that may have started the job (at least a minute, ittybit.lease). What is made in the list
after that is not this start, and is read only if a later attempt may have started the job too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
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
# An item may appear late in the list, among older ones. So a part of it begins a minute before its newest item: what is
# newer is read again with the next part.
SETTLED = timedelta(minutes=1)


class _Page(NamedTuple):
    """One page of a list.

    Attributes:
        is_empty: whether it has no items.
        marked: for each mark, the items that carry it, oldest first.
        oldest: when the last of its items was made.
        following: the next page's cursor; None on the last page.
    """

    is_empty: bool
    marked: dict[str, list[Listed]]
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
        self._settled: datetime | None = None
        self._error: ServiceError | None = None

    def find(self, mark: str, since: datetime, now: datetime, searched: list[Searched]) -> Listed | None:
        """The oldest work that carries the mark and was made since then; None if there certainly is none.

        ``Ittybit.find`` describes the rest.
        """
        with self._lock:
            try:
                return self._search(mark, lambda: since + self._ahead(now), searched)
            except Unfinished:
                if now - since < SEARCH_PERIOD:
                    raise
        raise Undecided("ittybit", "an hour was too short to search all of its list", in_doubt=True)

    def _search(self, mark: str, begin: Callable[[], datetime], searched: list[Searched]) -> Listed | None:
        """Read what no attempt has read, the oldest first: that is where the start most likely is.

        Each part is read on until it meets the next older one; then the two are one part.
        """
        for part in searched:
            if part.down_to is not None and not self._has(part.down_to):
                part.before = part.down_to = part.oldest = None
        if not searched:
            searched.append(Searched())
        part = searched[-1]
        found = self._read(mark, begin, part)
        while found is None and len(searched) > 1:
            part, older = searched[-2:]
            found = self._read(mark, begin, part, older.before)
            part.down_to, part.oldest = older.down_to, older.oldest
            searched.pop()
        return found

    def _read(
        self, mark: str, begin: Callable[[], datetime], part: Searched, end: datetime | None = None
    ) -> Listed | None:
        """Read on from a part back to an older time; return the oldest work with the mark.

        Args:
            mark: the start's.
            begin: returns the time since which the work was made, which follows from ittybit's clock.
            part: grows with every page.
            end: where an older part begins; None to read back to ``begin``.
        """
        found: Listed | None = None
        passed: set[str | None] = set()
        while part.down_to not in passed:
            passed.add(part.down_to)
            try:
                page = self._page(part.down_to)
            except Unfinished:
                if found is None:
                    raise
                return found
            begins = begin()
            marked = page.marked.get(mark, ())
            found = next((one for one in marked if one.created_at is None or one.created_at >= begins), found)
            if page.following is None or (page.oldest is not None and page.oldest < max(begins, end or begins)):
                return found
            if part.down_to is None:
                part.before = self._settled
            part.down_to, part.oldest = page.following, page.oldest
        raise Unanswered("ittybit", "a list repeats a page")

    def _ahead(self, now: datetime) -> timedelta:
        """How far ittybit's clock is at least ahead of the ledger's ``now``; negative when it may be behind."""
        return self._api.clock - now - CLOCKS_COMPARED if self._api.clock else -CLOCKS_UNKNOWN

    def _has(self, id_: str) -> bool:
        """Whether ittybit still has the last item of a part. If not, it refuses the cursor, or the page is empty."""
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
        if cursor is None:
            newest = next((item.created_at for item in items if item.created_at), None)
            self._settled = newest - SETTLED if newest else None
        # This page ends where it meets one that is here.
        met = next((place for place, item in enumerate(items) if item.id != cursor and item.id in self._pages), None)
        if met is not None:
            items, following = items[: met + 1], items[met].id
        marked: dict[str, list[Listed]] = {}
        for item in reversed(items):
            for mark in item.marks:
                marked.setdefault(mark, []).append(item)
        oldest = next((item.created_at for item in reversed(items) if item.created_at), None)
        page = _Page(not items, marked, oldest, following)
        self._pages |= dict.fromkeys([cursor, *(item.id for item in items[:-1])], page)
        return page
