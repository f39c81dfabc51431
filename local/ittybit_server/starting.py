"""The POSTs that start paid work, their replays and the journal.

In the documents of the generation *jobs*, every POST takes the header ``Idempotency-Key``; a replay answers 200. For
``POST /tasks`` and ``POST /automations/:id/run`` of the older generation nothing is documented; here they do the same.
Each path has its own keys. The same key with another body is undocumented: it gets the first answer too. A key in the
body of ``POST /runs`` is ignored. Documented keys last 24 hours; these last as long as the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from flask import Response, request

from local.ittybit_server.bodies import Item
from local.ittybit_server.errors import RequestError
from local.ittybit_server.journal import Entry
from local.ittybit_server.options import IngestOptions, UploadOptions, read_options
from local.ittybit_server.records import File, Records, Run, Task
from local.ittybit_server.serialization import Renderer
from local.ittybit_server.transfer import filename, mimetype

CREATED_BY_KEY = "key_local"
"""``created_by`` of runs that were not started by an automation: the id of the only API key."""


Made = TypeVar("Made", bound=Run)


class Starting:
    """Accepts runs and jobs.

    Attributes:
        journal: The accepted starts, oldest first; guarded by the records' lock.
        payment_required: Whether every start is refused with a 402.
    """

    def __init__(
        self,
        records: Records,
        renderer: Renderer,
        submit: Callable[[Run], None],
        *,
        honour_idempotency: bool,
    ) -> None:
        self._records = records
        self._renderer = renderer
        self._submit = submit
        self._answers: dict[tuple[str, str], tuple[dict[str, Any], Entry]] = {}
        self._honour_idempotency = honour_idempotency
        self.journal: list[Entry] = []
        self.payment_required = False

    def start(
        self,
        draft: Entry,
        accept: Callable[[], Made],
        render: Callable[[Made], dict[str, Any]],
    ) -> Response:
        """Start what ``accept`` returns and answer 201, or repeat the key's first answer with 200.

        Args:
            draft: The entry for the journal, without destination, id, time and key.
            accept: Checks the request and makes the run or job; nothing is kept if it raises.
            render: Makes the body of the answer.

        Raises:
            RequestError: 402, or what ``accept`` raises.
        """
        key = request.headers.get("Idempotency-Key")
        with self._records.lock:
            found = self._answers.get((request.path, key)) if key and self._honour_idempotency else None
            if found:
                body, first = found
                self.journal.append(replace(first, time=time.time(), replay=True))
                return self._renderer.answer(body)
            if self.payment_required:
                raise RequestError(402, "payment_required", "The project's credits are used up.")
            run = accept()
            self._records.add(run)
            body = render(run)
            written = next((task for task in run.tasks if task.destination), None)
            if written is not None:
                connection_id = written.destination_connection_id
                draft = replace(draft, destination=written.destination, connection_id=connection_id)
            entry = replace(draft, idempotency_key=key, id=body["id"], time=time.time())
            self.journal.append(entry)
            if key:
                self._answers[request.path, key] = body, entry
            self._submit(run)
            return self._renderer.answer(body, 201)


def make_run(
    records: Records,
    items: list[Item],
    *,
    created_by: str = CREATED_BY_KEY,
    metadata: dict[str, Any] | None = None,
    url: str | None = None,
) -> Run:
    """A run of these items, with a task for each, parents before children.

    Raises:
        RequestError: ``connection_not_found``.
    """
    run = Run(created_by, metadata or {})

    def add(item: Item, parent: Task | None) -> None:
        options = read_options(item.kind, item.options)
        named = options.connection_id if isinstance(options, IngestOptions | UploadOptions) else None
        connection_id = named or item.connection_id
        if connection_id:
            records.connection(connection_id)
        place = options.url if isinstance(options, UploadOptions) else item.destination
        task = Task(run, parent, item.kind, item.options, connection_id, place, connection_id)
        if parent is None and (source := item.source or url):
            task.input = source_file(source)
        if parent:
            parent.children.append(task)
        run.tasks.append(task)
        for child in item.next:
            add(child, task)

    for item in items:
        add(item, None)
    return run


def source_file(url: str) -> File:
    """A source that has not been fetched yet."""
    name = filename(url)
    return File("url", url, name, mimetype=mimetype(name))
