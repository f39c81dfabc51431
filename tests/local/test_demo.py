"""The whole demo, run as a new user runs it; the tests open its results with ffmpeg."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import imageio_ffmpeg
import psutil
import pytest

from deploy.env_file import read
from local import demo
from local.demo import RESULTS
from local.functions import ROOT
from local.ittybit_server.media_file import Media
from local.media import make_clip, probe
from local.page import PORT
from local.serve import ENVIRONMENT
from local.server import Server
from shared.ittybit import GENERATIONS

COMMAND = [sys.executable, "-m", "local"]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Name a proxy in the environment; yield the list of the addresses that it is asked for."""
    asked: list[str] = []

    def answer(environ: Any, start: Any) -> list[bytes]:
        asked.append(environ["REQUEST_URI"])
        start("502 Bad Gateway", [("Content-Length", "0")])
        return []

    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(answer) as server:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, server.origin)
            monkeypatch.setenv(name.upper(), server.origin)
        yield asked


@pytest.mark.parametrize("api", ["automations", pytest.param("jobs", marks=pytest.mark.variation)])
def test_the_demo_brings_a_video_back_as_a_720p_video_a_still_and_its_soundtrack(
    tmp_path: Path, proxy: list[str], api: str
) -> None:
    clip = tmp_path / "höliday (1) & more.mp4"  # the demo replaces what Supabase refuses in a key
    make_clip(clip, seconds=3, size="1280x960")
    for old in RESULTS.glob("h_liday*"):
        old.unlink()

    command = [*COMMAND, "demo", "--api", api, str(clip)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert proxy == []
    video, still, sound = (probe(RESULTS / f"h_liday (1) & more{end}") for end in ("-720p.mp4", ".jpeg", ".mp3"))
    assert (video.width, video.height, video.video, video.audio) == (960, 720, "h264", "aac")
    assert video.duration == pytest.approx(3, abs=0.2)
    assert (still.width, still.height) == (640, 480)
    assert (sound.width, sound.audio) == (None, "mp3")
    assert re.search(r"s3://media/processed/clips/h_liday \(1\) & more-720p\.mp4 +video/mp4 +960x720", done.stdout)
    # Each change in the ledger is printed. The 720p video is a video in the watched bucket, and has no job.
    assert re.search(r" s    clips/h_liday \(1\) & more\.mp4 +video-720p +succeeded", done.stdout)
    assert " s    processed/" not in done.stdout
    # A run with an upload writes the still. In the API without runs, one job does.
    assert re.search(rf"still +succeeded +{'jobs' if api == 'jobs' else 'runs'}/", done.stdout)
    assert re.search(r"still +s3://media/processed/clips/h_liday \(1\) & more\.jpeg", done.stdout)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_demo_fetches_what_succeeded_when_the_rest_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, silent = tmp_path / "clip.mp4", tmp_path / "silent.mp4"
    make_clip(clip, seconds=2, size="320x180")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(clip), "-an", "-c", "copy", str(silent)]
    subprocess.run(command, check=True)
    for old in RESULTS.glob("silent*"):
        old.unlink()

    def probe_but_no_still(file: Path) -> Media:
        if file.suffix == ".jpeg":
            raise ValueError("it does not decode")
        return probe(file)

    opened: list[str] = []
    monkeypatch.setattr(demo, "probe", probe_but_no_still)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    with pytest.raises(demo.DemoError, match=r"^still: s3://media/processed/clips/silent\.jpeg: it does not decode$"):
        demo.run(silent, opens=True)

    printed = terminal.getvalue()
    assert probe(RESULTS / "silent-720p.mp4").height == 720
    assert re.search("clips/silent.mp4  soundtrack  \033\\[31mfailed\033\\[0m: .*no sound", printed), printed
    assert opened == [RESULTS.as_uri()]
    assert "There is no browser here" in printed
    assert f"http://127.0.0.1:{PORT}/" in printed
    # Bars are redrawn in place: in the end only lines are left.
    assert [what in printed for what in ("uploading  [###", "processing  [###")] == [True, True]
    lines = [line.rpartition("\033[K")[2] for line in printed.split("\n")]
    assert [line for line in lines if "[##" in line or "[.." in line] == []


@pytest.mark.parametrize(
    ("file", "message"),
    [("missing.mp4", "there is no file"), ("notes.txt", "is not a video by its name")],
)
def test_the_demo_says_what_is_wrong_with_a_file_before_it_starts_anything(
    tmp_path: Path, file: str, message: str
) -> None:
    (tmp_path / "notes.txt").write_text("no video")

    done = subprocess.run(
        [*COMMAND, "demo", str(tmp_path / file)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("end", "api"), [pytest.param(signal.SIGINT, "automations", marks=pytest.mark.variation), (signal.SIGTERM, "jobs")]
)
def test_serve_prints_how_to_use_it_and_leaves_nothing_running(end: signal.Signals, api: str) -> None:
    # A shell's background job ignores SIGINT. The tests' processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        subprocess.Popen(
            [*COMMAND, "serve", "--api", api],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as serving,
        contextlib.ExitStack() as ending,
    ):
        # Popen waits for the process, so it must end even if something here fails.
        ending.callback(serving.terminate)
        assert serving.stdout is not None
        printed = ""
        while "Ctrl-C ends it." not in printed:
            line = serving.stdout.readline()
            assert line, printed
            printed += line
        family = psutil.Process(serving.pid).children(recursive=True)
        opened = re.search(r"^Open  (\S+)#developer=\S+$", printed, re.MULTILINE)
        assert opened
        assert "main.js" in httpx.get(opened[1], trust_env=False).text
        assert ENVIRONMENT.stat().st_mode & 0o777 == 0o600
        environment = read(ENVIRONMENT)
        key = {"Authorization": f"Bearer {environment['ITTYBIT_API_KEY']}"}
        spoken = [
            generation
            for generation in GENERATIONS
            if httpx.get(f"{environment['ITTYBIT_API_URL']}/{generation}", headers=key, trust_env=False).is_success
        ]
        assert spoken == [api]
        command = [sys.executable, "-m", "deploy.doctor", "--env-file", str(ENVIRONMENT)]
        looked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        serving.send_signal(end)
        serving.stdout.read()
        serving.wait(30)

    # The doctor may find that pg_cron has not run yet, and nothing else.
    assert looked.returncode in (0, 1), looked.stdout + looked.stderr
    assert looked.stdout.count("\nok ") > 20
    assert not ENVIRONMENT.exists()
    assert printed.count("curl ") == 3
    assert len(family) > 3  # PostgreSQL and three functions were there
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
