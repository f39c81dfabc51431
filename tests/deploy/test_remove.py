"""./deploy.sh remove: the database is as it was before the installation, and no upload is disturbed."""

from __future__ import annotations

import subprocess

import pytest

from tests.deploy.developer import EVERY_POSTGRES, Developer
from tests.waiting import until

# The contents of tables that others use too: pg_dump leaves them out.
SHARED = (
    "select jobname, schedule, command from cron.job order by 1",
    "select command from cron.job_run_details",
    "select name from vault.secrets order by 1",
    "select url from net.http_request_queue",
    "select bucket_id, name, version from storage.objects order by 1, 2",
    "select id from storage.buckets order by 1",
)


def dump(developer: Developer) -> str:
    """The database's definitions and grants, as pg_dump writes them."""
    address = developer.server.dsn("supabase_admin", developer.project.name)
    command = [str(developer.server._binaries / "pg_dump"), "--schema-only", "--dbname", address]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Newer versions enclose the dump in a random word.
    return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def shared(developer: Developer) -> list[list[tuple[object, ...]]]:
    superuser = developer.project.superuser
    return [[tuple(row.values()) for row in superuser.execute(query.encode()).fetchall()] for query in SHARED]


def remove(developer: Developer, *arguments: str) -> str:
    return developer.deploy("--yes", "remove", *arguments).stderr


@EVERY_POSTGRES
def test_the_database_is_as_it_was_before_the_installation(developer: Developer) -> None:
    developer.add_bucket("uploads")
    project = developer.project
    project.put("before.mp4")
    project.sql("select vault.create_secret('theirs', 'another')")
    project.sql("select cron.schedule('another', '* * * * *', 'select 1')")
    before = dump(developer), shared(developer)

    developer.deploy("database")
    project.rule()
    project.put("a.mp4", "b.mp4")
    project.started("a.mp4", "run_1")
    project.superuser.execute(
        "insert into cron.job_run_details (jobid, runid, username, command)"
        " select jobid, jobid, username, command from cron.job"
    )
    assert dump(developer) != before[0]
    said = remove(developer)

    assert "  schema ittybit, with its rules (1) and jobs (2)\n    not started: 1, which will not start\n" in said
    assert "Nothing is left in the database." in said
    after = dump(developer), shared(developer)
    assert after[0] == before[0]
    files = [("uploads", name) for name in ("a.mp4", "b.mp4", "before.mp4")]
    assert [row[:2] for row in after[1][4]] == files
    assert after[1][1] == [("select 1",)]
    assert [after[1][n] for n in (0, 2, 3, 5)] == [before[1][n] for n in (0, 2, 3, 5)]

    # A second removal has nothing to do, and a new installation starts empty.
    assert "The database has no schema ittybit." in remove(developer)
    developer.deploy("database")
    assert project.jobs() == []


def test_it_names_the_extensions_that_stay(developer: Developer) -> None:
    developer.install()
    assert "Extensions stay, as others may use them: none\n" in remove(developer)
    # The rows of `create extension`, which the stand-ins lack.
    developer.project.superuser.execute("set allow_system_table_mods = on")
    for number, name in enumerate(("pg_net", "pg_cron", "supabase_vault", "pgcrypto", "theirs")):
        developer.project.superuser.execute(
            "insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)"
            " values (%s, %s, 10, 'public'::regnamespace, false, '1')",
            [90_000 + number, name],
        )
    said = remove(developer)
    assert "Extensions stay, as others may use them: pg_cron pg_net pgcrypto supabase_vault\n" in said


def test_it_asks_first(developer: Developer) -> None:
    developer.install()
    said = developer.refused("remove")
    assert "there is no terminal to ask at: Remove all this?" in said
    assert developer.project.value("select count(*) from ittybit.settings") == 1


def test_at_a_terminal_it_goes_on_only_after_a_y(developer: Developer) -> None:
    developer.install()
    for answer in ("n", "", "no", "not y"):
        result = developer.clone.answer(answer, "remove")
        assert result.returncode == 2
        assert "Remove all this? [y/N] deploy.sh: stopped, and nothing was changed\n" in result.stderr
    assert developer.project.value("select count(*) from ittybit.settings") == 1
    result = developer.clone.answer("y", "remove")
    assert (result.returncode, "Nothing is left in the database." in result.stderr) == (0, True)


def test_a_missing_tool_is_reported_before_anything_is_removed(developer: Developer) -> None:
    developer.install()
    developer.clone.write_env(developer.env | {"DEPLOY_TO": "cloud-run"})
    said = developer.refused("--yes", "remove")
    assert "gcloud is not installed" in said
    assert developer.project.value("select count(*) from ittybit.settings") == 1
    assert "Nothing is left in the database." in remove(developer, "--database-only")


def test_it_names_others_objects_that_depend_on_the_schema(developer: Developer) -> None:
    developer.install()
    for statement in (
        "create view public.mine as select id, state from ittybit.jobs",
        "create view public.counted as select count(*) from public.mine",
        "create table public.notes (id integer, job uuid references ittybit.jobs (id))",
        "create view public.not_mine as select id from public.notes",
        "create policy noted on public.notes using (exists (select from ittybit.jobs as j where j.id = job))",
    ):
        developer.project.sql(statement)
    said = developer.refused("remove")
    others = said.partition("are removed with it:\n")[2].partition("No file")[0]
    assert [line.strip() for line in others.splitlines()] == [
        "policy noted on public.notes",
        "table constraint notes_job_fkey on public.notes",
        "view public.counted",
        "view public.mine",
    ]
    remove(developer)
    assert developer.project.sql("select from public.not_mine") == []


def test_it_says_when_the_database_is_another_projects(developer: Developer) -> None:
    developer.install()
    developer.clone.write_env(developer.env | {"SUPABASE_URL": "https://staging.supabase.co"})
    said = developer.refused("remove")
    assert "This will be removed from the database of https://ref.supabase.co:" in said
    assert ".env is for https://staging.supabase.co: make sure" in said


def test_a_removal_gives_way_to_uploads(developer: Developer) -> None:
    developer.add_bucket("uploads")
    developer.install()
    project = developer.project
    project.rule()
    with developer.slow_upload("slow.mp4") as slow, developer.deploying("--yes", "remove") as removing:
        until(lambda: "letting others go first" in removing.stderr)
        # Uploads and their triggers still work: nothing is removed yet.
        project.put("a.mp4")
        assert project.states() == [("a.mp4", "queued", None)]
        slow.commit()
        assert removing.end() == 0
    project.put("b.mp4")
    assert project.warnings == []


def test_removing_the_triggers_locks_nothing_but_their_table(developer: Developer) -> None:
    developer.install()
    with developer.project.connect("postgres") as connection, connection.transaction(force_rollback=True):
        for line in (developer.clone.root / "deploy" / "remove_triggers.sql").read_text().splitlines():
            if line.strip().startswith(("lock ", "drop ")):
                connection.execute(line.encode())
        locked = connection.execute(
            "select distinct relation::regclass::text as name from pg_locks"
            " where pid = pg_backend_pid() and mode = 'AccessExclusiveLock' and relation >= 16384"
        ).fetchall()
    assert [row["name"] for row in locked] == ["storage.objects"]


@pytest.mark.parametrize("statement", ["lock table ittybit.jobs", "select ittybit.wake_functions()"])
def test_it_waits_for_other_transactions_in_the_schema(developer: Developer, statement: str) -> None:
    developer.install()
    with developer.project.connect("postgres") as busy, busy.transaction():
        busy.execute(statement.encode())
        with developer.deploying("--yes", "remove") as removing:
            until(lambda: "letting others go first" in removing.stderr)
            busy.execute("commit")
            assert removing.end() == 0
    assert developer.project.value("select to_regnamespace('ittybit')") is None


def test_a_dry_run_shows_each_step_and_takes_none(developer: Developer) -> None:
    developer.install()
    lines = developer.deploy("--dry-run", "remove", "--database-only").stdout.splitlines()
    assert [line.rpartition("/")[2] for line in lines] == [
        "remove_schedule.sql",
        "remove_triggers.sql",
        "unshare_status.sql",
        "remove_schema.sql",
    ]
    assert developer.project.value("select count(*) from ittybit.settings") == 1
