"""Requests to ittybit, whichever generation of its API answers: the key, one deadline, lists page by page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from shared.errors import Unanswered, Undecided
from shared.http import Deadline, Reply, send
from shared.ittybit_models import Work, bare
from shared.settings import Settings

PAGE = 100
# A search for a start reads at most this many pages: forty minutes at twenty starts a second. Mostly the deadline ends
# it sooner.
MAX_PAGES = 500
# A search that ran out of time is repeated later, until the doubt is this old.
LOOKED_AGAIN = timedelta(minutes=15)
# How much a search allows for the difference of two clocks: with a Date header in the answer, and without one.
CLOCKS_COMPARED = timedelta(seconds=30)
CLOCKS_UNKNOWN = timedelta(minutes=10)

Shape = TypeVar("Shape", bound=BaseModel)
Value = TypeVar("Value")


class Api:
    """One invocation's way to ittybit. Several threads may share it.

    Every method raises ``ServiceError`` when ittybit answers with an error or not at all.
    """

    def __init__(self, settings: Settings, deadline: Deadline) -> None:
        self._url = settings.ittybit_api_url
        self._headers = {"authorization": f"Bearer {settings.ittybit_api_key}"}
        self._deadline = deadline
        self._clock: datetime | None = None

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        mark: str | None = None,
        repeatable: bool = False,
    ) -> Reply:
        """Send one request. A mark is sent as the Idempotency-Key of a start, which ittybit may ignore."""
        headers = self._headers | ({"idempotency-key": mark} if mark else {})
        url = f"{self._url}/{path}"
        reply = send("ittybit", method, url, deadline=self._deadline, headers=headers, body=body, repeatable=repeatable)
        self._clock = _date(reply) or self._clock
        return reply

    def work(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, mark: str | None = None) -> Work:
        """Start work (POST, with a mark) or see how far it is (GET); its ``ref`` names the resource and its id."""
        work = read(Work, self.call(method, path, body, mark=mark, repeatable=method == "GET"))
        return work.model_copy(update={"ref": f"{path.partition('/')[0]}/{work.id}"})

    def pages(self, path: str, shape: type[Shape], **query: str) -> Iterator[Shape]:
        """Every item of a list, page by page along the cursor."""
        after: dict[str, str] = {}
        while True:
            reply = self.call("GET", f"{path}?{urlencode({'limit': PAGE, **query, **after})}", repeatable=True)
            items = listed(reply)
            parsed = [read(shape, reply, item) for item in items]
            yield from parsed
            # Only the older documents name the header. Without it, a full page may not be the last.
            is_more = reply.headers.get("has-more", str(len(items) >= PAGE)).lower() == "true"
            if not is_more or not items:
                return
            former, after = after, {"after": str(items[-1]["id"])}
            if after == former:
                raise Unanswered("ittybit", "a list that should go on begins again")

    def ahead(self, now: datetime) -> timedelta:
        """How far ittybit's clock is ahead of the one that says ``now``, at the least."""
        return self._clock - now - CLOCKS_COMPARED if self._clock else -CLOCKS_UNKNOWN

    @property
    def is_late(self) -> bool:
        """Whether there is no time left for another page."""
        return self._deadline.left() < 1


class Newest:
    """All work in a list of ittybit's, read from the newest back as far as a search needs it.

    Any number of threads may search at a time. They share the pages, and a search looks a mark up instead of going
    through what was read: after an outage there may be hundreds of searches among thousands of tasks.
    """

    def __init__(self, api: Api, path: str) -> None:
        self._api = api
        self._items = api.pages(path, Work, order="desc")
        self._lock = threading.Lock()
        self._read = 0
        self._marked: dict[str, list[Work]] = {}
        self._oldest: datetime | None = None
        self._end: Exception | None = None

    def find(self, mark: str, since: datetime, now: datetime) -> Work | None:
        """The oldest work that carries the mark and was made since then; None if there certainly is none.

        ``Ittybit.find`` describes the rest.
        """
        with self._lock:
            late = self._read_back(since, now)
            begins = since + self._api.ahead(now)
            found = [
                work for work in self._marked.get(mark, ()) if work.created_at is None or work.created_at >= begins
            ]
            read = self._read
        if found:
            return found[-1]
        if late == "time" and now - since < LOOKED_AGAIN:
            raise Unanswered("ittybit", "there was no time to look through what it does", in_doubt=True)
        if late:
            raise Undecided("ittybit", f"not among the newest {read} that it does", in_doubt=True)
        return None

    def _read_back(self, since: datetime, now: datetime) -> Literal["time", "number"] | None:
        """Read on until what follows is older than that; otherwise return why not."""
        while self._oldest is None or self._oldest >= since + self._api.ahead(now):
            if isinstance(self._end, StopIteration):
                return None
            if self._read >= MAX_PAGES * PAGE:
                return "number"
            if self._read >= PAGE and self._api.is_late:
                return "time"
            if self._end is not None:
                raise self._end
            try:
                work = next(self._items)
            except Exception as end:  # noqa: BLE001 - raised to each search that comes here
                self._end = end
                continue
            self._read += 1
            self._oldest = work.created_at or self._oldest
            for mark in work.marks:
                self._marked.setdefault(mark, []).append(work)
        return None


class Once(Generic[Value]):
    """The answer to a question that an invocation's threads ask once, or the error, which each of them gets."""

    def __init__(self, ask: Callable[[], Value]) -> None:
        self._answer: Future[Value] = Future()
        self._ask = ask
        self._lock = threading.Lock()

    def __call__(self) -> Value:
        """Ask, unless that was done."""
        with self._lock:
            if not self._answer.done():
                try:
                    self._answer.set_result(self._ask())
                except Exception as error:  # noqa: BLE001 - raised to each thread
                    self._answer.set_exception(error)
        return self._answer.result()


def listed(reply: Reply) -> list[Any]:
    """The items of a list's answer."""
    items = bare(reply.data)
    if not isinstance(items, list):
        raise Unanswered("ittybit", "the answer to a list is not a list")
    return items


def read(shape: type[Shape], reply: Reply, item: Any = None) -> Shape:
    """Read the needed fields of one object. A start whose answer cannot be read is in doubt."""
    try:
        return shape.model_validate(bare(reply.data) if item is None else item)
    except ValidationError:
        raise Unanswered("ittybit", f"the answer is not a {shape.__name__.lower()}", in_doubt=True) from None


def _date(reply: Reply) -> datetime | None:
    """When the answer was given, by ittybit's clock."""
    try:
        given = parsedate_to_datetime(reply.headers.get("date", ""))
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
