"""An ittybit with nothing around it but sources to read, and the functions' client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from werkzeug import Response

from local.faults import Faults
from local.ittybit_server import Ittybit as StandIn
from local.ittybit_server import Shapes
from local.server import Server
from local.stack import words_of_ittybit
from shared.errors import Answered, ServiceError
from shared.http import Deadline
from shared.ittybit import Ittybit
from shared.ittybit_shapes import Action, Work
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


def client(origin: str, *, seconds: float = 10) -> Ittybit:
    """The functions' client with its deadline from now on."""
    return Ittybit(load(NOWHERE | {"ITTYBIT_API_URL": origin}), Deadline(seconds))


@dataclass(frozen=True)
class Alone:
    """It and its faults.

    Attributes:
        source, missing: addresses of a file, and of none.
    """

    stand_in: StandIn
    faults: Faults
    origin: str
    source: str
    missing: str

    @property
    def client(self) -> Ittybit:
        return client(self.origin)

    def automation(self, *kinds: str) -> str:
        """The id of an automation with a task of each kind."""
        made = self.client._call(
            "POST", "automations", {"name": "Some", "workflow": [{"kind": kind} for kind in kinds]}
        )
        data: Any = made.data
        return str(data.get("data", data)["id"])

    @property
    def started(self) -> int:
        """How many starts it would charge for."""
        return len([entry for entry in self.stand_in.journal if not entry.replay])


@contextmanager
def alone(directory: Path, shapes: Shapes | None = None) -> Iterator[Alone]:
    """Run one that only copies, and takes no notice of Idempotency-Key."""
    stand_in = StandIn(api_key=KEY, directory=directory, encode=False, honour_idempotency=False, shapes=shapes)
    faults = Faults(stand_in.app, words_of_ittybit)
    with ExitStack() as running:
        origin = running.enter_context(Server(faults)).origin
        running.callback(faults.close)
        source = running.enter_context(Server(Response(b"a video"))).origin
        missing = running.enter_context(Server(Response(status=404))).origin
        stand_in.start()
        running.callback(stand_in.stop)
        yield Alone(stand_in, faults, origin, f"{source}/a.mp4", f"{missing}/a.mp4")


def fails(act: Callable[[], object]) -> ServiceError:
    """The error with which it fails, which must be one of ours and must not tell the key."""
    with pytest.raises(ServiceError) as caught:
        act()
    error = caught.value
    assert KEY not in f"{error} {error.message} {error.kind} {error.__cause__!r}"
    assert isinstance(error, Answered) == (error.status is not None)
    return error


def start(client: Ittybit, automation: str, source: str = "http://127.0.0.1:9/a.mp4") -> Work:
    return client.start(Action(automation_id=automation), source, "a.1")
