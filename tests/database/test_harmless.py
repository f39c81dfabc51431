"""Storage works when a part of this project is broken, and a warning says what could not be done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.database.project import TASK, Project
from tests.database.rows import Connection, put

# Each is rolled back.
BROKEN = {
    "no Vault": "drop schema vault cascade",
    "no pg_net": "drop schema net cascade",
    "the schema of pg_net renamed": "alter schema net rename to net_2",
    "no pgcrypto": "drop schema extensions cascade",
    "no address": "update ittybit.functions set url = 'http:///a'",
    "no ledger": "drop table ittybit.jobs cascade",
    "no outputs": "drop table ittybit.outputs cascade",
    "no functions": "drop table ittybit.functions cascade",
    "no sequences": "drop sequence ittybit.on_upload_woken, ittybit.push_back_woken cascade",
    "no rules": "drop table ittybit.rules cascade",
    "no settings": "drop table ittybit.settings cascade",
    "our schema renamed": "alter schema ittybit rename to ittybit_2",
    "a rule's column gone": "alter table ittybit.rules drop column path_pattern cascade",
    "a rule's task renamed": "alter table ittybit.rules rename column task to job",
    "a job's column renamed": "alter table ittybit.jobs rename column in_doubt_since to doubt",
    "a ledger that refuses every row": "alter table ittybit.jobs add constraint never check (false) not valid",
    "a function gone": "drop function ittybit.record_job",
    "older functions gone": "drop function ittybit.reason_to_skip, ittybit.release_output",
    "nothing granted": "revoke all on all tables in schema ittybit from postgres",
}
# The upload is recorded although these are missing.
INCOMPLETE = {
    "an empty Vault": "delete from vault.secrets",
    "no row of settings": "delete from ittybit.settings",
    "no owner_id": "alter table storage.objects drop column owner_id",
    "no delete markers": "alter table storage.objects drop column is_delete_marker, drop column is_versioned",
    "no user_metadata": "alter table storage.objects drop column user_metadata",
}


@contextmanager
def broken(database: Project, statement: str) -> Iterator[Connection]:
    """Break something, and give a connection that then writes rows as storage-api does."""
    connection = database.connect("supabase_admin")
    connection.add_notice_handler(database.note)
    with connection, connection.transaction(force_rollback=True):
        connection.execute("set local client_min_messages = 'warning'")
        # No function was woken just now.
        connection.execute("select setval('ittybit.on_upload_woken', 0), setval('ittybit.push_back_woken', 0)")
        connection.execute(statement.encode())
        connection.execute(
            "select set_config('role', 'supabase_storage_admin', true),"
            " set_config('storage.allow_delete_query', 'true', true)"
        )
        yield connection


def stored(connection: Connection) -> list[str]:
    return [row["name"] for row in connection.execute("select name from storage.objects order by name").fetchall()]


@pytest.mark.parametrize("statement", BROKEN.values(), ids=BROKEN)
def test_storage_works_and_warns_when_a_part_of_this_project_is_missing(database: Project, statement: str) -> None:
    database.rule("automation")
    database.rule("task", task=TASK)
    database.put("old.mp4", "moved.mp4", "deleted.mp4")
    with broken(database, statement) as connection:
        put(connection, "new.mp4", "old.mp4")
        connection.execute("update storage.objects set name = 'to.mp4', version = 'v' where name = 'moved.mp4'")
        connection.execute("delete from storage.objects where name = 'deleted.mp4'")
        assert stored(connection) == ["new.mp4", "old.mp4", "to.mp4"]
    assert database.warnings
    assert all(warning.startswith("ittybit: ") for warning in database.warnings)


@pytest.mark.parametrize("statement", INCOMPLETE.values(), ids=INCOMPLETE)
def test_an_upload_is_recorded_although_something_is_missing(database: Project, statement: str) -> None:
    database.rule()
    with broken(database, statement) as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version, metadata)"
            " values ('uploads', 'a.mp4', 'v', '{\"size\": 1000}')"
        )
        connection.execute("reset role")
        assert connection.execute("select name, state from ittybit.jobs").fetchall() == [
            {"name": "a.mp4", "state": "queued"}
        ]


@pytest.mark.parametrize(
    "statement",
    [BROKEN["no pg_net"], BROKEN["no Vault"], BROKEN["no address"], INCOMPLETE["an empty Vault"]],
    ids=["no pg_net", "no Vault", "no address", "an empty Vault"],
)
def test_a_job_is_due_at_once_even_if_its_wake_up_cannot_be_sent(database: Project, statement: str) -> None:
    database.rule("automation")
    database.rule("task", task=TASK)
    with broken(database, statement) as connection:
        put(connection, "a.mp4")
        connection.execute("reset role")
        jobs = connection.execute("select state, due_at <= clock_timestamp() as due from ittybit.jobs").fetchall()
    assert jobs == [{"state": "queued", "due": True}] * 2
    assert [warning.partition(" for ")[0] for warning in database.warnings] == ["ittybit: no wake-up"] * 2


def test_an_empty_vault_is_named_in_the_warning(database: Project) -> None:
    database.rule()
    with broken(database, INCOMPLETE["an empty Vault"]) as connection:
        put(connection, "a.mp4")
    [warning] = database.warnings
    assert 'no secret "ittybit_functions_secret" in Vault' in warning


def test_a_rule_that_fails_does_not_stop_the_others(database: Project) -> None:
    database.rule("a")
    database.rule("b", task=TASK)
    database.rule("c")
    with broken(database, "alter table ittybit.jobs add constraint no_tasks check (not action ? 'task')") as connection:
        put(connection, "a.mp4")
        connection.execute("reset role")
        jobs = connection.execute("select rule from ittybit.jobs order by rule").fetchall()
    assert jobs == [{"rule": "a"}, {"rule": "c"}]
    [warning] = database.warnings
    assert warning.startswith("ittybit: rule b missed uploads/a.mp4: ")


@pytest.mark.parametrize("function", ["object_stored", "object_removed"])
def test_a_trigger_waits_200_ms_for_a_lock(database: Project, function: str) -> None:
    settings = database.value("select proconfig from pg_proc where oid = to_regproc(%s)", f"ittybit.{function}")
    assert "lock_timeout=200ms" in settings


@pytest.mark.parametrize("table", ["jobs", "rules", "settings", "outputs"])
def test_a_locked_table_delays_a_transaction_only_once(database: Project, table: str) -> None:
    database.rule("automation")
    database.rule("task", task=TASK)
    old = [f"old/{number}.mp4" for number in range(200)]
    new = [f"new/{number}.mp4" for number in range(50)]
    database.put(*old)
    with database.connect("postgres") as other, other.transaction():
        other.execute(f"lock table ittybit.{table} in access exclusive mode".encode())
        began = time.monotonic()
        with database.writing("storage.object.delete_many") as connection:
            connection.execute("delete from storage.objects where name = any (%s)", [old])
            put(connection, *new)
        took = time.monotonic() - began
    assert took < 10  # one wait for each row would take 50 s
    assert database.value("select count(*) from storage.objects") == len(new)
    assert 1 <= len(database.warnings) <= 2
    assert all("canceling statement due to lock timeout" in warning for warning in database.warnings)

    # The next transaction records again.
    database.put("after.mp4")
    assert [job["state"] for job in database.jobs("after.mp4")] == ["queued", "queued"]


def test_a_locked_job_delays_an_overwrite_briefly_and_the_new_job_is_recorded(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    with database.connect("postgres") as other, other.transaction():
        other.execute("select from ittybit.jobs for update")
        began = time.monotonic()
        database.put("a.mp4")
        took = time.monotonic() - began
    assert took < 5  # the lock is held until then
    assert [job["state"] for job in database.jobs()] == ["queued", "queued"]
    assert len(database.warnings) == 1
