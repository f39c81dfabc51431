"""What each kind of task makes of media: the tests download and open the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from local.ittybit_server import Ittybit
from local.ittybit_server.media_file import probe
from tests.local.ittybit_server.stack import KEY, Stack, picture
from tests.waiting import until


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (320, 240)),
        ({"width": 160}, (160, 120)),
        ({"height": 100}, (134, 100)),
        ({"width": 200, "height": 300}, (200, 150)),
    ],
)
def test_video_sizes(stack: Stack, tmp_path: Path, options: dict[str, Any], size: tuple[int, int]) -> None:
    task = stack.task("video", "clip.mp4", options=options)
    path = stack.output(task, tmp_path)
    assert picture(path)["size"] == size
    assert picture(path)["codec"].startswith("h264")
    output, source = task["outputs"][0], task["inputs"][0]
    assert (output["width"], output["height"]) == size
    assert (output["filename"], output["mimetype"]) == ("clip.mp4", "video/mp4")
    assert output["codecs"] == {"video": {"codec": "h264"}, "audio": {"codec": "aac"}}
    assert (source["width"], source["height"], source["framerate"]) == (320, 240, 25)
    assert source["duration"] == pytest.approx(2, abs=0.1)


def test_an_excerpt_of_a_video_in_another_format(stack: Stack, tmp_path: Path) -> None:
    options = {"format": "webm", "start": 0.5, "end": 1.5, "width": 160}
    task = stack.task("video", "clip.mp4", options=options)
    found = picture(stack.output(task, tmp_path))
    assert found["codec"].startswith("vp9")
    assert found["duration"] == pytest.approx(1, abs=0.15)
    assert task["outputs"][0]["mimetype"] == "video/webm"


@pytest.mark.parametrize(
    ("source", "format_name", "codec", "mimetype"),
    [
        ("clip.mp4", "jpeg", "mjpeg", "image/jpeg"),
        ("clip.mp4", "png", "png", "image/png"),
        ("still.png", "webp", "webp", "image/webp"),
    ],
)
def test_images(stack: Stack, tmp_path: Path, source: str, format_name: str, codec: str, mimetype: str) -> None:
    options = {"format": format_name, "width": 33, "start": 1}
    task = stack.task("image", source, options=options)
    found = probe(stack.output(task, tmp_path))
    assert (found.video, found.width) == (codec, 33)
    assert task["outputs"][0]["mimetype"] == mimetype


@pytest.mark.parametrize(
    ("format_name", "codec", "mimetype"),
    [
        ("mp3", "mp3", "audio/mpeg"),
        ("aac", "aac", "audio/aac"),
        ("opus", "opus", "audio/opus"),
        ("wav", "pcm_s16le", "audio/wav"),
    ],
)
def test_audio(stack: Stack, tmp_path: Path, format_name: str, codec: str, mimetype: str) -> None:
    options = {"format": format_name, "end": 1}
    task = stack.task("audio", "clip.mp4", options=options)
    found = probe(stack.output(task, tmp_path))
    assert (found.audio, found.video) == (codec, None)
    assert found.duration == pytest.approx(1, abs=0.15)
    assert task["outputs"][0]["mimetype"] == mimetype


@pytest.mark.parametrize("source", ["clip.mp4", "mute.mp4"])
def test_adaptive_video_is_a_playlist_of_a_playlist_of_segments(stack: Stack, tmp_path: Path, source: str) -> None:
    task = stack.task("adaptive_video", source, options={"width": 200})
    url = task["outputs"][0]["url"]
    assert task["outputs"][0]["mimetype"] == "application/vnd.apple.mpegurl"
    master = httpx.get(url).raise_for_status().text
    assert "RESOLUTION=200x150" in master
    [name] = [line for line in master.splitlines() if line and not line.startswith("#")]
    address = httpx.URL(url).join(name)
    lines = httpx.get(address).raise_for_status().text.splitlines()
    segment = next(line for line in lines if line.endswith(".ts"))
    (tmp_path / "part.ts").write_bytes(httpx.get(address.join(segment)).raise_for_status().content)
    assert probe(tmp_path / "part.ts").video == "h264"


def test_results_are_served_in_ranges(stack: Stack) -> None:
    url = stack.task("ingest", "clip.mp4")["outputs"][0]["url"]
    answer = httpx.get(url, headers={"Range": "bytes=4-7"})
    assert (answer.status_code, answer.content) == (206, b"ftyp")
    assert httpx.get(f"{stack.origin}/results/none/clip.mp4").status_code == 404


def test_only_results_are_served(copying: Stack, tmp_path: Path) -> None:
    (tmp_path / "ittybit" / "other").write_text("x")
    assert httpx.get(f"{copying.origin}/results/%2E%2E/other").status_code == 404


def test_results_can_have_another_origin(media: Path, tmp_path: Path) -> None:
    ittybit = Ittybit(api_key=KEY, directory=tmp_path, encode=False, results_origin="https://cdn.example")
    with Stack(media, ittybit) as stack:
        url = stack.task("video", "clip.mp4")["outputs"][0]["url"]
        assert url.startswith("https://cdn.example/results/")


def test_a_source_behind_a_redirect_is_ingested_unchanged(stack: Stack, media: Path, tmp_path: Path) -> None:
    task = stack.task("ingest", f"{stack.sources}/moved/clip.mp4")
    assert stack.output(task, tmp_path).read_bytes() == (media / "clip.mp4").read_bytes()


def test_without_encoding_the_output_is_the_source(copying: Stack, media: Path, tmp_path: Path) -> None:
    for kind in ("video", "adaptive_video"):
        task = copying.task(kind, "clip.mp4")
        assert copying.output(task, tmp_path).read_bytes() == (media / "clip.mp4").read_bytes()


def test_a_pause_lasts_until_the_next_start_and_another_pause_cancels_what_waits(copying: Stack) -> None:
    task = {"url": copying.file("clip.mp4"), "kind": "video"}
    copying.ittybit.pause()
    before = copying.post("/tasks", task)
    copying.ittybit.pause()
    after = copying.post("/tasks", task)
    copying.ittybit.start()
    assert copying.ended(f"/tasks/{after['id']}")["status"] == "succeeded"
    assert copying.get(f"/tasks/{before['id']}")["status"] == "cancelled"


def test_children_work_on_their_parents_output(stack: Stack) -> None:
    workflow = [
        {"kind": "ingest", "options": {"url": stack.file("clip.mp4")}, "next": [{"kind": "image"}]},
        {
            "kind": "adaptive_video",
            "url": stack.file("clip.mp4"),
            "options": {"width": 100},
            "next": [{"kind": "image", "options": {"format": "png"}}],
        },
    ]
    run = stack.ended(f"/runs/{stack.post('/runs', {'tasks': workflow, 'metadata': {'a': 1}})['id']}")
    assert (run["status"], run["metadata"]) == ("succeeded", {"a": 1}), run["error"]
    tasks = [stack.get(f"/tasks/{task['id']}") for task in run["tasks"]]
    assert [task["outputs"][0]["width"] for task in tasks] == [320, 320, 100, 100]


def test_a_failed_parent_cancels_its_descendants_and_not_its_siblings(stack: Stack) -> None:
    workflow = [
        {"kind": "audio", "next": [{"kind": "ingest", "next": [{"kind": "ingest"}]}]},
        {"kind": "image"},
    ]
    automation = stack.post("/automations", {"name": "a", "workflow": workflow})
    started = stack.post(f"/automations/{automation['id']}/run", {"url": stack.file("mute.mp4")})
    run = stack.ended(f"/runs/{started['id']}")
    assert [task["status"] for task in run["tasks"]] == ["failed", "cancelled", "cancelled", "succeeded"]
    assert run["status"] == "failed"
    assert run["error"] == {"kind": "format_unsupported", "message": "The source holds no sound."}


@pytest.mark.parametrize(
    ("kind", "source", "error_kind", "message"),
    [
        ("video", "none.mp4", "request_invalid", "The source answered 404."),
        ("video", "text.mp4", "format_unsupported", "The source holds no picture."),
        ("video", "tone.mp3", "format_unsupported", "The source holds no picture."),
        ("speech", "clip.mp4", "format_unsupported", "no speech"),
        ("conditions", "clip.mp4", "format_unsupported", "no conditions"),
    ],
)
def test_tasks_that_fail(stack: Stack, kind: str, source: str, error_kind: str, message: str) -> None:
    task = stack.task(kind, source)
    assert (task["status"], task["outputs"]) == ("failed", [])
    assert task["error"]["kind"] == error_kind
    assert message in task["error"]["message"]


def test_an_excerpt_beyond_the_end_fails(stack: Stack) -> None:
    for kind in ("image", "video", "audio"):
        task = stack.task(kind, "clip.mp4", options={"start": 60})
        assert (task["status"], task["error"]["kind"]) == ("failed", "request_invalid")
        assert "options.start" in task["error"]["message"]


def test_an_image_of_a_time_after_the_last_frame_fails(stack: Stack) -> None:
    task = stack.task("image", "clip.mp4", options={"start": 1.99})
    assert (task["status"], task["error"]["kind"]) == ("failed", "format_unsupported")


def test_a_dropped_download_fails_without_showing_the_sources_token(stack: Stack) -> None:
    stack.source_faults.add("GET", "/files/clip.mp4", drop="before")
    task = stack.task("video", f"{stack.file('clip.mp4')}?token=secret-token")
    assert task["error"]["kind"] == "request_invalid"
    assert "could not be fetched" in task["error"]["message"]
    assert "secret-token" not in task["error"]["message"]


def test_progress_grows(stack: Stack) -> None:
    options = {"width": 1920}
    created = stack.post("/tasks", {"url": stack.file("clip.mp4"), "kind": "video", "options": options})
    seen: list[tuple[str, float]] = []

    def watch() -> bool:
        task = stack.get(f"/tasks/{created['id']}")
        seen.append((task["status"], task["progress"]))
        return bool(task["status"] == "succeeded")

    until(watch, seconds=30, every=0.01)
    progress = [value for _, value in seen]
    assert progress == sorted(progress)
    assert any(status == "processing" and 0 < value < 100 for status, value in seen)


def test_stop_ends_running_work_and_leaves_no_temporary_file(media: Path, tmp_path: Path) -> None:
    ittybit = Ittybit(api_key=KEY, directory=tmp_path, workers=1)
    with Stack(media, ittybit) as stack:
        options = {"width": 1920, "format": "webm"}
        body = {"url": stack.file("clip.mp4"), "kind": "video", "options": options}
        running = stack.post("/tasks", body)["id"]
        waiting = stack.post("/tasks", body)["id"]
        until(lambda: stack.get(f"/tasks/{running}")["progress"])
        ittybit.stop()
        assert stack.get(f"/tasks/{running}")["status"] == "cancelled"
        assert stack.get(f"/tasks/{waiting}")["status"] == "waiting"
    assert [path.name for path in tmp_path.rglob("*")] == ["results"]


def test_an_ended_run_leaves_no_temporary_file(copying: Stack, tmp_path: Path) -> None:
    copying.task("video", "clip.mp4")
    copying.task("video", "none.mp4")
    until(lambda: not list((tmp_path / "ittybit" / "work").iterdir()))
