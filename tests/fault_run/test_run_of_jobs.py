from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault_run.small_run import nothing_is_lost

pytestmark = [pytest.mark.long, pytest.mark.variation]


@pytest.mark.timeout(600)
def test_nothing_is_harmed_lost_bought_twice_or_started_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_is_lost(tmp_path, capsys, "jobs")
