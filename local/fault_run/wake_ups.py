"""Disturbs wake-ups in pg_net: drops, doubles, delays and reorders them.

A wake-up carries no job, so none of this may do more than cost time.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

from local.pg_net_http import Queued

# One batch in this many is sent in another order.
_SHUFFLED: Final = 3
# A delayed wake-up is sent this many batches after its own.
_LATE: Final = 4


class WakeUps:
    """Changes each batch of a ``PgNetWorker``, as its argument ``disturb``; safe from any thread.

    Args:
        places: For each kind (``wake_up_dropped``, ``wake_up_doubled``, ``wake_up_delayed``), the numbers of the
            wake-ups that it hits, from 0.
        seed: Decides on the order of reordered batches.

    Attributes:
        happened: How often each kind of fault happened; ``wake_up_reordered`` counts batches.
        sent: How many wake-ups were sent.
    """

    def __init__(self, places: Mapping[str, frozenset[int]], seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self.sent = 0
        self._places = dict(places)
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._lock = threading.Lock()
        self._met = 0
        self._batches = 0
        self._kept: list[tuple[int, Queued]] = []

    @property
    def is_over(self) -> bool:
        """Whether everything planned has happened."""
        return not self._kept and all(self._met > place for places in self._places.values() for place in places)

    def disturb(self, batch: list[Queued]) -> list[Queued]:
        """Return the batch to send in place of this one."""
        with self._lock:
            self._batches += 1
            sent = [message for until, message in self._kept if until <= self._batches]
            self._kept = [(until, message) for until, message in self._kept if until > self._batches]
            for message in batch:
                sent += self._replacement(message)
            if len(sent) > 1 and self._places and self._batches % _SHUFFLED == 1:
                self._chance.shuffle(sent)
                self.happened["wake_up_reordered"] += 1
            self.sent += len(sent)
            return sent

    def end(self) -> None:
        """Stop disturbing; delayed wake-ups go with the next batch."""
        with self._lock:
            self._places = {}
            self._kept = [(0, message) for _, message in self._kept]

    def _replacement(self, message: Queued) -> list[Queued]:
        place, self._met = self._met, self._met + 1
        fault = next((kind for kind, places in self._places.items() if place in places), None)
        if fault is not None:
            self.happened[fault] += 1
        match fault:
            case "wake_up_dropped":
                return []
            case "wake_up_doubled":
                return [message, message]
            case "wake_up_delayed":
                self._kept.append((self._batches + _LATE, message))
                return []
        return [message]
