"""Released migrations never change, and a ledger of any released version works with the newest migrations."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.functions import ROOT
from local.postgres import Postgres
from local.stack import MIGRATIONS, migrate
from tests import documents
from tests.database.playing import STATES, Play
from tests.database.project import SECRET, TASK, Project
from tests.database.rows import Row
from tests.database.test_install import contents
from tests.database.test_states_document import ROWS

LINE = re.compile(r"(\d+\.\d+\.\d+) ([0-9a-f]{64})  (supabase/migrations/\w+\.sql)")
ALL = sorted(MIGRATIONS.glob("*.sql"))


def released(root: Path = ROOT) -> list[tuple[str, str, Path]]:
    """The listed migrations: the first version that has each, its SHA-256 and its file."""
    lines = (root / "supabase" / "released.txt").read_text().splitlines()
    found = [LINE.fullmatch(line) for line in lines if not line.startswith("#")]
    return [(line[1], line[2], root / line[3]) for line in found if line] if all(found) else pytest.fail(str(lines))


def migrations_of(version: str) -> list[Path]:
    """The migrations of a version; all of them, if it is not released yet."""
    listed = released()
    last = max((place for place, line in enumerate(listed) if line[0] == version), default=None)
    return ALL if last is None else [file for _, _, file in listed[: last + 1]]


def changed(root: Path) -> list[str]:
    """The listed migrations that have changed since their release."""
    return [
        file.name
        for _, digest, file in released(root)
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != digest
    ]


def test_no_released_migration_has_changed() -> None:
    assert changed(ROOT) == []


def test_new_migrations_come_after_the_released_ones() -> None:
    listed = [file for _, _, file in released()]
    assert listed == ALL[: len(listed)]


def test_the_first_release_lists_its_migrations() -> None:
    has_release = re.search(r"^## \[\d", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE) is not None
    assert has_release == bool(released())


def test_a_change_after_the_release_is_found(tmp_path: Path) -> None:
    for part in ("supabase", "deploy", "shared"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "deploy.sh", tmp_path)
    text = documents.sections((ROOT / "CONTRIBUTING.md").read_text())["A release"].replace("\n   ", "\n")
    [command] = documents.blocks(text, "sh")
    for _ in range(2):  # the second time there is nothing to list
        subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    assert [file.name for _, _, file in released(tmp_path)] == [file.name for file in ALL]
    assert changed(tmp_path) == []
    with (tmp_path / "supabase" / "migrations" / ALL[3].name).open("a") as file:
        file.write("-- one word more\n")
    assert changed(tmp_path) == [ALL[3].name]


@pytest.fixture(params=sorted({version for version, _, _ in released()}) or ["unreleased"])
def former(request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project with the migrations of a released version."""
    with Postgres.start() as server:
        server.prepare()
        migrate(server, migrations_of(request.param))
        with contextlib.closing(Project(server)) as project:
            project.sql("select vault.create_secret(%s, 'ittybit_functions_secret')", SECRET)
            project.superuser.execute("insert into storage.buckets (id, name) values ('uploads', ''), ('results', '-')")
            project.reset()
            yield project


# ./deploy.sh database applies every file again. supabase db push leaves out those that it has applied.
@pytest.mark.parametrize("applied_again", [True, False], ids=["deploy.sh database", "supabase db push"])
def test_an_upgrade_changes_no_row_and_every_job_continues(former: Project, applied_again: bool) -> None:
    plays = {}
    for state, reach in STATES.items():
        plays[state] = Play(former, f"clips/{state}.mp4")
        reach(plays[state])
        # Keep it out of the next play's claims.
        former.sql("update ittybit.jobs set due_at = due_at + interval '10 days'")
    former.rule("task", path="tasks/*", task=TASK)
    former.put("tasks/a.mp4")
    [lease] = former.claim("push-back")
    former.report(lease, "started", ittybit_id="tasks/1")
    former.sql("update ittybit.jobs set due_at = now() + interval '1 day' where ittybit_id = 'tasks/1'")

    before = contents(former)
    migrate(former.postgres, None if applied_again else set(ALL) - {file for _, _, file in released()})
    former.close()
    former.reconnect()  # a connection's prepared statements refuse rows of other columns
    after = contents(former)

    assert {job["state"] for job in before["jobs"]} == {"queued", "started", "succeeded", "failed", "skipped"}
    assert before == {table: [alike(row, before[table]) for row in rows] for table, rows in after.items()}

    # The triggers: a new object has a job, a result makes its job's check due.
    former.put("clips/new.mp4")
    former.put("tasks/a.mp4", bucket="results", operation="storage.s3.upload")
    [lease] = [one for one in former.claim("push-back") if one["step"] == "check"]
    former.report(lease, "succeeded", ittybit_id="tasks/1")
    former.make_due()

    # The RPCs: every job comes to the end that supabase/states.md says.
    all_of_them = plays["queued"]
    all_of_them.journal = [mark for play in plays.values() for mark in play.journal]
    all_of_them.settle()
    ends = {state: end for event, state, end, _ in ROWS if event.startswith("database upgraded")}
    assert {state: play.state() for state, play in plays.items()} == ends
    assert former.job("clips/new.mp4")["state"] == "succeeded"
    assert len(all_of_them.journal) == len(set(all_of_them.journal)) == former.counted_starts() - 1
    assert former.warnings == []


def alike(row: Row, rows: list[Row]) -> Row:
    """The row without the columns that the rows before do not have."""
    return {column: value for column, value in row.items() if column in rows[0]} if rows else row
