"""An upload waits at most 200 ms for a row of the ledger, so a call that has locked rows must not wait longer."""

from __future__ import annotations

import threading
import uuid

import pytest
from psycopg.types.json import Jsonb

from tests.database.project import Project, claim, report
from tests.waiting import until

HOLDERS = {
    "the turn to claim": "select pg_advisory_xact_lock(hashtextextended('ittybit claim', 0))",
    "the last job's row": "select from ittybit.jobs order by id desc limit 1 for update",
}


@pytest.mark.parametrize("call", ["claim", "report"])
@pytest.mark.parametrize("held", HOLDERS.values(), ids=HOLDERS)
def test_a_rename_is_recorded_while_reports_of_its_batch_wait(database: Project, held: str, call: str) -> None:
    database.rule()
    database.put("a.mp4", "b.mp4")
    reports = [report(lease, "started", ittybit_id=f"runs/{lease['name']}") for lease in database.claim()]
    first = min(reports, key=lambda one: str(one["job"]))
    name = database.value("select name from ittybit.jobs where id = %s", uuid.UUID(first["job"]))

    def send() -> None:
        with database.connect("authenticator") as connection:
            connection.execute("set role service_role")
            if call == "claim":
                claim(connection, "on-upload", 100, *reports)
            else:
                connection.execute("select public.ittybit_report(%s)", [Jsonb(reports)])

    sender = threading.Thread(target=send)
    with database.connect("supabase_admin") as holder, holder.transaction():
        holder.execute(held.encode())
        sender.start()
        until(lambda: not sender.is_alive() or database.value("select exists (select from pg_locks where not granted)"))
        database.move(name, "renamed.mp4")
    sender.join()

    assert database.warnings == []
    assert sorted(job["name"] for job in database.jobs()) == sorted({"a.mp4", "b.mp4", "renamed.mp4"} - {name})
