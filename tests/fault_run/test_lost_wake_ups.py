from __future__ import annotations

import pytest

from local.fault_run.lost_wake_ups import LostHour


@pytest.mark.parametrize(
    ("hour", "is_good"),
    [
        pytest.param(LostHour(119, 60, 60, 17), True, id="as it must be"),
        pytest.param(LostHour(119, 60, 59, 17), False, id="one is not processed"),
        pytest.param(LostHour(119, 60, 60, 61), False, id="the lost wake-ups are made up for"),
        pytest.param(LostHour(0, 60, 60, 17), False, id="none was lost"),
        pytest.param(LostHour(119, 0, 0, 0), False, id="no job waited"),
    ],
)
def test_what_an_hour_without_wake_ups_must_come_to(hour: LostHour, is_good: bool) -> None:
    assert hour.is_good is is_good
