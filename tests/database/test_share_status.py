"""The shared status shows users the jobs of their own files, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import psycopg
import pytest

from local.functions import ROOT
from tests import documents
from tests.database.project import TASK, Project
from tests.database.rows import Row
from tests.database.test_install import schema
from tests.database.without_triggers import triggers_off

ADA, BOB = "8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e", "0c1d7c1e-5e3f-4c53-9a6c-b6c7f3f2a111"
COLUMNS = {"id", "bucket_id", "name", "rule", "kind", "state", "progress", "reason", "results"}
COLUMNS |= {"created_at", "started_at", "finished_at"}


def run(database: Project, file: str) -> None:
    """Run one of deploy's files as the developer does: in one transaction, with an empty search path."""
    with database.developer.transaction():
        database.developer.execute("set local search_path = ''")
        database.developer.execute((ROOT / "deploy" / file).read_bytes())


@pytest.fixture(scope="module")
def shared(database: Project) -> Iterator[Project]:
    before = schema(database)
    for _ in range(2):
        run(database, "share_status.sql")
    yield database
    for _ in range(2):
        run(database, "unshare_status.sql")
    assert schema(database) == before
    assert policies(database) == []


def policies(database: Project) -> list[Row]:
    return database.sql("select from pg_policies where schemaname = 'realtime'")


def ask(database: Project, statement: str, user: str | None = ADA, role: str = "authenticated") -> list[Row]:
    """The rows that a statement returns over the Data API."""
    claims = {"role": role} | ({"sub": user} if user else {})
    with database.connect("authenticator") as connection, connection.transaction():
        connection.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
            [role, json.dumps(claims)],
        )
        return connection.execute(statement.encode()).fetchall()


def seen(database: Project, user: str | None = ADA) -> dict[str, Row]:
    """The files that a user sees, by name."""
    return {row["name"]: row for row in ask(database, "select * from public.ittybit_files", user)}


def test_users_see_the_state_of_their_own_files(shared: Project) -> None:
    shared.rule(task=TASK)
    shared.put("ada.mp4", owner_id=ADA)
    row = seen(shared)["ada.mp4"]
    assert (set(row), row["state"], row["progress"], row["kind"]) == (COLUMNS, "queued", None, "video")

    shared.started("ada.mp4", "tasks/task_secret")
    shared.report(shared.next_lease(), "started", ittybit_id="tasks/task_secret", progress=41.7)
    row = seen(shared)["ada.mp4"]
    assert (row["state"], row["progress"], row["started_at"] is None) == ("started", 41, False)
    outputs = ["s3://results/ada.mp4"]
    shared.report(shared.next_lease(), "succeeded", ittybit_id="tasks/task_secret", outputs=outputs)
    row = seen(shared)["ada.mp4"]
    assert (row["state"], row["results"], row["reason"]) == ("succeeded", outputs, None)
    assert "task_secret" not in str(row)

    shared.put("bob.mp4", owner_id=BOB)
    shared.put("nobody.mp4")
    assert set(seen(shared)) == {"ada.mp4"}
    assert set(seen(shared, BOB)) == {"bob.mp4"}
    assert seen(shared, None) == {}


def test_a_failure_is_described_without_ittybits_message(shared: Project) -> None:
    shared.rule()
    shared.put("ada.mp4", owner_id=ADA)
    [lease] = shared.claim()
    error = {"status": 422, "kind": "invalid", "message": "secret"}
    shared.report(lease, "failed", reason="ittybit_failed", error=error)
    row = seen(shared)["ada.mp4"]
    assert (row["state"], row["reason"].startswith("This file could not be processed. ")) == ("failed", True)
    assert "secret" not in str(row)


def test_each_documented_reason_is_described_in_a_sentence(shared: Project) -> None:
    sections = documents.sections((ROOT / "docs" / "errors.md").read_text())
    shared.rule()
    for state, heading in (("failed", "Why it failed"), ("skipped", "Why it was skipped")):
        reasons = [documents.code(cells[0])[0] for cells in documents.tables(sections[heading])[0][1:]]
        assert len(reasons) > 3
        for reason in reasons:
            shared.put(f"{reason}.mp4", owner_id=ADA)
            change = "update ittybit.jobs set state = %s, reason = %s, due_at = null where name = %s"
            shared.sql(change, state, reason, f"{reason}.mp4")
            words = seen(shared)[f"{reason}.mp4"]["reason"]
            assert re.fullmatch(r"(Files|This|There|Nobody|Processing|The) .+\.", words), reason
            assert reason not in words.split()


def test_a_name_that_another_user_took_over_shows_only_the_owners_jobs(shared: Project) -> None:
    shared.rule()
    shared.put("a.mp4", owner_id=BOB, etag="1")
    # With the same bytes the started job stays, and belongs to the new owner.
    shared.started("a.mp4", "tasks/1")
    shared.put("a.mp4", owner_id=ADA, etag="1")
    assert (set(seen(shared)), set(seen(shared, BOB))) == ({"a.mp4"}, set())
    # Other bytes get a new job.
    shared.put("a.mp4", owner_id=BOB, etag="2")
    assert (set(seen(shared)), set(seen(shared, BOB))) == (set(), {"a.mp4"})
    shared.put("a.mp4", owner_id=ADA, etag="3")
    shared.move("a.mp4", "b.mp4")
    assert set(seen(shared)) == {"b.mp4"}
    shared.delete("b.mp4")
    assert seen(shared) == {}


# What a user may try -------------------------------------------------------------------------------------------------

REFUSED = [
    "select * from ittybit.shared_files",
    "select * from ittybit.jobs",
    "select owner_id from public.ittybit_files",
    "update public.ittybit_files set state = 'queued'",
    "insert into public.ittybit_files (name) values ('x')",
    "delete from public.ittybit_files",
    "create or replace view public.ittybit_files as select 1 as id",
    "alter view public.ittybit_files set (security_barrier = false)",
    "create table public.mine (like public.ittybit_files)",
    "set role postgres",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_users_can_do_nothing_but_read_the_view(shared: Project, statement: str) -> None:
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedColumn)):
        ask(shared, statement)


@pytest.mark.parametrize("role", ["anon", "service_role"])
def test_only_signed_in_users_can_read_the_view(shared: Project, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(shared, "select from public.ittybit_files", ADA, role)


def peek_by_function(database: Project) -> list[str]:
    """Use a condition that calls a function of one's own, which is cheap and reports each row."""
    rows: list[str] = []
    with database.connect("authenticator") as connection, connection.transaction():
        connection.add_notice_handler(lambda notice: rows.append(notice.message_primary or ""))
        connection.execute(
            "create function pg_temp.peek(name text) returns boolean language plpgsql cost 0.0000001 as"
            " $$ begin raise notice '%%', name; return true; end $$".replace("%%", "%").encode()
        )
        # Without an index, only the planner decides the order of the conditions.
        connection.execute("set local enable_indexscan = off; set local enable_bitmapscan = off")
        connection.execute(
            "select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)",
            [json.dumps({"sub": ADA})],
        )
        connection.execute("select from public.ittybit_files where pg_temp.peek(name)")
    return rows


def peek_by_error(database: Project) -> list[str]:
    """Use a condition that fails at another user's row."""
    ask(database, "select from public.ittybit_files where 1 / (case name when 'bob.mp4' then 0 else 1 end) = 1")
    return []


def peek_by_subject(database: Project) -> list[str]:
    """Sign in with a user's id that is empty, SQL, or no uuid."""
    for user in ("", f"{ADA}' or true --", "null"):
        try:
            assert ask(database, "select name from public.ittybit_files", user) == []
        except psycopg.errors.InvalidTextRepresentation:
            continue
    return []


@pytest.mark.parametrize("peek", [peek_by_function, peek_by_error, peek_by_subject])
def test_no_condition_reveals_another_users_row(shared: Project, peek: Callable[[Project], list[str]]) -> None:
    shared.rule()
    shared.put("bob.mp4", owner_id=BOB)
    shared.put("nobody.mp4")
    assert peek(shared) == []


def test_a_users_rows_are_found_by_an_index(shared: Project) -> None:
    with shared.developer.transaction():
        shared.developer.execute("set local enable_seqscan = off")
        plan = shared.sql("explain select * from public.ittybit_files order by created_at desc limit 20")
    assert "jobs_owner" in str(plan)


# Broadcasts ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _silence(shared: Project) -> None:
    shared.superuser.execute("delete from realtime.messages")


def broadcasts(database: Project) -> list[Row]:
    """Take the messages that were broadcast, oldest first."""
    taken = database.superuser.execute("delete from realtime.messages returning *").fetchall()
    assert all((row["private"], row["event"], row["extension"]) == (True, "file", "broadcast") for row in taken)
    assert all(set(row["payload"]) == COLUMNS for row in taken)
    return sorted(taken, key=lambda row: (row["inserted_at"], row["topic"]))


def test_each_change_is_broadcast_to_the_owner_only(shared: Project) -> None:
    shared.rule()
    shared.put("ada.mp4", owner_id=ADA)
    shared.put("nobody.mp4")
    shared.put("bob.mp4", owner_id=BOB)
    heard = [(row["topic"], row["payload"]["name"], row["payload"]["state"]) for row in broadcasts(shared)]
    assert heard == [(f"ittybit:{ADA}", "ada.mp4", "queued"), (f"ittybit:{BOB}", "bob.mp4", "queued")]

    shared.started("ada.mp4", "tasks/1")
    [row] = broadcasts(shared)
    assert (row["topic"], row["payload"]["state"]) == (f"ittybit:{ADA}", "started")
    # A lease, and progress within the same whole percent, are not broadcast.
    shared.sql("update ittybit.jobs set progress = 7.1 where name = 'ada.mp4'")
    shared.sql("update ittybit.jobs set progress = 7.9, attempt = 9 where name = 'ada.mp4'")
    assert [row["payload"]["progress"] for row in broadcasts(shared)] == [7]


def hears(database: Project, topic: str, user: str | None, role: str = "authenticated") -> bool:
    """Whether Realtime lets a user join a channel: it writes a message, and looks whether the user can read it."""
    with database.connect("supabase_admin") as connection, connection.transaction(force_rollback=True):
        connection.execute(
            "insert into realtime.messages (topic, extension, private) values (%s, 'broadcast', true)", [topic]
        )
        claims = json.dumps({"role": role} | ({"sub": user} if user else {}))
        settings = "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)"
        connection.execute(settings + ", set_config('realtime.topic', %s, true)", [role, claims, topic])
        return connection.execute("select from realtime.messages").fetchone() is not None


def test_users_can_join_only_their_own_channel(shared: Project) -> None:
    assert hears(shared, f"ittybit:{ADA}", ADA)
    for topic in (f"ittybit:{BOB}", "ittybit:", "ittybit:%", f"ittybit:{ADA}:more", ADA, "other"):
        assert not hears(shared, topic, ADA), topic
    assert not hears(shared, f"ittybit:{ADA}", None)
    assert not hears(shared, "ittybit:", None)
    assert not hears(shared, f"ittybit:{ADA}", ADA, "anon")


def test_users_cannot_send_broadcasts(shared: Project) -> None:
    for channel in (ADA, BOB):
        message = f"select realtime.send('{{}}', 'file', 'ittybit:{channel}', true)"
        ask(shared, message)
    assert broadcasts(shared) == []


@pytest.mark.parametrize(
    ("breakage", "repair"),
    [
        ("alter schema realtime rename to gone", "alter schema gone rename to realtime"),
        ("alter table realtime.messages rename to gone", "alter table realtime.gone rename to messages"),
    ],
)
def test_an_upload_succeeds_when_the_broadcast_fails(shared: Project, breakage: str, repair: str) -> None:
    shared.rule()
    shared.superuser.execute(breakage.encode())
    try:
        shared.put("ada.mp4", owner_id=ADA)
    finally:
        shared.superuser.execute(repair.encode())
    assert shared.job("ada.mp4")["state"] == "queued"


def test_uploads_and_claims_do_not_wait_for_broadcasts(shared: Project) -> None:
    shared.rule()
    with shared.connect("supabase_admin") as other, other.transaction():
        other.execute("lock table realtime.messages in access exclusive mode")
        shared.storage.execute("set lock_timeout = '100ms'")
        try:
            shared.put("ada.mp4", owner_id=ADA)
        finally:
            shared.storage.execute("reset lock_timeout")
        assert (shared.job("ada.mp4")["state"], shared.warnings) == ("queued", [])
        # Uploads and reports have a lock timeout. A claim, which ends this job, has none.
        with triggers_off(shared):
            shared.superuser.execute("delete from storage.objects")
        shared.service.execute("set statement_timeout = '5s'")
        try:
            assert shared.claim() == []
        finally:
            shared.service.execute("reset statement_timeout")
    assert shared.job("ada.mp4")["reason"] == "gone"
    assert broadcasts(shared) == []
