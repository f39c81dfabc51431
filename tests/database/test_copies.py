"""A database that was restored or branched from another starts nothing at the other's functions."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from local.postgres import Postgres
from tests.database.playing import Play
from tests.database.project import ON_UPLOAD, PUSH_BACK, TASK, Project
from tests.database.rows import rows


@contextmanager
def copied_elsewhere(database: Project) -> Iterator[Project]:
    """Another database with the same contents, as a restored dump or a branch with data has them."""
    admin = psycopg.connect(database.postgres.dsn("supabase_admin", "template1"), autocommit=True)
    with admin:
        database.close()
        try:
            admin.execute("create database branch template postgres owner postgres")
            admin.execute(SQL("alter database branch set search_path = {}").format(SQL('"$user", public, extensions')))
        finally:
            database.reconnect()
        branch = Project(database.postgres, "branch")
        try:
            yield branch
        finally:
            branch.close()
            admin.execute(SQL("drop database {}").format(Identifier("branch")))


@contextmanager
def copied_files(database: Project, directory: Path) -> Iterator[Project]:
    """A server on a copy of the cluster's files, as a restored physical backup is."""
    server = database.postgres
    copy = server._home / directory.name
    command = [server._program("pg_basebackup"), "--pgdata", str(copy), "--dbname", server.dsn("supabase_admin")]
    command += ["--checkpoint", "fast", "--wal-method", "fetch", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, **server._as_user())
    with Postgres.start(copy, binaries=server._binaries) as other:
        project = Project(other)
        yield project
        project.close()


def test_an_installation_knows_where_it_is(database: Project) -> None:
    here = database.value("select ittybit.here()")
    cluster = database.value("select system_identifier from pg_control_system()")
    number = database.value("select oid from pg_database where datname = 'postgres'")
    assert here == f"{cluster}/{number}"
    assert database.value("select home from ittybit.settings") == here
    assert database.value("select ittybit.is_copy()") is False


def test_where_the_cluster_may_not_be_asked_for_the_databases_number_must_do(database: Project) -> None:
    database.superuser.execute("revoke execute on function pg_control_system() from public")
    try:
        assert database.value("select ittybit.here()").startswith("-/")
    finally:
        database.superuser.execute("grant execute on function pg_control_system() to public")


def test_a_dump_restored_beside_the_original_starts_nothing_until_it_is_adopted(database: Project) -> None:
    database.settings(project="https://ref.supabase.co")
    database.rule()
    database.put("a.mp4")
    [sent] = database.messages()
    database.settings(nudge=False)
    database.put("b.mp4")
    database.settings(nudge=True)

    with copied_elsewhere(database) as branch:
        # Until the sender has run once, an upload calls the original's function, which knows nothing of the job.
        branch.put("early.mp4")
        [early] = branch.messages()
        assert database.claim(early["body"]["job"], 1) == {"claimed": False, "reason": "unknown"}
        branch.make_due()
        # One message asks whose functions these are. They are the original's, and do nothing that it has not sent.
        assert branch.send() == 1
        [question] = branch.messages()
        before = database.jobs()
        answer = database.claim(question["body"]["job"], question["body"]["attempt"])
        assert answer in [{"claimed": False, "reason": reason} for reason in ("unknown", "lost")]
        assert database.jobs() == before

        # From then on an upload is recorded, and nobody is called.
        branch.put("c.mp4")
        branch.sql("select ittybit.sweep_page()")
        assert (branch.send(), branch.messages(), branch.warnings) == (0, [], [])
        assert branch.value("select value from ittybit.status where what = 'starting'") == (
            "COPY, restored or moved from where it was set up (https://ref.supabase.co): nothing starts until its"
            " functions are found to work for this database, or ./deploy.sh database is told what it is"
        )
        assert (
            branch.value("select because from ittybit.explain('uploads', 'c.mp4')")
            == "this database is not the one it was set up in, and starts nothing until its functions claim here"
        )

        assert branch.value("select ittybit.adopt(as_copy => true)") == 3
        assert sorted(branch.states()) == [
            ("a.mp4", "skipped", "copied"),
            ("b.mp4", "skipped", "copied"),
            ("c.mp4", "queued", None),
            ("early.mp4", "skipped", "copied"),
        ]
        [settings] = branch.sql("select on_upload_url, push_back_url, copied_at from ittybit.settings")
        assert settings == {"on_upload_url": None, "push_back_url": None, "copied_at": None}
        assert branch.send() == 0

        # With functions of its own it goes on; what was skipped can be asked for.
        branch.settings(on_upload_url=ON_UPLOAD)
        assert branch.send() == 1
        branch.sql("select ittybit.retry(id) from ittybit.jobs where reason = 'copied'")
        assert branch.send() == 3

    # The original has noticed nothing.
    assert database.claim(sent["body"]["job"], 1)["claimed"]
    assert database.send() == 1


def test_a_copy_of_the_files_starts_nothing_that_the_original_does_not(database: Project, tmp_path: Path) -> None:
    database.rule(path="*")
    database.rule("stills", path="stills/*", task=TASK)
    database.put("sent.mp4")
    database.put("started.mp4")
    database.started("started.mp4", "run_1")
    database.put("claimed.mp4")
    claimed = database.job("claimed.mp4")
    assert database.claim(claimed["id"], 1)["claimed"]
    database.settings(nudge=False)
    database.put("queued.mp4")
    database.settings(nudge=True)
    database.messages()

    with copied_files(database, tmp_path) as copy:
        # It cannot tell, and sends as the original would.
        assert copy.value("select ittybit.is_copy()") is False
        copy.put("new.mp4", "stills/new.mp4")
        for _ in range(3):
            copy.make_due()
            copy.send()
        messages = [message["body"] for message in copy.messages()]
        new = {job["id"] for job in copy.jobs() if "new" in job["name"]}
    assert len(messages) == 2 + 3 * 6

    # Its functions are the original's, which claim in the original's ledger.
    before = database.jobs()
    for message in messages:
        reason = "unknown" if message["job"] in map(str, new) else "lost"
        assert database.claim(message["job"], message["attempt"]) == {"claimed": False, "reason": reason}
    assert database.jobs() == before

    # Late or early, what the copy sent wins at most what the original has sent as well, once.
    database.make_due()
    assert database.send() == 4
    own = [message["body"] for message in database.messages()]
    answers = [database.claim(message["job"], message["attempt"]) for message in messages + own]
    won = [answer["step"] for answer in answers if answer["claimed"]]
    assert sorted(won) == ["check", "start", "start", "start"]
    looked_for = [answer["look_since"] is not None for answer in answers if answer.get("step") == "start"]
    assert sorted(looked_for) == [False, False, True]

    # And the original goes on from there by itself.
    database.make_due()
    assert database.send() == 4
    assert all(
        database.claim(message["body"]["job"], message["body"]["attempt"])["claimed"] for message in database.messages()
    )


def test_a_moved_database_goes_on_by_itself_when_its_functions_claim_in_it(database: Project) -> None:
    database.rule()
    database.rule("stills", task=TASK)
    database.put("under way.mp4")
    database.messages()
    database.settings(nudge=False)
    database.put("a.mp4", "b.mp4")
    database.settings(home="elsewhere/5")

    assert database.send() == 1
    [question] = database.messages()
    answer = database.claim(question["body"]["job"], question["body"]["attempt"])
    assert (answer["claimed"], answer["look_since"] is not None) == (True, True)
    assert database.value("select ittybit.is_copy()") is False
    # What may have started since it was saved is looked for, and everything is sent.
    assert all(job["doubt_since"] for job in database.jobs())
    assert database.counted_starts() == 6
    assert database.send() == 3


def test_of_many_claims_at_once_in_a_moved_database_each_wins_and_one_adopts(database: Project) -> None:
    database.rule()
    names = [f"{number}.mp4" for number in range(12)]
    database.put(*names)
    jobs = {job["name"]: job["id"] for job in database.jobs()}
    database.messages()
    database.settings(home="elsewhere/5")
    answers = database.claims_at_once([(jobs[name], 1) for name in names])
    assert [answer["claimed"] for answer in answers] == [True] * 12
    assert database.value("select ittybit.is_copy()") is False
    assert database.counted_starts() == 12


def test_whose_functions_these_are_is_asked_every_ten_minutes_at_the_most(database: Project) -> None:
    database.rule()
    database.settings(nudge=False)
    database.put("a.mp4", "b.mp4")
    database.settings(home="elsewhere/5")
    assert [database.send() for _ in range(3)] == [1, 0, 0]
    [asked] = [job for job in database.jobs() if job["attempt"] == 1]
    wait = database.value("select extract(epoch from due_at - now()) from ittybit.jobs where id = %s", asked["id"])
    assert 650 < wait <= 660
    # Unanswered, the next one is asked.
    database.sql("update ittybit.jobs set due_at = due_at - interval '10 minutes'")
    assert [database.send() for _ in range(3)] == [1, 0, 0]
    assert database.value("select ittybit.is_copy()") is True


@pytest.mark.parametrize("functions", [{"on_upload_url": None}, {"push_back_url": None}], ids=["its own", "another's"])
def test_only_a_function_that_has_an_address_is_asked(database: Project, functions: dict[str, None]) -> None:
    database.rule()
    database.settings(nudge=False)
    database.put("a.mp4")
    database.settings(home="elsewhere/5", **functions)
    assert database.send() == (0 if "on_upload_url" in functions else 1)


def test_a_copy_whose_vault_cannot_be_read_asks_nobody_and_its_sender_goes_on(database: Project) -> None:
    database.rule()
    database.settings(nudge=False)
    database.put("a.mp4")
    database.settings(home="elsewhere/5")
    with database.connect("postgres") as connection, connection.transaction(force_rollback=True):
        connection.add_notice_handler(database.note)
        connection.execute("delete from vault.secrets")
        sent = [rows(connection, "select ittybit.send_due() as calls") for _ in range(2)]
        [settings] = rows(connection, "select copied_at from ittybit.settings")
    assert sent == [[{"calls": 0}]] * 2
    assert settings["copied_at"] is not None
    [warning] = database.warnings
    assert "could not ask whose functions these are" in warning


def test_a_message_that_is_old_or_unknown_adopts_nothing(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.started("a.mp4", "run_1")
    database.settings(home="elsewhere/5")
    assert database.claim(database.job()["id"], 1) == {"claimed": False, "reason": "lost"}
    assert database.claim(uuid.uuid4(), 1) == {"claimed": False, "reason": "unknown"}
    assert database.value("select ittybit.is_copy()") is True


def test_what_had_started_since_it_was_saved_is_not_started_again(database: Project) -> None:
    play = Play(database)
    # After the backup was made.
    mark = f"{play.job}.1"
    play.begin(mark)

    database.settings(home="elsewhere/5")
    assert database.value("select ittybit.adopt(as_copy => false)") == 1
    assert database.value("select ittybit.is_copy()") is False
    play.settle()
    assert (play.state(), play.journal) == ("succeeded", [mark])
    assert database.counted_starts() == 1


def test_going_on_keeps_the_addresses_and_a_second_time_changes_nothing(database: Project) -> None:
    Play(database)
    database.sql("select ittybit.adopt(as_copy => false)")
    before = database.jobs(), database.counted_starts(), database.sql("select * from ittybit.settings")
    database.sql("select ittybit.adopt(as_copy => false)")
    assert (database.jobs(), database.counted_starts(), database.sql("select * from ittybit.settings")) == before
    assert before[2][0]["on_upload_url"] == ON_UPLOAD
    assert before[2][0]["push_back_url"] == PUSH_BACK


def test_a_copys_backfill_stops(database: Project) -> None:
    database.settings(nudge=False)
    database.put("a.mp4", "b.mp4")
    database.rule()
    database.sql("delete from ittybit.jobs")
    database.sql("select ittybit.backfill('clips', run => true)")
    database.sql("select ittybit.adopt(as_copy => true)")
    database.settings(on_upload_url=ON_UPLOAD)
    assert database.value("select ittybit.backfill_page()") == 0
    assert database.value("select state from ittybit.backfills") == "stopped"
    assert database.jobs() == []


def test_only_the_developer_may_adopt(database: Project) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.service.execute("select ittybit.adopt(true)")
