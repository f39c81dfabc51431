from __future__ import annotations

import json

from local.fault_run.nudges import Nudges
from local.pg_net_http import Queued


def message(number: int, attempt: int = 1) -> Queued:
    body = json.dumps({"job": f"job-{number}", "attempt": attempt}).encode()
    return Queued(number, "POST", "http://127.0.0.1:1/", [], body, 5000)


def test_messages_are_dropped_doubled_and_kept_back_at_their_places() -> None:
    places = {"nudge_dropped": {1}, "nudge_duplicated": {2}, "nudge_delayed": {4}}
    nudges = Nudges({kind: frozenset(at) for kind, at in places.items()}, seed=1)

    sent = nudges.disturb([message(0), message(1), message(2)])
    assert sorted(one.id for one in sent) == [0, 2, 2]
    assert [one.id for one in nudges.disturb([message(3)])] == [3]
    assert nudges.disturb([message(4, attempt=7)]) == []
    assert nudges.kept() == {"job-4": 7}
    assert nudges.sent == 4
    assert "nudge_delayed" not in nudges.happened

    nudges.let_go("job-4")
    assert sorted(one.id for one in nudges.disturb([message(5)])) == [4, 5]
    assert nudges.kept() == {}
    assert (nudges.happened["nudge_dropped"], nudges.happened["nudge_duplicated"]) == (1, 1)
    assert nudges.happened["nudge_delayed"] == 1


def test_batches_are_reordered_the_same_way_for_the_same_seed() -> None:
    batch = [message(number) for number in range(20)]
    places = {"nudge_dropped": frozenset({99})}
    first, second = Nudges(places, seed=1), Nudges(places, seed=1)

    shuffled = first.disturb(list(batch))

    assert shuffled != batch
    assert sorted(shuffled) == batch
    assert second.disturb(list(batch)) == shuffled
    assert first.happened["nudge_reordered"] == 1


def test_in_the_end_everything_is_let_through() -> None:
    nudges = Nudges({"nudge_dropped": frozenset({1, 2, 3}), "nudge_delayed": frozenset({0})}, seed=1)
    assert nudges.disturb([message(0)]) == []
    nudges.end()
    assert nudges.kept() == {}
    assert [one.id for one in nudges.disturb([message(1), message(2)])] == [0, 1, 2]
