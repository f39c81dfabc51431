"""Replays each recorded write of the storage server: trigger, queued wake-up, claim, address, start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.database.project import Project as Database
from tests.database.rows import rows
from tests.database.test_recordings import EXPECTED, QUEUED, RECORDED, replay
from tests.functions.calling import Function
from tests.functions.project import Project


@pytest.fixture
def database(project: Project) -> Iterator[Database]:
    """The project's database, to write to as the storage server does, with a rule for the recordings' bucket."""
    database = Database(project.stack.postgres)
    action = (
        {"task": {"kind": "video", "options": {}}} if project.speaks_jobs else {"automation_id": project.automation}
    )
    database.rule(**action)
    database.sql("update ittybit.functions set url = 'http://127.0.0.1:9/on-upload' where name = 'on-upload'")
    database.superuser.execute("select setval('ittybit.on_upload_woken', 0)")
    yield database
    database.superuser.execute("delete from net.http_request_queue")
    with database.writing("storage.object.delete") as connection:
        connection.execute("delete from storage.objects where bucket_id = 'uploads'")
    database.close()


@pytest.mark.generations("automations", "jobs")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_write_starts_once_or_has_its_reason(
    database: Database, project: Project, on_upload: Function, path: Path
) -> None:
    before = len(project.stack.ittybit.journal)
    replay(database, json.loads(path.read_text()))
    # Exactly the bytes and headers that pg_net would send.
    queued = rows(database.superuser, "delete from net.http_request_queue returning id, headers, body")
    for call in sorted(queued, key=lambda row: row["id"]):
        assert on_upload.send(bytes(call["body"]), call["headers"]).status_code == 200

    former, new = EXPECTED[path.stem]
    started = [entry for entry in project.stack.ittybit.journal[before:] if not entry.replay]
    ends = [(job["state"], job["reason"]) for job in database.jobs()]
    assert ends == [end if end != QUEUED else ("started", None) for end in (former, new) if end]
    if new == QUEUED:
        [entry] = started
        job = database.jobs()[-1]
        assert urlsplit(entry.url or "").path == f"/storage/v1/object/sign/uploads/{job['name']}"
        assert entry.idempotency_key == f"{job['id']}.1"
    else:
        assert started == []
