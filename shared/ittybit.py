"""The client of ittybit's API: one interface for both generations.

Each generation has an adapter that knows its paths and bodies: ``ittybit_automations`` and ``ittybit_jobs``.
``ittybit_models`` reads the answers of both.
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
from shared.ittybit_models import Action, Connection, Searched, Work
from shared.ittybit_requests import Api, Once, listed, read
from shared.settings import Settings

Generation = Literal["automations", "jobs"]
GENERATIONS: tuple[Generation, ...] = ("automations", "jobs")
# ittybit answers with one of these statuses if it does not have a path.
ABSENT = (404, 405, 410)

# The generation found for each address and key, kept as long as the process lives.
_spoken: dict[tuple[str, str], Generation] = {}


class Ittybit:
    """One invocation's client, with its key and its deadline. Several threads may share it.

    Every method raises ``ServiceError`` when ittybit answers with an error or not at all.
    """

    def __init__(self, settings: Settings, deadline: Deadline) -> None:
        self._api = Api(settings, deadline)
        self._settings = settings
        self._connection_name = f"supabase-{settings.project_ref}"
        self._connections = Once(self.connections)
        self._asking = threading.Lock()
        self._automations = Automations(self._api, lambda: self.connection_id)
        jobs = Jobs(self._api, lambda: self.connection_id, settings.ittybit_job_connection)
        self._adapters: dict[Generation, Automations | Jobs] = {"automations": self._automations, "jobs": jobs}

    def connections(self) -> list[Connection]:
        """All connections of the project."""
        return list(self._api.pages("connections", Connection))

    @property
    def connection_id(self) -> str:
        """The id of the connection that the environment names, or of the project's own, which is looked up once."""
        name, named = self._connection_name, self._settings.ittybit_connection_id
        found = named or next((one.id for one in self._connections() if one.name == name), None)
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
        """Delete a connection."""
        self._api.call("DELETE", f"connections/{quote(connection_id, safe='')}", repeatable=True)

    def start(self, action: Action, source: str, mark: str, **metadata: str) -> Work:
        """Start an action on the file at an https address; returns its run, task or job.

        Args:
            action: an automation, a task or a run. Results go to destinations through the project's connection.
            source: the file's address.
            mark: names the job or the person's call; also the Idempotency-Key.
            metadata: sent along where ittybit documents it.
        """
        generation = self.generation
        try:
            return self._adapters[generation].start(action, source, mark, metadata)
        except Answered as error:
            if error.status not in ABSENT or self._settings.ittybit_api != "auto" or self.speaks(generation):
                raise
            _spoken.pop(self._api.account, None)
            raise Unanswered("ittybit", f"it no longer has /{generation}") from None

    def work(self, ref: str) -> Work:
        """The run, task or job as it is now, even if this client starts new work in the other generation."""
        resource, _, id_ = ref.partition("/")
        work = self._api.work("GET", f"{resource}/{quote(id_, safe='')}").model_copy(update={"ref": ref})
        is_done = resource == "runs" and work.state == "succeeded"
        return self._automations.with_outputs(work, id_) if is_done else work

    def find(self, action: Action, mark: str, since: datetime, now: datetime, searched: Searched) -> str | None:
        """The ``ref`` of what an attempt started; None if it certainly started nothing.

        Starting again with the same Idempotency-Key is not enough: an ittybit that ignores it would start twice. Each
        attempt also signs the source anew, so the body would differ, and no document says what ittybit does then.

        All searches of an invocation read the same pages. The first page is fetched after this object was made, so the
        pages contain everything that was started before.

        Args:
            action: the job's.
            mark: the job's.
            since: when the attempt began, by the ledger's clock.
            now: when this invocation claimed the job, by the same clock, to compare ittybit's with.
            searched: how far earlier attempts came. If this one does not end the search either, it puts in how far it
                came, whatever it raises.

        Raises:
            Undecided: an hour of attempts did not reach back to ``since``, and nothing that they read has the mark.
            Unfinished: the search ran out of time. The next attempt continues it.
        """
        return self._adapters[self.generation].find(action, mark, since, now, searched)

    @property
    def generation(self) -> Generation:
        """The generation that starts work: ITTYBIT_API, or for ``auto`` the one that answers; found once a process."""
        chosen = self._settings.ittybit_api
        if chosen != "auto":
            return chosen
        with self._asking:
            found = _spoken.get(self._api.account) or next((one for one in GENERATIONS if self.speaks(one)), None)
            if found is None:
                raise ServiceError("ittybit", "it has neither /automations nor /jobs: set ITTYBIT_API", effect="hold")
            return _spoken.setdefault(self._api.account, found)

    def speaks(self, generation: Generation) -> bool:
        """Whether ittybit has this generation, asked by a GET.

        Raises:
            ServiceError: its answer does not tell.
        """
        try:
            listed(self._api.call("GET", f"{generation}?limit=1", repeatable=True))
        except Answered as error:
            if error.status in ABSENT:
                return False
            if error.effect != "fail":
                raise
            raise Unanswered("ittybit", f"GET /{generation} was answered: {error.message}") from None
        return True
