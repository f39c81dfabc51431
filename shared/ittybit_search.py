"""The search for a start in doubt: reads ittybit's list from the newest item back, and looks for the start's mark."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from shared.errors import Answered, Undecided, Unfinished
from shared.ittybit_models import Work
from shared.ittybit_requests import Api

# A search reads at most this many pages, which cover forty minutes at twenty starts a second.
MAX_PAGES = 500
# The job's next attempt continues a search that ran out of time, until the doubt is this old.
SEARCH_PERIOD = timedelta(hours=1)
# The error that a search allows in comparing ittybit's clock with the ledger's: with a Date header, and without one.
CLOCKS_COMPARED = timedelta(seconds=30)
CLOCKS_UNKNOWN = timedelta(minutes=10)
# A page is kept once all its items are older than this. A start may take effect late, so it is first searched for after
# a minute (ittybit.lease). Until then no page is kept that may still get its item.
SETTLED = timedelta(minutes=1)


class Marked(NamedTuple):
    """Work that carries a mark; ``Work`` describes the fields."""

    id: str
    run_id: str | None
    created_at: datetime | None


class _Page(NamedTuple):
    """One page of a list.

    Attributes:
        size: how many items it has.
        marked: for each mark, the items that carry it, newest first.
        oldest: when the last of its items was made.
        following: the next page's cursor; None on the last page.
    """

    size: int
    marked: dict[str, list[Marked]]
    oldest: datetime | None
    following: str | None


# For each address, key and list: its settled pages, by their cursors. They are kept as long as the process lives, so an
# invocation fetches only what is new, and continues where an earlier one ran out of time.
_kept: dict[tuple[str, str, str], dict[str, _Page]] = defaultdict(dict)
_keeping = threading.Lock()


class Newest:
    """One of ittybit's lists, read from the newest back as far as a search needs it.

    Any number of threads may search at a time. They share the pages, and each page is indexed by mark: after
    an outage there may be hundreds of searches among thousands of tasks.
    """

    def __init__(self, api: Api, path: str) -> None:
        self._api = api
        self._path = path
        self._kept = _kept[*api.account, path]
        self._lock = threading.Lock()
        self._pages: list[_Page] = []
        self._error: Exception | None = None

    def find(self, mark: str, since: datetime, now: datetime) -> Marked | None:
        """The oldest work that carries the mark and was made since then; None if there certainly is none.

        ``Ittybit.find`` describes the rest.
        """
        with self._lock:
            late = self._read_back(since, now)
            pages = list(self._pages)
        begins = since + self._ahead(now)
        marked = [work for page in pages for work in page.marked.get(mark, ())]
        found = [work for work in marked if work.created_at is None or work.created_at >= begins]
        if found:
            return found[-1]
        if late == "time" and now - since < SEARCH_PERIOD:
            raise Unfinished("ittybit", "there was no time to search all of its list", in_doubt=True)
        if late:
            read = sum(page.size for page in pages)
            raise Undecided("ittybit", f"not among the newest {read} that were read", in_doubt=True)
        return None

    def _ahead(self, now: datetime) -> timedelta:
        """How far ittybit's clock is at least ahead of the ledger's ``now``; negative when it may be behind."""
        return self._api.clock - now - CLOCKS_COMPARED if self._api.clock else -CLOCKS_UNKNOWN

    def _read_back(self, since: datetime, now: datetime) -> Literal["time", "number"] | None:
        """Read pages until the rest is older than ``since``. If time or the number of pages runs out, return which."""
        cursor = None
        while not self._pages or (cursor := self._pages[-1].following):
            oldest = next((page.oldest for page in reversed(self._pages) if page.oldest), None)
            if oldest is not None and oldest < since + self._ahead(now):
                return None
            if len(self._pages) >= MAX_PAGES:
                return "number"
            page = self._kept.get(cursor) if cursor else None
            if page is None and self._pages and self._api.is_late:
                return "time"
            self._pages.append(page or self._fetch(cursor))
        return None

    def _fetch(self, cursor: str | None) -> _Page:
        """Read one page, and keep it if it is settled. After an error, every further call raises it too."""
        if self._error is not None:
            raise self._error
        try:
            items, following = self._api.page(self._path, Work, cursor, order="desc")
        except Exception as error:
            self._error = error
            if isinstance(error, Answered) and error.effect == "fail":
                # ittybit may have deleted the item that is the cursor. The next invocation begins anew.
                with _keeping:
                    self._kept.clear()
            raise
        # If a kept page follows one of the items, this page ends there: the kept pages have the rest.
        met = next((place for place, item in enumerate(items) if item.id != cursor and item.id in self._kept), None)
        if met is not None:
            items, following = items[: met + 1], items[met].id
        marked: dict[str, list[Marked]] = {}
        for item in items:
            for mark in item.marks:
                marked.setdefault(mark, []).append(Marked(item.id, item.run_id, item.created_at))
        times = [item.created_at for item in items if item.created_at]
        page = _Page(len(items), marked, times[-1] if times else None, following)
        clock = self._api.clock
        if cursor and clock and times and len(times) == len(items) and max(times) < clock - SETTLED:
            with _keeping:
                if len(self._kept) >= MAX_PAGES:
                    del self._kept[next(iter(self._kept))]
                self._kept[cursor] = page
        return page
