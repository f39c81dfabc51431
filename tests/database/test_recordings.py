"""Repeats the recorded writes of storage-api v1.70.6: the ledger must have the expected jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database.project import ON_UPLOAD, Project
from tests.database.rows import Connection, Row

PAYLOADS = Path(__file__).parents[1] / "payloads"
RECORDED = [path for path in sorted(PAYLOADS.glob("*.json")) if "scenario" in json.loads(path.read_text())]

QUEUED = ("queued", None)
# For each recording: state and reason of the former content's job, and of the new content's.
EXPECTED: Mapping[str, tuple[tuple[str, str | None] | None, tuple[str, str | None] | None]] = {
    "rest_upload_new": (None, QUEUED),
    "rest_upload_user_metadata": (None, QUEUED),
    "tus_new": (None, QUEUED),
    "rest_upload_existing_upsert": (("skipped", "superseded"), QUEUED),
    "rest_move": (("skipped", "moved"), QUEUED),
    "rest_delete": (("skipped", "gone"), None),
    "rest_zero_bytes": (None, None),
    "rest_emptyfolder": (None, None),
    "s3_put_new": (None, ("skipped", "s3_write")),
    "s3_put_overwrite": (("skipped", "superseded"), ("skipped", "s3_write")),
    "s3_multipart_aborted": (None, None),
}


def test_every_recording_has_an_expected_outcome() -> None:
    assert {path.stem for path in RECORDED} == set(EXPECTED)


def replay(database: Project, recording: Mapping[str, Any]) -> None:
    """Repeat each recorded write: those that were rolled back as trials, the others with their whole row."""
    kept = list(recording["committed_row_events"])
    former = kept[0]["old"] if kept else None
    if former is not None:
        with database.writing("storage.object.upload") as connection:
            insert(connection, former)
        assert database.job(former["name"])["state"] == "queued"

    for fire in recording["trigger_fires_including_rolled_back"]:
        event = kept.pop(0) if fire["committed"] else None
        record = event["rec"] if event else tried(fire, former)
        with database.writing(fire["storage_operation"], fire["role"], trial=event is None) as connection:
            if fire["op"] == "INSERT":
                insert(connection, record)
            elif fire["op"] == "UPDATE" and former:
                update(connection, former, record)
            elif former:
                connection.execute("delete from storage.objects where id = %s", [former["id"]])
            if fire["committed"] and record:
                assert connection.execute(
                    "select name, version from storage.objects where id = %s", [record["id"]]
                ).fetchall() == [{"name": fire["name"], "version": fire["version"]}]
    assert kept == []


def tried(fire: Mapping[str, Any], former: Mapping[str, Any] | None) -> Row:
    """Return the row of a trial, as far as the trigger saw it."""
    seen = {"bucket_id": fire["bucket"], "name": fire["name"], "version": fire["version"], "metadata": fire["metadata"]}
    return dict(former or {}) | seen


def insert(connection: Connection, record: Mapping[str, Any]) -> None:
    columns = [column for column in record if column != "path_tokens"]
    connection.execute(
        f"insert into storage.objects ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})".encode(),  # noqa: S608 - recorded columns
        [adapted(record[column]) for column in columns],
    )


def update(connection: Connection, former: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    columns = ("bucket_id", "name", "version", "metadata")
    connection.execute(
        "update storage.objects set bucket_id = %s, name = %s, version = %s, metadata = %s where id = %s",
        [*(adapted(record[column]) for column in columns), former["id"]],
    )


def adapted(value: object) -> object:
    return Jsonb(value) if isinstance(value, dict) else value


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_write_has_its_expected_outcome(database: Project, path: Path) -> None:
    recording = json.loads(path.read_text())
    database.rule()
    replay(database, recording)
    expected = []
    for event in recording["committed_row_events"]:
        for record, outcome in zip((event["old"], event["rec"]), EXPECTED[path.stem], strict=True):
            if outcome:
                expected.append((record["name"], record["version"], *outcome))
    jobs = database.jobs()
    assert [(job["name"], job["version"], job["state"], job["reason"]) for job in jobs] == expected

    # Trials leave nothing in pg_net's queue either: only committed writes wake the function.
    has_work = any(job["reason"] in (None, "superseded", "moved", "gone") for job in jobs)
    assert {message["url"] for message in database.messages()} == ({ON_UPLOAD} if has_work else set())
    assert database.warnings == []


@pytest.mark.parametrize("name", ["s3_put_new", "s3_put_overwrite"])
def test_a_recorded_write_through_s3_makes_a_job_if_the_rule_accepts_it(database: Project, name: str) -> None:
    recording = json.loads((PAYLOADS / f"{name}.json").read_text())
    database.rule(accept_s3=True)
    replay(database, recording)
    [event] = recording["committed_row_events"]
    newest = database.jobs()[-1]
    assert (newest["version"], newest["state"]) == (event["rec"]["version"], "queued")
    assert (newest["etag"], newest["size"]) == (event["rec"]["metadata"]["eTag"], event["rec"]["metadata"]["size"])
