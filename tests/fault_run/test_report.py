from __future__ import annotations

from local.fault_run.report import percentiles


def test_percentiles_are_measured_values() -> None:
    assert percentiles([3, 1, 2]) == {"median": 2, "p99": 3, "worst": 3}
    assert percentiles(list(range(1, 201))) == {"median": 100, "p99": 198, "worst": 200}
    assert percentiles([]) == {"median": 0, "p99": 0, "worst": 0}
