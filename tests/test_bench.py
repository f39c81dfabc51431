"""Each benchmark runs at its smallest size, so that none rots; no timing passes or fails."""

from __future__ import annotations

import pytest

from bench import harmless


def test_harmless_measures_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    harmless.main(["--uploads", "2", "--rounds", "1"])

    printed = capsys.readouterr().out
    for case in harmless.CASES:
        assert case in printed
    assert "A bulk delete of 2 with the ledger locked" in printed
