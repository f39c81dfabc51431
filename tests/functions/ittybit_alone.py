"""An ittybit without a project, with sources to read, and the functions' client for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from werkzeug import Response

from local.fault_injection import Faults
from local.ittybit_server import Ittybit as StandIn
from local.ittybit_server import Shapes
from local.server import Server
from local.stack import words_of_ittybit
from shared.errors import Answered, ServiceError
from shared.http import Deadline
from shared.ittybit import Generation, Ittybit
from shared.ittybit_models import Action, Task, Work
from shared.settings import load
from tests.functions.calling import NOWHERE

KEY = NOWHERE["ITTYBIT_API_KEY"]
CONNECTION = {
    "name": "supabase-abcd",
    "kind": "s3",
    "endpoint": "https://abcd.storage.supabase.co/storage/v1/s3",
    "region": "eu-central-1",
    "access_key_id": "key-id",
    "secret_access_key": "s3-secret-value",
}


# For tests in which it does not matter what is started.
RUN = Action(automation_id="auto_1")


def client(origin: str, *, seconds: float = 10, **changes: str) -> Ittybit:
    """The functions' client, with a deadline so many seconds from now; the generation is *automations* by default."""
    settings = load({**NOWHERE, "ITTYBIT_API": "automations", "ITTYBIT_API_URL": origin, **changes})
    return Ittybit(settings, Deadline(seconds))


@dataclass(frozen=True)
class Alone:
    """The stand-in for ittybit, its faults and its client.

    Attributes:
        source, missing: an address with a file, and one without.
    """

    generation: Generation | Literal["both"]
    stand_in: StandIn
    faults: Faults
    origin: str
    source: str
    missing: str

    @property
    def client(self) -> Ittybit:
        return self.within(10)

    def within(self, seconds: float) -> Ittybit:
        """A client whose deadline is so many seconds from now."""
        return client(self.origin, seconds=seconds, ITTYBIT_API=self.generation)

    def action(self, *kinds: str) -> Action:
        """An automation with a task of each kind; in *jobs*, which has no automations, a task of the one kind given."""
        if self.generation == "jobs":
            [kind] = kinds
            return Action(task=Task(kind=kind))
        workflow = {"name": "Some", "workflow": [{"kind": kind} for kind in kinds]}
        data: Any = self.client._api.call("POST", "automations", workflow).data
        return Action(automation_id=str(data.get("data", data)["id"]))

    @property
    def started(self) -> int:
        """How many starts it would charge for."""
        return len([entry for entry in self.stand_in.journal if not entry.replay])


@contextmanager
def alone(directory: Path, generation: Generation | Literal["both"], shapes: Shapes | None = None) -> Iterator[Alone]:
    """Run an ittybit that only copies files and ignores Idempotency-Key."""
    options: dict[str, Any] = {"encode": False, "honour_idempotency": False, "shapes": shapes, "api": generation}
    stand_in = StandIn(api_key=KEY, directory=directory, **options)
    faults = Faults(stand_in.app, words_of_ittybit)
    with ExitStack() as running:
        origin = running.enter_context(Server(faults)).origin
        running.callback(faults.close)
        source = running.enter_context(Server(Response(b"a video"))).origin
        missing = running.enter_context(Server(Response(status=404))).origin
        stand_in.start()
        running.callback(stand_in.stop)
        yield Alone(generation, stand_in, faults, origin, f"{source}/a.mp4", f"{missing}/a.mp4")


def fails(act: Callable[[], object]) -> ServiceError:
    """Return the ServiceError that the call raises, which must not contain the key."""
    with pytest.raises(ServiceError) as caught:
        act()
    error = caught.value
    assert KEY not in f"{error} {error.message} {error.kind} {error.__cause__!r}"
    assert isinstance(error, Answered) == (error.status is not None)
    return error


def start(client: Ittybit, action: Action, source: str = "http://127.0.0.1:9/a.mp4") -> Work:
    return client.start(action, source, "a.1")
