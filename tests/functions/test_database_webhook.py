from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from local.functions import ROOT
from local.ittybit_server import Ittybit
from local.server import Server
from tests.functions.calling import Function, outcome, sign
from tests.functions.project import AUTOMATION, Project

PAYLOADS = ROOT / "tests" / "payloads"
BUCKET = "uploads"


def deliveries(scenario: str) -> list[dict[str, Any]]:
    """The bodies that pg_net delivered when this was recorded."""
    recorded = json.loads((PAYLOADS / f"{scenario}.json").read_text())
    found = recorded.get("deliveries") or recorded["pg_net_deliveries"]
    return [delivery["body"] for delivery in found]


def event(**record: Any) -> dict[str, Any]:
    """The recorded INSERT with these fields of its row changed."""
    [insert, *_] = deliveries("database_webhook_http_request")
    return insert | {"record": insert["record"] | record}


def update(record: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The recorded UPDATE with these fields of its rows changed."""
    recorded = deliveries("database_webhook_http_request")[1]
    return recorded | {"record": recorded["record"] | record, "old_record": recorded["old_record"] | old}


@pytest.fixture(scope="module")
def uploads(running: Project) -> Project:
    """The project with the objects of the recordings."""
    running.clear()
    for name in ("dbwh/a.mp4", "clips/rest-new.mp4", "clips/meta.mp4", "s3/put.mp4", "tus/new.mp4"):
        running.upload(BUCKET, name)
    return running


@pytest.fixture
def watching(uploads: Project, project: Project) -> Function:
    """on-upload in plain mode."""
    assert uploads is project
    changes = {"WATCH_BUCKET": BUCKET, "ITTYBIT_AUTOMATION_ID": project.automation}
    return Function.make("on-upload", project.stack.environment, **changes)


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("database_webhook_http_request", [("started", None), ("skipped", "same_content"), ("skipped", "deleted")]),
        ("rest_upload_new", [("started", None)]),
        ("rest_upload_user_metadata", [("started", None)]),
        ("s3_put_new", [("started", None)]),
        ("tus_new", [("started", None)]),
        ("rest_emptyfolder", [("skipped", "folder")]),
        ("rest_zero_bytes", [("skipped", "empty")]),
    ],
)
def test_each_recorded_delivery_has_its_expected_outcome(
    project: Project, watching: Function, scenario: str, expected: list[tuple[str, str | None]]
) -> None:
    before = len(project.stack.ittybit.journal)
    bodies = deliveries(scenario)
    answers = [watching.ask(body).get_json() for body in bodies]
    assert [(answer["outcome"], answer.get("reason")) for answer in answers] == expected
    started = project.stack.ittybit.journal[before:]
    assert [entry.idempotency_key for entry in started] == [
        body["record"]["version"] for body, (what, _) in zip(bodies, expected, strict=True) if what == "started"
    ]
    assert all(entry.automation_id == project.automation for entry in started)


@pytest.fixture
def honouring(project: Project, tmp_path: Path) -> Iterator[Ittybit]:
    """Another ittybit, one that honours Idempotency-Key."""
    ittybit = Ittybit(api_key=project.stack.ittybit_key, directory=tmp_path, encode=False)
    ittybit.start()
    yield ittybit
    ittybit.stop()


def test_a_duplicate_delivery_starts_once_where_ittybit_honours_the_key(watching: Function, honouring: Ittybit) -> None:
    with Server(honouring.app) as server:
        headers = {"authorization": f"Bearer {watching.environment['ITTYBIT_API_KEY']}"}
        made = httpx.post(f"{server.origin}/automations", json=AUTOMATION, headers=headers).json()
        changes = {"ITTYBIT_API_URL": server.origin, "ITTYBIT_AUTOMATION_ID": made["id"]}
        function = Function.make("on-upload", watching.environment, **changes)
        runs = [outcome(function.ask(event()), 202, "started")["run"]["id"] for _ in range(2)]
        outcome(function.ask(event(version="994d8e72-cd0f-45c3-98b5-28b3b548607e")), 202, "started")
    assert runs[0] == runs[1]
    assert [entry.replay for entry in honouring.journal] == [False, True, False]


METADATA = {"eTag": '"1"', "size": 7, "mimetype": "video/mp4"}


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (event(bucket_id="another"), "not_watched"),
        (event(name="other/a.mp4"), "not_watched"),
        (event(name="clips/a/b.mp4"), "not_watched"),
        (event(name="clips/a.mp4", metadata=METADATA | {"mimetype": "image/png"}), "not_watched"),
        (event(name="clips/a.mp4", metadata={"size": 7}), "not_watched"),
        (event(name="clips/a.mp4", is_delete_marker=True), "delete_marker"),
        (event(name="clips/.emptyFolderPlaceholder"), "folder"),
        (event(name="clips/"), "folder"),
        (event(name="clips/not.emptyFolderPlaceholder", metadata=METADATA | {"size": 0}), "empty"),
        (event(name="clips/out/a.mp4"), "output_prefix"),
        (event(name="clips/a.mp4", metadata=METADATA | {"size": 0}), "empty"),
        (event(name="clips/a.mp4", metadata={"mimetype": "video/mp4"}), "empty"),
        (update({"name": "clips/a.mp4"}, {"name": "elsewhere/a.mp4"}), "same_content"),
        (update({"name": "clips/a.mp4", "version": "1", "metadata": METADATA}, {"version": "1"}), "same_content"),
        (deliveries("database_webhook_http_request")[2], "deleted"),
    ],
)
def test_an_object_that_must_not_start_is_skipped_with_the_reason(
    project: Project, body: dict[str, Any], reason: str
) -> None:
    changes = {
        "WATCH_BUCKET": BUCKET,
        "ITTYBIT_AUTOMATION_ID": project.automation,
        "WATCH_PATH": "clips/*" if "out" not in json.dumps(body["record"]) else "**",
        "WATCH_TYPE": "video/*",
        "OUTPUT_PREFIXES": "clips/out/",
    }
    function = Function.make("on-upload", project.stack.environment, **changes)
    assert outcome(function.ask(body), 200, "skipped")["reason"] == reason


@pytest.mark.usefixtures("nobody_called")
def test_the_probe_folder_starts_nothing(watching: Function) -> None:
    assert outcome(watching.ask(event(name=".ittybit/probe")), 200, "skipped")["reason"] == "probe"


@pytest.mark.parametrize("version", [None, "994d8e72-cd0f-45c3-98b5-28b3b548607d"])
def test_new_content_under_the_same_name_is_processed_with_and_without_versions(
    watching: Function, version: str | None
) -> None:
    new = {"metadata": METADATA, "version": version and "bdfc0947-4d42-4865-a3c2-331071450b01"}
    outcome(watching.ask(update(new, {"version": version})), 202, "started")


def test_an_object_that_no_longer_exists_is_skipped(watching: Function) -> None:
    assert outcome(watching.ask(event(name="dbwh/gone.mp4")), 200, "skipped")["reason"] == "gone"


def test_a_row_of_up_to_2_mib_is_accepted_and_its_metadata_is_dropped(
    project: Project, watching: Function, capfd: pytest.CaptureFixture[str]
) -> None:
    body = event(user_metadata={"note": "n" * (2 * 1024 * 1024 - 2000)})
    outcome(watching.ask(body), 202, "started")
    assert "nnnn" not in repr(project.stack.ittybit.journal[-1]) + capfd.readouterr().out


@pytest.mark.usefixtures("nobody_called")
def test_a_webhook_over_2_mib_and_any_other_body_over_64_kib_get_413(project: Project, watching: Function) -> None:
    assert watching.ask(event(user_metadata={"note": "n" * 2 * 1024 * 1024})).status_code == 413
    large = event(user_metadata={"note": "n" * 65536})
    raw = json.dumps(large).encode()
    assert watching.send(raw, sign(watching.environment["FUNCTIONS_SECRET"], raw)).status_code == 413
    run = {"bucket": BUCKET, "name": "dbwh/a.mp4", "automation_id": project.automation}
    assert watching.send(json.dumps(run).encode() + b" " * 65536, watching.bearer).status_code == 413


@pytest.mark.usefixtures("nobody_called")
def test_without_plain_mode_a_webhook_gets_422_with_the_missing_setting(on_upload: Function) -> None:
    answer = on_upload.ask(event())
    assert answer.status_code == 422
    assert "WATCH_BUCKET" in answer.get_json()["detail"]
    assert on_upload.ask(event(user_metadata={"note": "n" * 65536})).status_code == 413


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize(
    ("change", "field"),
    [({"table": "users"}, "table"), ({"schema": "public"}, "schema"), ({"type": "TRUNCATE"}, "type")],
)
def test_a_webhook_of_another_table_or_event_is_refused(watching: Function, change: dict[str, str], field: str) -> None:
    answer = watching.ask(event() | change)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


VALUES: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
COLUMNS = st.sampled_from(["version", "name", "bucket_id", "metadata", "is_delete_marker", "owner"])
METADATAS = st.dictionaries(st.sampled_from(["size", "eTag", "mimetype"]), VALUES)


@given(record=st.dictionaries(COLUMNS, VALUES | METADATAS), kind=st.sampled_from(["INSERT", "UPDATE"]))
@example(record={"version": "é"}, kind="INSERT")
@example(record={"version": "1\r\nX-Injected: 1"}, kind="INSERT")
@example(record={"version": "1&token=x"}, kind="INSERT")
def test_every_row_gets_200_or_422(project: Project, watching: Function, record: dict[str, Any], kind: str) -> None:
    project.clear()
    project.stack.ittybit_api.add("POST", "/automations/.*", status=418)
    answer = watching.ask(event(**record) | {"type": kind})
    assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize("version", ["é", "1\r\nX-Injected: 1", "1&token=x", "", "v" * 200])
@pytest.mark.usefixtures("nobody_called")
def test_a_version_that_cannot_be_a_mark_is_refused(watching: Function, version: str) -> None:
    answer = watching.ask(event(version=version))
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == ["record.version"]
