"""Requests to ittybit, in either generation of its API: with the key, under one deadline; lists page by page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from shared.errors import Unanswered
from shared.http import Deadline, Reply, send
from shared.ittybit_models import Work, bare
from shared.settings import Settings

PAGE = 100

Shape = TypeVar("Shape", bound=BaseModel)
Value = TypeVar("Value")


class Api:
    """One invocation's requests to ittybit. Several threads may share it.

    Every method raises ``ServiceError`` when ittybit answers with an error or not at all.

    Attributes:
        account: the address and the key.
        clock: ittybit's time, from the last answer that has a Date.
    """

    def __init__(self, settings: Settings, deadline: Deadline) -> None:
        self.account = (settings.ittybit_api_url, settings.ittybit_api_key)
        self._url = settings.ittybit_api_url
        self._headers = {"authorization": f"Bearer {settings.ittybit_api_key}"}
        self._deadline = deadline
        self.clock: datetime | None = None

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
        self.clock = _date(reply) or self.clock
        return reply

    def work(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, mark: str | None = None) -> Work:
        """Start work (POST, with a mark) or get its state (GET); its ``ref`` names the resource and its id."""
        work = read(Work, self.call(method, path, body, mark=mark, repeatable=method == "GET"))
        return work.model_copy(update={"ref": f"{path.partition('/')[0]}/{work.id}"})

    def page(
        self, path: str, shape: type[Shape], after: str | None = None, **query: str
    ) -> tuple[list[Shape], str | None]:
        """One page of a list, the first or the one after a cursor: its items, and the next page's cursor, if any."""
        cursor = {} if after is None else {"after": after}
        reply = self.call("GET", f"{path}?{urlencode({'limit': PAGE, **query, **cursor})}", repeatable=True)
        items = listed(reply)
        parsed = [read(shape, reply, item) for item in items]
        # Only the older documents name the header. Without it, a full page may not be the last.
        is_more = reply.headers.get("has-more", str(len(items) >= PAGE)).lower() == "true"
        following = str(items[-1]["id"]) if is_more and items else None
        if following is not None and following == after:
            raise Unanswered("ittybit", "a list repeats a page")
        return parsed, following

    def pages(self, path: str, shape: type[Shape], **query: str) -> Iterator[Shape]:
        """Every item of a list, page by page."""
        items, cursor = self.page(path, shape, **query)
        yield from items
        while cursor is not None:
            items, cursor = self.page(path, shape, cursor, **query)
            yield from items

    @property
    def is_late(self) -> bool:
        """Whether too little time is left for another page."""
        return self._deadline.left() < 1


class Once(Generic[Value]):
    """Calls a function once for all threads of an invocation. Each of them gets its result, or its error."""

    def __init__(self, ask: Callable[[], Value]) -> None:
        self._answer: Future[Value] = Future()
        self._ask = ask
        self._lock = threading.Lock()

    def __call__(self) -> Value:
        """Return the result of the one call, or raise its error."""
        with self._lock:
            if not self._answer.done():
                try:
                    self._answer.set_result(self._ask())
                except Exception as error:  # noqa: BLE001 - raised to each thread
                    self._answer.set_exception(error)
        return self._answer.result()


def listed(reply: Reply) -> list[Any]:
    """The items in the answer to a list request."""
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
