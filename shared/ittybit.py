"""The client of ittybit's API: one interface, whichever generation answers.

A generation has one adapter, which knows its paths and bodies: ``ittybit_automations`` and ``ittybit_jobs``. What is
read of any answer is in ``ittybit_models``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from shared.errors import Answered, ServiceError, Unanswered
from shared.http import Deadline
from shared.ittybit_automations import Automations
from shared.ittybit_jobs import Jobs
from shared.ittybit_models import Action, Connection, Work
from shared.ittybit_requests import Api, Once, listed, read
from shared.settings import Settings

Generation = Literal["automations", "jobs"]
GENERATIONS: tuple[Generation, ...] = ("automations", "jobs")
# What ittybit says of a path that it does not have.
ABSENT = (404, 405, 410)

# The generation that each address and key was found to speak, for as long as the process lives.
_spoken: dict[tuple[str, str], Generation] = {}


class Ittybit:
    """One invocation's view of ittybit: its key and its deadline. Several threads may share it.

    Every method raises ``ServiceError`` when ittybit answers with an error or not at all.
    """

    def __init__(self, settings: Settings, deadline: Deadline) -> None:
        self._api = Api(settings, deadline)
        self._settings = settings
        self._connection_name = f"supabase-{settings.project_ref}"
        self._connections = Once(self._api.pages("connections", Connection))
        self._asking = threading.Lock()
        self._whose = (settings.ittybit_api_url, settings.ittybit_api_key)
        self._automations = Automations(self._api, lambda: self.connection_id)
        jobs = Jobs(self._api, lambda: self.connection_id, settings.ittybit_job_connection)
        self._adapters: dict[Generation, Automations | Jobs] = {"automations": self._automations, "jobs": jobs}

    def connections(self) -> list[Connection]:
        """All connections of the project."""
        return list(self._api.pages("connections", Connection))

    @property
    def connection_id(self) -> str:
        """The connection that the environment names, or the project's own, looked up once."""
        name, named = self._connection_name, self._settings.ittybit_connection_id
        found = named or next((one.id for one in self._connections if one.name == name), None)
        if found is None:
            raise ServiceError("ittybit", f"no connection {name!r}: call create-connection once", effect="hold")
        return found

    def create_connection(self, fields: Mapping[str, Any]) -> Connection:
        """Register S3 keys (``POST /connections``)."""
        return read(Connection, self._api.call("POST", "connections", fields))

    def update_connection(self, connection_id: str, fields: Mapping[str, Any]) -> Connection:
        """Change a connection (``PATCH /connections/{id}``; which fields it takes is not documented)."""
        path = f"connections/{quote(connection_id, safe='')}"
        return read(Connection, self._api.call("PATCH", path, fields, repeatable=True))

    def delete_connection(self, connection_id: str) -> None:
        """Forget a connection."""
        self._api.call("DELETE", f"connections/{quote(connection_id, safe='')}", repeatable=True)

    def start(self, action: Action, source: str, mark: str, **metadata: str) -> Work:
        """Start an action on the file at an https address; returns its run, task or job.

        Args:
            action: an automation, or a task. A result goes to its destination through the project's connection.
            source: the file's address.
            mark: whose start this is; also its Idempotency-Key.
            metadata: what ittybit is to keep with it, where a document says that it does.
        """
        generation = self.generation
        try:
            return self._adapters[generation].start(action, source, mark, metadata)
        except Answered as error:
            if error.status not in ABSENT or self._settings.ittybit_api != "auto" or self.speaks(generation):
                raise
            _spoken.pop(self._whose, None)
            raise Unanswered("ittybit", f"it no longer has /{generation}") from None

    def work(self, ref: str) -> Work:
        """The run, task or job as it is now, whichever generation starts what is new."""
        resource, _, id_ = ref.partition("/")
        work = self._api.work("GET", f"{resource}/{quote(id_, safe='')}").model_copy(update={"ref": ref})
        is_done = resource == "runs" and work.state == "succeeded"
        return self._automations.with_outputs(work, id_) if is_done else work

    def find(self, action: Action, mark: str, since: datetime, now: datetime) -> str | None:
        """The ``ref`` of what an attempt started; None if it certainly started nothing.

        The Idempotency-Key alone never decides: an ittybit that passes it over would start anew, and a source is signed
        anew for each attempt, so that the key comes with another body, of which no document speaks.

        Whoever looks walks through the same pages, fetched once from the first look on: what was started before this
        was made is among them.

        Args:
            action: the job's.
            mark: the job's.
            since: when the attempt began, by the ledger's clock.
            now: a moment of this invocation by the same clock, to compare ittybit's with.

        Raises:
            Undecided: there is more since then than can be looked through, and nothing of what was seen is ours.
            Unanswered: among others, when it takes too long and may be quicker a little later.
        """
        return self._adapters[self.generation].find(action, mark, since, now)

    @property
    def generation(self) -> Generation:
        """What starts: ITTYBIT_API, or where that leaves it open, what answers; asked once per process."""
        chosen = self._settings.ittybit_api
        if chosen != "auto":
            return chosen
        with self._asking:
            found = _spoken.get(self._whose) or next((one for one in GENERATIONS if self.speaks(one)), None)
            if found is None:
                raise ServiceError("ittybit", "it has neither /automations nor /jobs: set ITTYBIT_API", effect="hold")
            return _spoken.setdefault(self._whose, found)

    def speaks(self, generation: Generation) -> bool:
        """Whether ittybit answers in this generation, by a question without consequences.

        Raises:
            ServiceError: what it says decides nothing.
        """
        try:
            listed(self._api.call("GET", f"{generation}?limit=1", repeatable=True))
        except Answered as error:
            if error.status in ABSENT:
                return False
            if error.effect != "fail":
                raise
            raise Unanswered("ittybit", f"asked for /{generation}, it said: {error.message}") from None
        return True
