from __future__ import annotations

from local.fault_run.function_outage import out_of_turn


def test_jobs_that_overtake_older_ones_by_more_than_the_slack_are_counted() -> None:
    assert out_of_turn(["a", "b", "c", "d"], ["a", "c", "b", "d"], slack=1) == 0
    assert out_of_turn(["a", "b", "c", "d"], ["d", "a", "b", "c"], slack=1) == 1
    assert out_of_turn(["a", "b"], ["unknown", "b", "a"], slack=0) == 1
