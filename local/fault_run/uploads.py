"""The load: small objects, stored, overwritten, renamed and deleted through the storage server's REST API.

Like a client, the load sends a failed request again. Each failure counts as harmed unless the database was down.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import httpx

from local.fault_run.database_outages import Outages
from local.fault_run.plan import Plan, Step
from local.stack import Stack

BUCKET: Final = "media"
RESULTS: Final = "processed/"
# A request that takes longer counts as harmed, even if it succeeds.
SLOW_SECONDS: Final = 2.0
_THREADS: Final = 4
_TRIES: Final = 30
_PAST: Final = {"overwrite": "object_overwritten", "rename": "object_renamed", "delete": "object_deleted"}


class LoadError(RuntimeError):
    """A request failed at every try, or the storage server lost what it stored."""


class Uploads:
    """The load of one plan, sent by a few threads.

    Args:
        stack: The stack to send it to.
        plan: The plan with the load.
        outages: The database's outages: a request that fails during one is not harmed.
        has_room: Called before each step; the load waits while it returns False.

    Attributes:
        outages: As given.
        happened: How often objects were overwritten, renamed and deleted.
        harmed: Requests that failed, or took over 2 s, while the database was up.
        stored_at: For each content's entity tag, when its upload was answered, in Unix seconds.
        names: The key and the entity tag of each object that must exist.
    """

    def __init__(self, stack: Stack, plan: Plan, outages: Outages, has_room: Callable[[], bool]) -> None:
        self.happened: Counter[str] = Counter()
        self.harmed: list[str] = []
        self.stored_at: dict[str, float] = {}
        self.names: dict[str, str] = {}
        self._storage = f"{stack.supabase_url}/storage/v1/object"
        self._http = httpx.Client(trust_env=False, timeout=60, headers={"apikey": stack.keys.secret_key})
        self._plan = plan
        self.outages = outages
        self._has_room = has_room
        self._pace = plan.seconds / len(plan.steps)
        self._lock = threading.Lock()
        self._done = 0
        self._late = 0
        self._stopped = threading.Event()
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(_THREADS)]
        self._current: dict[int, str] = {}

    def start(self) -> None:
        """Begin; the threads end when all steps are done."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> float:
        """The part of the load, 0 to 1, that is done.

        Raises:
            LoadError: a thread has given up.
        """
        if self._errors:
            raise LoadError("the load broke off") from self._errors[0]
        return self._done / len(self._plan.steps)

    def stop(self) -> None:
        """End the threads after their current requests, and close the connections."""
        self._stopped.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._http.close()

    def upload(self, name: str, content: bytes) -> None:
        """Store an object, new or in place of an older one."""
        headers = {"x-upsert": "true", "content-type": "video/mp4"}
        self._send("POST", f"{self._storage}/{BUCKET}/{name}", content=content, headers=headers)
        # As in S3, MD5 only tells contents apart; nothing relies on it for security.
        tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        with self._lock:
            self.names[name] = tag
            self.stored_at[tag] = time.time()

    def upload_one(self) -> None:
        """Store one more object than the plan has."""
        self._late += 1
        self.upload(f"late/{self._late:05}.mp4", f"{self._plan.seed} late {self._late} ".encode() * 20)

    def rename(self, name: str, to: str) -> None:
        """Move an object to another key of the bucket."""
        body = {"bucketId": BUCKET, "sourceKey": name, "destinationKey": to}
        self._send("POST", f"{self._storage}/move", json=body, is_done=_is_gone)
        with self._lock:
            if name in self.names:
                self.names[to] = self.names.pop(name)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._send("DELETE", f"{self._storage}/{BUCKET}/{name}", is_done=_is_gone)
        with self._lock:
            self.names.pop(name, None)

    def delete_all(self, names: list[str]) -> None:
        """Remove several objects in one request, and so in one transaction."""
        self._send("DELETE", f"{self._storage}/{BUCKET}", json={"prefixes": names})
        with self._lock:
            for name in names:
                self.names.pop(name, None)

    def _work(self, number: int) -> None:
        # One thread takes all steps of an object, so they keep their order.
        mine = [(place, step) for place, step in enumerate(self._plan.steps) if step.item % _THREADS == number]
        try:
            for place, step in mine:
                while time.monotonic() < self._began + place * self._pace or not self._has_room():
                    if self._stopped.wait(0.02):
                        return
                self._carry_out(step)
                with self._lock:
                    self._done += 1
        except Exception as error:  # noqa: BLE001 - ``done`` raises it in the main thread
            self._errors.append(error)

    def _carry_out(self, step: Step) -> None:
        name = self._current.setdefault(step.item, f"in/{step.item:05}.mp4")
        match step.change:
            case "upload" | "overwrite":
                # Unique bytes, so that the entity tag identifies the content.
                self.upload(name, f"{self._plan.seed} {step.item} {step.change} ".encode() * 20)
            case "rename":
                self._current[step.item] = f"renamed/{step.item:05}.mp4"
                self.rename(name, self._current[step.item])
            case "delete":
                self.delete(name)
        if step.change != "upload":
            with self._lock:
                self.happened[_PAST[step.change]] += 1

    def _send(
        self, method: str, url: str, *, is_done: Callable[[httpx.Response], bool] = lambda _: False, **body: object
    ) -> None:
        """Send a request until it succeeds, or until the answer to a retry says that an earlier try had succeeded."""
        for attempt in range(_TRIES):
            began = time.time()
            try:
                answer = self._http.request(method, url, **body)  # type: ignore[arg-type] # httpx's own arguments
                succeeded = answer.is_success or (attempt > 0 and is_done(answer))
                fault = "" if succeeded else f"HTTP {answer.status_code} {answer.text}"
            except httpx.HTTPError as error:
                fault = repr(error)
            ended = time.time()
            if (fault or ended - began > SLOW_SECONDS) and not self.outages.touch(began, ended):
                self.harmed.append(f"{method} {url} after {ended - began:.1f} s: {fault or 'slow'}")
            if not fault:
                return
            self._stopped.wait(0.2)
        raise LoadError(f"{method} {url}: {fault}")


def _is_gone(answer: httpx.Response) -> bool:
    return "not_found" in answer.text
