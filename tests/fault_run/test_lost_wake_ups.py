from __future__ import annotations

import pytest

from local.fault_run.lost_wake_ups import LostHour


@pytest.mark.parametrize(
    ("hour", "is_good"),
    [
        pytest.param(LostHour(119, 60, 60, 17), True, id="all processed"),
        pytest.param(LostHour(119, 60, 59, 17), False, id="one job not processed"),
        pytest.param(LostHour(119, 60, 60, 61), False, id="lost wake-ups sent later"),
        pytest.param(LostHour(0, 60, 60, 17), False, id="no wake-up lost"),
        pytest.param(LostHour(119, 0, 0, 0), False, id="no job waited"),
    ],
)
def test_an_hour_of_lost_wake_ups_is_judged(hour: LostHour, is_good: bool) -> None:
    assert hour.is_good is is_good
