"""The thin client of ittybit's API: connections, automations, runs and tasks.

As documented from 2025-12 (``/connections``) to 2026-01 (errors as ``{kind, message}``), https://ittybit.com/changelog.

A later version of the API that names these things otherwise is added here and in ``ittybit_shapes``, nowhere else.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ValidationError

from shared.errors import ServiceError, Unanswered, Undecided
from shared.http import Deadline, Reply, send
from shared.ittybit_shapes import Action, Connection, Work, bare
from shared.settings import Settings

PAGE = 100
# Looking for a start goes back this many pages at the most: at twenty starts a second, forty minutes. Mostly it is the
# deadline that ends it sooner.
MAX_PAGES = 500
# A list that takes longer than an invocation has is looked through again later, until the doubt is so old.
LOOKED_AGAIN = timedelta(minutes=15)
# How exactly two clocks are known to agree: by the answer's Date header, or where it has none.
CLOCKS_COMPARED = timedelta(seconds=30)
CLOCKS_UNKNOWN = timedelta(minutes=10)

Shape = TypeVar("Shape", bound=BaseModel)


class Ittybit:
    """One invocation's view of ittybit: its key and its deadline. Several threads may share it.

    Every method raises ``ServiceError`` when ittybit answers with an error or not at all.
    """

    def __init__(self, settings: Settings, deadline: Deadline) -> None:
        self._url = settings.ittybit_api_url
        self._headers = {"authorization": f"Bearer {settings.ittybit_api_key}"}
        self._deadline = deadline
        self._clock: datetime | None = None
        self._connection_id = settings.ittybit_connection_id
        self._connection_name = f"supabase-{settings.project_ref}"
        self._connections = _Once(self._pages("connections", Connection))
        self._newest_tasks = _Once(self._pages("tasks", Work, order="desc"))

    def connections(self) -> list[Connection]:
        """All connections of the project."""
        return list(self._pages("connections", Connection))

    @property
    def connection_id(self) -> str:
        """The connection that the environment names, or the project's own, looked up once."""
        name = self._connection_name
        found = self._connection_id or next((one.id for one in self._connections if one.name == name), None)
        if found is None:
            raise ServiceError("ittybit", f"no connection {name!r}: call create-connection once", effect="hold")
        return found

    def create_connection(self, fields: Mapping[str, Any]) -> Connection:
        """Register S3 keys (``POST /connections``)."""
        return _read(Connection, self._call("POST", "connections", fields))

    def update_connection(self, connection_id: str, fields: Mapping[str, Any]) -> Connection:
        """Change a connection (``PATCH /connections/{id}``; which fields it takes is not documented)."""
        path = f"connections/{quote(connection_id, safe='')}"
        return _read(Connection, self._call("PATCH", path, fields, repeatable=True))

    def delete_connection(self, connection_id: str) -> None:
        """Forget a connection."""
        self._call("DELETE", f"connections/{quote(connection_id, safe='')}", repeatable=True)

    def start(self, action: Action, source: str, mark: str) -> Work:
        """Start an action on the file at an https address; returns its run or task.

        Args:
            action: an automation, or a task. A result goes to its destination through the project's connection.
            source: the file's address.
            mark: whose start this is.
        """
        if action.automation_id is not None:
            path = f"automations/{quote(action.automation_id, safe='')}/run"
            return _work("runs", self._call("POST", path, {"url": source}, mark=mark))
        if action.task is None:
            raise ServiceError("ledger", "the job has no action", effect="fail")
        body: dict[str, Any] = {"url": source, "kind": action.task.kind, "options": action.task.options}
        if action.task.destination is not None:
            body |= {"connection_id": self.connection_id, "destination": action.task.destination}
        return _work("tasks", self._call("POST", "tasks", body, mark=mark))

    def work(self, ref: str) -> Work:
        """The run or task as it is now; a run that has succeeded with the outputs of all its tasks."""
        resource, _, id_ = ref.partition("/")
        work = _work(resource, self._call("GET", f"{resource}/{quote(id_, safe='')}", repeatable=True))
        work = work.model_copy(update={"ref": ref})
        if resource != "runs" or work.state != "succeeded":
            return work
        # A run shows its tasks in short; their outputs are with the tasks themselves.
        tasks = self._pages("tasks", Work, run_id=id_, order="asc")
        outputs = dict.fromkeys([*work.outputs, *(address for task in tasks for address in task.outputs)])
        return work.model_copy(update={"outputs": tuple(outputs)})

    def find(self, action: Action, mark: str, since: datetime, now: datetime) -> str | None:
        """What an attempt started: the ``ref`` of the oldest task since whose source carries the mark, or of its run.

        None if it certainly started nothing. Whoever looks walks through the same pages, fetched once from the first
        look on: what was started before this was made is among them.

        Args:
            action: the job's.
            mark: the job's.
            since: when the attempt began, by the ledger's clock.
            now: a moment of this invocation by the same clock, to compare ittybit's with.

        Raises:
            Undecided: there are more tasks since then than can be looked through, and none of those seen is ours.
            Unanswered: among others, when it takes too long and may be quicker a little later.
        """
        task = self._find_task(mark, since, now)
        if task is None:
            return None
        if action.automation_id is None:
            return f"tasks/{task.id}"
        if task.run_id is None:
            # Bought it is: it must not be bought again because the answer does not name it.
            raise Unanswered("ittybit", "the task that an earlier attempt started does not say its run")
        return f"runs/{task.run_id}"

    def _find_task(self, mark: str, since: datetime, now: datetime) -> Work | None:
        found = None
        for seen, task in enumerate(self._newest_tasks):
            ahead = self._clock - now - CLOCKS_COMPARED if self._clock else -CLOCKS_UNKNOWN
            if task.created_at and task.created_at - since < ahead:
                return found
            is_late = seen >= PAGE and self._deadline.left() < 1
            if seen >= MAX_PAGES * PAGE or is_late:
                if found is not None:
                    return found
                if is_late and now - since < LOOKED_AGAIN:
                    raise Unanswered("ittybit", "there was no time to look through its tasks", in_doubt=True)
                raise Undecided("ittybit", f"not among the newest {seen} tasks", in_doubt=True)
            if any(f"job={mark}" in source.partition("?")[2].split("&") for source in task.sources):
                found = task
        return found

    def _pages(self, path: str, shape: type[Shape], **query: str) -> Iterator[Shape]:
        """Every item of a list, page by page along the cursor."""
        after: dict[str, str] = {}
        while True:
            reply = self._call("GET", f"{path}?{urlencode({'limit': PAGE, **query, **after})}", repeatable=True)
            items = bare(reply.data)
            if not isinstance(items, list):
                raise Unanswered("ittybit", "the answer to a list is not a list")
            parsed = [_read(shape, reply, item) for item in items]
            yield from parsed
            if reply.headers.get("has-more", "false").lower() != "true" or not items:
                return
            after = {"after": str(items[-1]["id"])}

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        mark: str | None = None,
        repeatable: bool = False,
    ) -> Reply:
        """Send one request. With a mark it is a start: the mark is its Idempotency-Key, wherever that is honoured."""
        headers = self._headers | ({"idempotency-key": mark} if mark else {})
        url = f"{self._url}/{path}"
        reply = send("ittybit", method, url, deadline=self._deadline, headers=headers, body=body, repeatable=repeatable)
        self._clock = _date(reply) or self._clock
        return reply


class _Once(Iterable[Shape]):
    """What an iterator yields, from the beginning to any number of threads, each item fetched once.

    What it raises, it raises to all who come there: nobody takes what is unknown for the end.
    """

    def __init__(self, items: Iterator[Shape]) -> None:
        self._items = items
        self._seen: list[Shape] = []
        self._end: Exception | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Shape]:
        for place in itertools.count():
            with self._lock:
                if place == len(self._seen) and self._end is None:
                    try:
                        self._seen.append(next(self._items))
                    except Exception as end:  # noqa: BLE001 - it is raised again, to each
                        self._end = end
                if place == len(self._seen):
                    break
            yield self._seen[place]
        if self._end is not None and not isinstance(self._end, StopIteration):
            raise self._end


def _work(resource: str, reply: Reply) -> Work:
    work = _read(Work, reply)
    return work.model_copy(update={"ref": f"{resource}/{work.id}"})


def _date(reply: Reply) -> datetime | None:
    """When the answer was given, by ittybit's clock."""
    try:
        given = parsedate_to_datetime(reply.headers.get("date", ""))
        return given if given.tzinfo else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _read(shape: type[Shape], reply: Reply, item: Any = None) -> Shape:
    """Read what is needed of one object. A start that was accepted but cannot be read is in doubt."""
    try:
        return shape.model_validate(bare(reply.data) if item is None else item)
    except ValidationError:
        raise Unanswered("ittybit", f"the answer is not a {shape.__name__.lower()}", in_doubt=True) from None
