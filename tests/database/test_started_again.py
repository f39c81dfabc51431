"""A start that failed because its object was renamed meanwhile happens once more, under the new name."""

from __future__ import annotations

from tests.database.project import Project


def test_what_was_started_for_a_former_name_and_failed_starts_once_more(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    job = database.started("a.mp4", "runs/1")
    database.move("a.mp4", "b.mp4")
    lease = database.next_lease()

    assert "refused" not in database.report(lease, "failed", ittybit_id="runs/1", error={"message": "No such file."})

    [again] = database.claim()
    assert (again["step"], again["name"], again["generation"]) == ("start", "b.mp4", job["generation"] + 1)
    database.report(again, "failed", error={"message": "No such file."})
    assert database.states() == [("b.mp4", "failed", "ittybit_failed")]
