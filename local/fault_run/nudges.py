"""pg_net's messages disturbed on their way: dropped, sent twice, kept back until they are stale, in another order."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

from local.pg_net_http import Queued

# Every so many batches one is sent in another order.
_SHUFFLED: Final = 3


class Nudges:
    """What ``PgNetWorker`` calls with each batch; safe from any thread.

    Args:
        places: By kind, which messages it befalls, counted from 0: ``nudge_dropped``, ``nudge_duplicated``,
            ``nudge_delayed``.
        seed: For the order of the batches that are reordered.

    Attributes:
        happened: How often each kind did, ``nudge_reordered`` counting batches.
        sent: How many messages went out.
    """

    def __init__(self, places: Mapping[str, frozenset[int]], seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self.sent = 0
        self._places = dict(places)
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._lock = threading.Lock()
        self._met = 0
        self._batches = 0
        self._kept: list[Queued] = []
        self._stale: list[Queued] = []

    def disturb(self, batch: list[Queued]) -> list[Queued]:
        """Return what is sent in place of the batch."""
        with self._lock:
            sent = self._stale
            self._stale = []
            for message in batch:
                sent += self._instead_of(message)
            if len(sent) > 1 and self._places:
                self._batches += 1
                if self._batches % _SHUFFLED == 1:
                    self._chance.shuffle(sent)
                    self.happened["nudge_reordered"] += 1
            self.sent += len(sent)
            return sent

    def kept(self) -> dict[str, int]:
        """The jobs whose message is kept back, and the attempt that it is for."""
        with self._lock:
            told = [json.loads(message.body or b"{}") for message in self._kept]
            return {str(one["job"]): int(one["attempt"]) for one in told}

    def let_go(self, job: str) -> None:
        """Send what is kept back of a job with the next batch."""
        with self._lock:
            stale = [message for message in self._kept if json.loads(message.body or b"{}")["job"] == job]
            self._kept = [message for message in self._kept if message not in stale]
            self._stale += stale
            self.happened["nudge_delayed"] += len(stale)

    def end(self) -> None:
        """Disturb nothing any more; what is kept back still goes with the next batch."""
        with self._lock:
            self._places = {}
            self._stale += self._kept
            self._kept = []

    def _instead_of(self, message: Queued) -> list[Queued]:
        place, self._met = self._met, self._met + 1
        if place in self._places.get("nudge_dropped", ()):
            self.happened["nudge_dropped"] += 1
            return []
        if place in self._places.get("nudge_duplicated", ()):
            self.happened["nudge_duplicated"] += 1
            return [message, message]
        if place in self._places.get("nudge_delayed", ()):
            self._kept.append(message)
            return []
        return [message]
