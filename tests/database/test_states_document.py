"""supabase/states.md: each job ends as it says for each state and event, and each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.database.playing import EVENTS, STATES, Play
from tests.database.project import Project

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "supabase" / "states.md").read_text()
SECTIONS = {section.partition("\n")[0]: section for section in DOCUMENT.split("\n### ")[1:]}
ROWS = [
    (event, state.strip(), ends, int(starts))
    for event, section in SECTIONS.items()
    for states, ends, starts in re.findall(r"^\| ([a-z, ]+) \| ([a-z_ ]+) \| (\d) \|", section, re.MULTILINE)
    for state in states.split(",")
]
NAMED = sorted(set(re.findall(r"`([\w/.]+\.py)::(\w+)`", DOCUMENT)))


@pytest.mark.parametrize(("event", "state", "ends", "starts"), ROWS)
def test_each_job_ends_as_the_document_says(database: Project, event: str, state: str, ends: str, starts: int) -> None:
    play = Play(database)
    STATES[state](play)
    EVENTS[event](play)
    play.settle()
    assert play.state() == ends
    assert len(play.journal) == len(set(play.journal)) == database.counted_starts() == starts
    # Nothing is left to do, and every job has come to its end.
    assert {job["due_at"] for job in database.jobs()} == {None}
    assert {job["state"] for job in database.jobs()} <= {"succeeded", "failed", "skipped"}
    # Results are deleted with a deleted source, and only then.
    kept = database.value("select count(*) from storage.objects where bucket_id = 'results'")
    assert bool(kept) == any(job["orphaned_by"] != "gone" for job in database.jobs() if job["state"] == "succeeded")


def test_the_document_has_every_state_for_every_event() -> None:
    assert sorted(SECTIONS) == sorted(EVENTS)
    assert sorted(row[:2] for row in ROWS) == sorted((event, state) for event in EVENTS for state in STATES)


def test_every_event_names_tests() -> None:
    assert all(re.search(r"^- `[\w/.]+::\w+`$", section, re.MULTILINE) for section in SECTIONS.values())


def test_every_test_that_is_named_exists() -> None:
    folder = Path(__file__).parent
    files = {(file, test): ROOT / file if "/" in file else folder / file for file, test in NAMED}
    assert [named for named, path in files.items() if f"\ndef {named[1]}(" not in path.read_text()] == []
