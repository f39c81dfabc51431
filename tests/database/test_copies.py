"""A database that was restored, branched or copied from another does nothing that the other does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from local.postgres import SUPERUSER
from tests.database.playing import ANOTHER, Play
from tests.database.project import ON_UPLOAD, PROJECT, PUSH_BACK, Project, copy_of_database, report


@contextmanager
def copied_elsewhere(database: Project) -> Iterator[Project]:
    """Another database with the same contents, as a restored dump, a branch with data or a template gives."""
    database.close()
    try:
        copy_of_database(database.postgres, "branch")
    finally:
        database.reconnect()
    branch = Project(database.postgres, "branch")
    try:
        yield branch
    finally:
        branch.close()
        with psycopg.connect(database.postgres.dsn(SUPERUSER, "template1"), autocommit=True) as admin:
            admin.execute("drop database branch")


@contextmanager
def copied_files(database: Project, name: str) -> Iterator[Project]:
    """A server on a copy of the cluster's files, as a restored physical backup or an upgrade gives."""
    with database.postgres.copy(name) as other:
        project = Project(other)
        yield project
        project.close()


@pytest.fixture
def original(database: Project) -> Project:
    """A project with one job in each state of its way: started, claimed and queued."""
    database.rule()
    for name in ("started.mp4", "claimed.mp4", "queued.mp4"):
        database.put(name)
        if name == "started.mp4":
            database.started(name, "runs/1")
    database.claim(jobs=1)
    database.messages()
    return database


def test_a_dump_restored_beside_the_original_starts_nothing_that_the_original_starts(original: Project) -> None:
    with copied_elsewhere(original) as branch:
        # Its wake-ups go to the original's functions, which look into the original's ledger.
        branch.put("new.mp4")
        branch.pass_time(3600)
        branch.wake()
        assert {(message["url"], str(message["body"])) for message in branch.messages()} == {
            (ON_UPLOAD, "{'type': 'jobs.due'}")
        }
        # Functions of its own are refused.
        before = branch.jobs()
        refused = f"was set up for {PROJECT}(.|\n)+say what this database is: ./deploy.sh database"
        with pytest.raises(psycopg.errors.RaiseException, match=refused):
            branch.claim(project=ANOTHER)
        assert branch.jobs() == before

        assert branch.value("select ittybit.adopt(%s, open_jobs => 'skip')", ANOTHER) == 4
        assert {(job["state"], job["reason"], job["due_at"]) for job in branch.jobs()} == {("skipped", "copied", None)}
        # It calls nobody until it has functions of its own, and what was skipped can be asked for.
        branch.put("own.mp4")
        assert (branch.wake(), branch.messages()) == (0, [])
        branch.sql("update ittybit.functions set url = 'https://own.test' where name = 'on-upload'")
        assert branch.wake() == 1
        branch.sql("select ittybit.retry(id) from ittybit.jobs where reason = 'copied'")
        leases = branch.claim(project=ANOTHER)
        assert sorted(lease["name"] for lease in leases) == sorted(job["name"] for job in branch.jobs())
        assert {lease["look_since"] for lease in leases} == {None}

    # The original has noticed nothing.
    assert [lease["name"] for lease in original.claim()] == ["queued.mp4"]


def test_a_copy_of_the_files_is_claimed_by_the_project_that_it_was_made_from_alone(
    original: Project, tmp_path: Path
) -> None:
    """An upgrade goes on by itself, what was under way being looked for; functions of another project do nothing."""
    with copied_files(original, tmp_path.name) as copy:
        with pytest.raises(psycopg.errors.RaiseException, match="was set up for"):
            copy.claim(project=ANOTHER)
        copy.pass_time(61)
        assert copy.wake() == 1
        steps = {lease.get("name", "a check"): lease.get("look_since") is not None for lease in copy.claim()}
    assert steps == {"a check": False, "claimed.mp4": True, "queued.mp4": False}


def test_a_job_that_started_after_the_backup_is_not_started_again(database: Project) -> None:
    play = Play(database)
    # After the backup was made.
    mark = f"{play.job}.1"
    play.begin(mark)

    assert database.value("select ittybit.adopt(%s, open_jobs => 'look')", ANOTHER) == 1
    play.project = ANOTHER
    play.settle()
    assert (play.state(), play.journal) == ("succeeded", [mark])
    assert database.counted_starts() == 1


def test_going_on_keeps_the_addresses_and_a_second_time_changes_nothing(original: Project) -> None:
    leases = original.claim()
    adopt = "select ittybit.adopt(%s, open_jobs => 'look')"
    # One has started, and two may have.
    assert original.value(adopt, ANOTHER) == 2
    # What a function of before says still counts.
    original.reports(*(report(lease, "started", ittybit_id=lease["job"]) for lease in leases))
    functions = "select * from ittybit.functions order by name"
    before = original.jobs(), original.sql(functions)
    original.value(adopt, ANOTHER)
    assert (original.jobs(), original.sql(functions)) == before
    assert [row["url"] for row in before[1]] == [ON_UPLOAD, PUSH_BACK]


def test_a_copys_backfill_stops_and_its_holds_and_ceilings_are_its_own(database: Project) -> None:
    database.put("a.mp4", "b.mp4")
    database.rule()
    database.sql("select ittybit.backfill('clips', run => true)")
    database.sql("insert into ittybit.holds (scope, probe_at) values ('all', now() + interval '1 hour')")
    database.sql("insert into ittybit.starts values (date_trunc('hour', now()), 1000, 1000)")
    database.sql("select ittybit.adopt(%s, open_jobs => 'skip')", ANOTHER)
    assert database.value("select ittybit.backfill_page()") == 0
    assert database.value("select state from ittybit.backfills") == "stopped"
    assert (database.jobs(), database.sql("select * from ittybit.kept_back()")) == ([], [])


def test_only_the_developer_may_adopt_and_must_say_what_becomes_of_the_jobs(database: Project) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.service.execute("select ittybit.adopt('https://another.test', 'look')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='open_jobs is skip or look, not "both"'):
        database.sql("select ittybit.adopt(%s, 'both')", ANOTHER)
