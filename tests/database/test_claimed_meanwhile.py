"""A rename and a claim of the same job at the same moment: in either order, the content is started once."""

from __future__ import annotations

import threading

from tests.database.project import Project, claim
from tests.waiting import until


def test_a_rename_during_a_claim_keeps_the_claimed_job(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    renaming = threading.Thread(target=database.move, args=("a.mp4", "b.mp4"))

    with database.connect("authenticator") as claiming, claiming.transaction():
        claiming.execute("set local role service_role")
        [lease] = claim(claiming, "on-upload", 100)
        renaming.start()
        until(lambda: database.value("select exists (select from pg_locks where not granted)"))
    renaming.join()

    [job] = database.jobs()
    assert (job["name"], job["former_name"], str(job["id"])) == ("b.mp4", "a.mp4", lease["job"])
    assert database.claim() == []
    assert "refused" not in database.report(lease, "started", ittybit_id="runs/1")


def test_a_claim_during_a_rename_leaves_its_job_to_the_next_claim(database: Project) -> None:
    database.rule()
    database.put("a.mp4")

    with database.writing("storage.object.move") as connection:
        connection.execute("update storage.objects set name = 'b.mp4', version = 'b' where name = 'a.mp4'")
        assert database.claim() == []

    [lease] = database.claim()
    assert lease["name"] == "b.mp4"
    assert database.states() == [("a.mp4", "skipped", "moved"), ("b.mp4", "queued", None)]
