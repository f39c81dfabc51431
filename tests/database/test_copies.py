"""A restored, branched or copied database never does the original's work."""

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
    """Another database with the same contents, like a restored dump, a branch with data or a template's copy."""
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
    """A server on a copy of the cluster's files, like a restored physical backup or an upgrade."""
    with database.postgres.copy(name) as other:
        project = Project(other)
        yield project
        project.close()


@pytest.fixture
def original(database: Project) -> Project:
    """A project with three jobs: one is started, one claimed, one queued."""
    database.rule()
    for name in ("started.mp4", "claimed.mp4", "queued.mp4"):
        database.put(name)
        if name == "started.mp4":
            database.started(name, "runs/1")
    database.claim(jobs=1)
    database.messages()
    return database


def test_a_restored_dump_does_not_start_the_originals_jobs(original: Project) -> None:
    with copied_elsewhere(original) as branch:
        # Its wake-ups go to the original's functions, which look into the original's ledger.
        branch.put("new.mp4")
        branch.pass_time(3600)
        branch.wake()
        assert {(message["url"], str(message["body"])) for message in branch.messages()} == {
            (ON_UPLOAD, "{'type': 'jobs.due'}")
        }
        # Its own functions are refused.
        before = branch.jobs()
        refused = f"was set up for {PROJECT}(.|\n)+say what this database is: ./deploy.sh database"
        with pytest.raises(psycopg.errors.RaiseException, match=refused):
            branch.claim(project=ANOTHER)
        assert branch.jobs() == before

        assert branch.value("select ittybit.adopt(%s, open_jobs => 'skip')", ANOTHER) == 4
        assert {(job["state"], job["reason"], job["due_at"]) for job in branch.jobs()} == {("skipped", "copied", None)}
        # It wakes nothing until it has functions of its own, and skipped jobs can be retried.
        branch.put("own.mp4")
        assert (branch.wake(), branch.messages()) == (0, [])
        branch.sql("update ittybit.functions set url = 'https://own.test' where name = 'on-upload'")
        assert branch.wake() == 1
        branch.sql("select ittybit.retry(id) from ittybit.jobs where reason = 'copied'")
        leases = branch.claim(project=ANOTHER)
        assert sorted(lease["name"] for lease in leases) == sorted(job["name"] for job in branch.jobs())
        assert {lease["step"] for lease in leases} == {"start"}

    # The original goes on unchanged.
    assert [lease["name"] for lease in original.claim()] == ["queued.mp4"]


def test_only_the_originals_functions_can_claim_from_a_copy_of_its_files(original: Project, tmp_path: Path) -> None:
    """An upgrade continues by itself, and looks for claimed starts. Another project's functions are refused."""
    with copied_files(original, tmp_path.name) as copy:
        with pytest.raises(psycopg.errors.RaiseException, match="was set up for"):
            copy.claim(project=ANOTHER)
        copy.pass_time(61)
        assert copy.wake() == 1
        leases = copy.claim()
        steps = dict(zip(copy.names(leases), (lease["step"] for lease in leases), strict=True))
    assert steps == {"started.mp4": "check", "claimed.mp4": "search", "queued.mp4": "start"}


def test_a_job_that_started_after_the_backup_is_not_started_again(database: Project) -> None:
    play = Play(database)
    # It started after the backup was made.
    mark = f"{play.job}.1"
    play.begin(mark)

    assert database.value("select ittybit.adopt(%s, open_jobs => 'look')", ANOTHER) == 1
    play.project = ANOTHER
    play.settle()
    assert (play.state(), play.journal) == ("succeeded", [mark])
    assert database.counted_starts() == 1


def test_adopting_with_the_open_jobs_keeps_the_addresses_and_can_be_repeated(original: Project) -> None:
    leases = original.claim()
    adopt = "select ittybit.adopt(%s, open_jobs => 'look')"
    # One has started, and two may have.
    assert original.value(adopt, ANOTHER) == 2
    # Reports on earlier leases still count.
    original.reports(*(report(lease, "started", ittybit_id=lease["job"]) for lease in leases))
    functions = "select * from ittybit.functions order by name"
    before = original.jobs(), original.sql(functions)
    original.value(adopt, ANOTHER)
    assert (original.jobs(), original.sql(functions)) == before
    assert [row["url"] for row in before[1]] == [ON_UPLOAD, PUSH_BACK]


def test_adopting_a_copy_stops_its_backfill_and_clears_its_holds_and_counts(database: Project) -> None:
    database.put("a.mp4", "b.mp4")
    database.rule()
    database.sql("select ittybit.backfill('clips', run => true)")
    database.sql("insert into ittybit.holds (scope, probe_at) values ('all', now() + interval '1 hour')")
    database.sql("insert into ittybit.starts values (date_trunc('hour', now()), 1000, 1000)")
    database.sql("select ittybit.adopt(%s, open_jobs => 'skip')", ANOTHER)
    assert database.value("select ittybit.backfill_page()") == 0
    assert database.value("select state from ittybit.backfills") == "stopped"
    assert (database.jobs(), database.sql("select * from ittybit.kept_back()")) == ([], [])


def test_only_the_developer_may_adopt_and_must_choose_what_happens_to_open_jobs(database: Project) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.service.execute("select ittybit.adopt('https://another.test', 'look')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='open_jobs is skip or look, not "both"'):
        database.sql("select ittybit.adopt(%s, 'both')", ANOTHER)
