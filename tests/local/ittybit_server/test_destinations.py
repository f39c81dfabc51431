"""Results written into S3 storage, and sources read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.ittybit_server.media_file import probe
from tests.local.ittybit_server.stack import SECRET, Stack


def test_the_output_is_written_to_its_destination(stack: Stack, tmp_path: Path) -> None:
    destination = "s3://media/processed/ä b/clip?.mp4"
    task = stack.task(
        "video",
        "clip.mp4",
        options={"width": 160},
        connection_id=stack.connect(),
        destination=destination,
    )
    assert task["status"] == "succeeded", task["error"]
    (output,) = task["outputs"]
    assert (output["url"], output["filename"], output["kind"]) == (destination, "clip?.mp4", "url")
    stored = stack.storage.objects["media/processed/ä b/clip?.mp4"]
    assert len(stored.content) == output["filesize"]
    assert stored.mimetype == "video/mp4"
    assert stored.authorization.startswith("AWS4-HMAC-SHA256 Credential=key-id/")
    assert "/eu-west-1/s3/aws4_request" in stored.authorization
    (tmp_path / "stored.mp4").write_bytes(stored.content)
    assert probe(tmp_path / "stored.mp4").width == 160


def test_the_default_connection_is_used_when_none_is_named(copying: Stack) -> None:
    without = copying.task("video", "clip.mp4", destination="s3://media/a.mp4")
    assert without["status"] == "failed"
    assert "no default connection" in without["error"]["message"]
    copying.connect(is_default=True)
    task = copying.task("video", "clip.mp4", destination="s3://media/a.mp4")
    assert task["status"] == "succeeded"
    assert list(copying.storage.objects) == ["media/a.mp4"]


@pytest.mark.parametrize(
    ("destination", "playlist"),
    [
        ("s3://media/hls/clip", "hls/clip/master.m3u8"),
        ("s3://media/hls/clip/", "hls/clip/master.m3u8"),
        ("s3://media/hls/a/main.m3u8", "hls/a/main.m3u8"),
    ],
)
def test_adaptive_video_fills_a_folder(stack: Stack, destination: str, playlist: str) -> None:
    stack.storage.objects.clear()
    task = stack.task("adaptive_video", "clip.mp4", connection_id=stack.connect(), destination=destination)
    assert task["outputs"][0]["url"] == f"s3://media/{playlist}"
    keys = list(stack.storage.objects)
    folder = f"media/{playlist.rpartition('/')[0]}"
    assert keys[-1] == f"media/{playlist}"
    assert {f"{folder}/segment-0.ts", f"{folder}/stream.m3u8"} < set(keys)
    assert stack.storage.objects[f"{folder}/segment-0.ts"].mimetype == "video/mp2t"


def test_an_upload_writes_its_parents_output(stack: Stack) -> None:
    stack.storage.objects.clear()
    connection_id = stack.connect()
    upload = {"kind": "upload", "options": {"url": "s3://media/out.jpg", "connection_id": connection_id}}
    automation = stack.post("/automations", {"name": "a", "workflow": [{"kind": "image", "next": [upload]}]})
    started = stack.post(f"/automations/{automation['id']}/run", {"url": stack.file("clip.mp4")})
    run = stack.ended(f"/runs/{started['id']}")
    assert run["status"] == "succeeded", run["error"]
    assert stack.storage.objects["media/out.jpg"].mimetype == "image/jpeg"
    image, uploaded = (stack.get(f"/tasks/{task['id']}") for task in run["tasks"])
    assert uploaded["outputs"][0]["url"] == "s3://media/out.jpg"
    assert uploaded["inputs"][0]["url"] == image["outputs"][0]["url"]


def test_a_run_fetches_from_storage_and_uploads_into_it(stack: Stack, media: Path) -> None:
    stack.storage.objects.clear()
    connection = {"connection_id": stack.connect()}
    content = (media / "clip.mp4").read_bytes()
    stack.task("ingest", "clip.mp4", **connection, destination="s3://media/in.mp4")
    ingest = {"kind": "ingest", "options": {"url": "s3://media/in.mp4", **connection}}
    copy = {"kind": "upload", "options": {"url": "s3://media/copy.mp4", **connection}}
    still = {"kind": "upload", "options": {"url": "s3://media/still.jpg", **connection}}
    for following in ([{"kind": "image", "next": [still]}, copy], [copy]):
        tasks = [ingest | {"next": following}]
        run = stack.ended(f"/runs/{stack.post('/runs', {'tasks': tasks, 'metadata': {'mark': '1'}})['id']}")
        assert run["status"] == "succeeded", run["error"]
        assert stack.storage.objects.pop("media/copy.mp4").content == content
        entry = stack.ittybit.journal[-1]
        assert (entry.call, entry.id, entry.url) == ("POST /runs", run["id"], "s3://media/in.mp4")
        assert (entry.metadata, entry.connection_id) == ({"mark": "1"}, connection["connection_id"])
        assert entry.destination in {"s3://media/still.jpg", "s3://media/copy.mp4"}
    assert stack.storage.objects["media/still.jpg"].mimetype == "image/jpeg"


def test_one_connection_serves_source_and_destination(stack: Stack, media: Path) -> None:
    connection_id = stack.connect()
    put = stack.task("ingest", "clip.mp4", connection_id=connection_id, destination="s3://media/in/clip.mp4")
    assert put["status"] == "succeeded", put["error"]
    assert stack.storage.objects["media/in/clip.mp4"].content == (media / "clip.mp4").read_bytes()
    task = stack.task("image", "s3://media/in/clip.mp4", connection_id=connection_id, destination="s3://media/clip.jpg")
    assert task["status"] == "succeeded", task["error"]
    assert task["inputs"][0]["width"] == 320


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [
        ("clip.mp4", "s3://forbidden/a.mp4", "The destination was refused by storage: AccessDenied (HTTP 403)."),
        ("s3://forbidden/a.mp4", None, "The source was refused by storage: AccessDenied (HTTP 403)."),
        ("s3://media/none.mp4", None, "The source was refused by storage: 404 (HTTP 404)."),
    ],
)
def test_a_refusal_by_storage_is_reported_without_the_secret(
    stack: Stack, source: str, destination: str | None, message: str
) -> None:
    task = stack.task("ingest", source, connection_id=stack.connect(), destination=destination)
    assert (task["status"], task["outputs"]) == ("failed", [])
    assert task["error"] == {"kind": "request_invalid", "message": message}


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "nowhere"])
def test_a_task_fails_when_storage_cannot_be_reached(stack: Stack, endpoint: str) -> None:
    connection_id = stack.connect(endpoint=endpoint)
    task = stack.task("ingest", "clip.mp4", connection_id=connection_id, destination="s3://media/a")
    assert task["status"] == "failed"
    assert "could not be reached" in task["error"]["message"]
    assert SECRET not in str(task)
