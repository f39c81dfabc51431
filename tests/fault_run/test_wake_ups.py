from __future__ import annotations

from local.fault_run.wake_ups import WakeUps
from local.pg_net_http import Queued


def wake_up(number: int) -> Queued:
    return Queued(number, "POST", "http://127.0.0.1:1/", [], b'{"type": "jobs.due"}', 5000)


def sent(wake_ups: WakeUps, *numbers: int) -> list[int]:
    return sorted(one.id for one in wake_ups.disturb([wake_up(number) for number in numbers]))


def test_wake_ups_are_dropped_doubled_and_delayed_at_their_places() -> None:
    places = {"wake_up_dropped": {1}, "wake_up_doubled": {2}, "wake_up_delayed": {4}}
    wake_ups = WakeUps({kind: frozenset(at) for kind, at in places.items()}, seed=1)

    assert sent(wake_ups, 0, 1, 2) == [0, 2, 2]
    assert sent(wake_ups, 3) == [3]
    assert not wake_ups.is_over
    assert sent(wake_ups, 4) == []
    assert [sent(wake_ups, number) for number in (5, 6, 7, 8)] == [[5], [6], [7], [4, 8]]
    assert wake_ups.is_over
    assert wake_ups.sent == 9
    assert {kind: wake_ups.happened[kind] for kind in places} == dict.fromkeys(places, 1)


def test_batches_are_reordered_the_same_way_for_the_same_seed() -> None:
    batch = [wake_up(number) for number in range(20)]
    places = {"wake_up_dropped": frozenset({99})}
    first, second = WakeUps(places, seed=1), WakeUps(places, seed=1)

    shuffled = first.disturb(list(batch))

    assert shuffled != batch
    assert sorted(shuffled) == batch
    assert second.disturb(list(batch)) == shuffled
    assert first.happened["wake_up_reordered"] == 1


def test_after_the_end_every_wake_up_is_sent() -> None:
    wake_ups = WakeUps({"wake_up_dropped": frozenset({1, 2, 3}), "wake_up_delayed": frozenset({0})}, seed=1)
    assert sent(wake_ups, 0) == []
    wake_ups.end()
    assert wake_ups.disturb([wake_up(1), wake_up(2)]) == [wake_up(0), wake_up(1), wake_up(2)]
