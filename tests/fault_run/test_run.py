from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.fault_run.broken_parts import BREAKAGES
from local.fault_run.command import main
from local.fault_run.plan import make_plan

LOAD = {"object_overwritten", "object_renamed", "object_deleted"}


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("api", ["automations", pytest.param("jobs", marks=pytest.mark.variation)])
def test_nothing_is_harmed_lost_started_twice_or_self_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], api: str
) -> None:
    file = tmp_path / "faults.json"

    # Idempotency-Key would hide a second start. Without it, the search for the mark alone has to prevent one.
    status = main(["--uploads", "60", "--seed", "1", "--api", api, "--ignore-idempotency", "--out", str(file)])

    output = capsys.readouterr().out
    assert status == 0, output
    report = json.loads(file.read_text())
    zeros = {"harmed", "lost", "started_twice", "self_started"}
    assert {name: report[name] for name in zeros} == dict.fromkeys(zeros, 0)
    assert (report["uploads"], report["seed"], report["api"], report["idempotency"]) == (60, 1, api, "ignored")
    assert report["absence"]["processed"] == report["absence"]["jobs"] == 60
    beside = report["database_copy"]
    assert (beside["jobs"], beside["started"], beside["changed"]) == (60, 0, 0)
    assert beside["wake_ups"] > beside["refused"] > 0
    hour = report["lost_hour"]
    assert hour["processed"] == hour["jobs"] == 60
    assert hour["lost"] > 60
    assert 0 < hour["calls"] < 60
    assert report["scheduled"]["processed"] == report["scheduled"]["jobs"] == 60
    assert report["breakage"]["parts"] == len(BREAKAGES)
    # Every part except Vault and pg_net stops the triggers from recording. A lock stops them until the first wait ends.
    assert report["breakage"]["healed"] >= 3 * 5 * 2
    assert (report["idle_calls"], report["unexplained"]) == (0, 0)
    assert report["settle_s"]["median"] > 0
    assert all(report["http_calls"].values())

    plan = make_plan(60, 1)
    planned = {fault.kind for fault in plan.http} | set(plan.wake_ups) | {mishap for _, mishap in plan.mishaps}
    assert set(report["faults"]) == planned | LOAD | {"wake_up_reordered"}
    assert all(report["faults"].values())
    assert "started twice                    0" in output
