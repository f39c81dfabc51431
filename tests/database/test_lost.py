"""Leases that end without a report: what may have killed the function is claimed alone, and holds up nobody else."""

from __future__ import annotations

from tests.database.project import Project
from tests.database.rows import Row


def names(leases: list[Row]) -> list[str]:
    return [lease["name"] for lease in leases]


def lose(database: Project, times: int) -> None:
    """Let whatever is leased end without a report so many times, as a function does that is killed."""
    for _ in range(times):
        database.claim()
        database.sql("update ittybit.jobs set due_at = now() where claimed_at is not null")


def test_jobs_that_were_lost_twice_go_one_at_a_time_and_the_others_together(database: Project) -> None:
    database.rule()
    database.put("first.mp4", "second.mp4")
    lose(database, 1)
    assert names(database.claim()) == ["first.mp4", "second.mp4"]
    database.sql("update ittybit.jobs set due_at = now() where claimed_at is not null")
    database.put("new.mp4", "newer.mp4")

    [alone] = database.claim()
    assert database.work() == 2
    assert names(database.claim()) == ["new.mp4", "newer.mp4"]
    assert database.claim() == []

    [other] = database.claim("on-upload", 100, {**alone, "outcome": "started", "ittybit_id": "runs/1"})
    assert {alone["name"], other["name"]} == {"first.mp4", "second.mp4"}
    assert other["attempt"] == 3


def test_one_that_is_lost_again_lets_the_next_have_its_turn(database: Project) -> None:
    database.rule()
    database.put("first.mp4", "second.mp4")
    lose(database, 2)
    [first] = database.claim()
    assert database.claim() == []
    database.sql("update ittybit.jobs set claimed_at = claimed_at - interval '1 minute' where lost > 1")
    [second] = database.claim()
    assert first["name"] != second["name"]
