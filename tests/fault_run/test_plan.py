from __future__ import annotations

import pytest

from local.fault_run.plan import make_plan


def test_the_same_seed_makes_the_same_plan_and_another_seed_another_plan() -> None:
    assert make_plan(200, 5) == make_plan(200, 5)
    assert make_plan(200, 5) != make_plan(200, 6)


@pytest.mark.parametrize("uploads", [30, 60, 1000])
def test_every_kind_of_fault_is_planned_and_faults_hit_less_than_a_tenth_of_all_requests(uploads: int) -> None:
    plan = make_plan(uploads, 1)

    assert all(fault.at for fault in plan.http)
    assert all(plan.wake_ups.values())
    assert {mishap for _, mishap in plan.mishaps} == {
        "function_killed",
        "database_killed",
        "queue_lost",
        "queue_sent_twice",
        "payment_required",
    }
    assert {step.change for step in plan.steps} == {"upload", "overwrite", "rename", "delete"}
    # An upload means three jobs, each with a start, checks and reads, and its part of claims, reports and signatures.
    planned = sum(len(fault.at) for fault in plan.http) + sum(map(len, plan.wake_ups.values())) + len(plan.mishaps)
    assert planned < 0.1 * uploads * 3 * 6


def test_no_request_gets_two_faults() -> None:
    plan = make_plan(1000, 1)
    for group in {(fault.origin, fault.method, fault.path) for fault in plan.http}:
        places = [fault.at for fault in plan.http if (fault.origin, fault.method, fault.path) == group]
        assert len(frozenset.union(*places)) == sum(map(len, places))


def test_an_object_is_uploaded_first_and_deleted_last() -> None:
    plan = make_plan(500, 3)
    for item in range(500):
        changes = [step.change for step in plan.steps if step.item == item]
        assert changes[0] == "upload"
        assert "delete" not in changes[:-1]


def test_twice_the_pace_halves_the_time_and_the_faults_of_wake_ups() -> None:
    slow, quick = make_plan(2000, 1, 10), make_plan(2000, 1, 20)
    assert slow.steps == quick.steps
    assert slow.seconds == 2 * quick.seconds == len(slow.steps) / 10
    assert len(slow.wake_ups["wake_up_dropped"]) == round(0.1 * int(slow.seconds))
    assert len(quick.wake_ups["wake_up_dropped"]) == round(0.1 * int(quick.seconds))


@pytest.mark.parametrize(("uploads", "pace", "message"), [(29, 12, "30 uploads"), (30, 0, "pace"), (30, -1, "pace")])
def test_too_few_uploads_or_no_pace_are_refused(uploads: int, pace: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(uploads, 1, pace)
