from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.ittybit_server import Ittybit
from tests.local.ittybit_server.stack import KEY, Stack, ffmpeg


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``clip.mp4`` (320x240, 25 fps, 2 s, with sound), ``mute.mp4``, ``tone.mp3``, ``still.png``
    (64x48) and ``text.mp4``, which is not media.
    """
    folder = tmp_path_factory.mktemp("media")
    test_picture = ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=2"]
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=2"]
    h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    ffmpeg(*test_picture, *tone, *h264, "-c:a", "aac", folder / "clip.mp4")
    ffmpeg("-i", folder / "clip.mp4", "-an", "-c:v", "copy", folder / "mute.mp4")
    ffmpeg(*tone, "-c:a", "libmp3lame", folder / "tone.mp3")
    ffmpeg("-i", folder / "clip.mp4", "-frames:v", "1", "-s", "64x48", folder / "still.png")
    (folder / "text.mp4").write_text("no media at all")
    return folder


@pytest.fixture(scope="module")
def stack(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with an ittybit that encodes, for all tests of one file."""
    with Stack(media, Ittybit(api_key=KEY, directory=tmp_path_factory.mktemp("ittybit"))) as running:
        yield running


@pytest.fixture
def copying(media: Path, tmp_path: Path) -> Iterator[Stack]:
    """A running stack with an ittybit that does not encode, new for each test."""
    with Stack(media, Ittybit(api_key=KEY, directory=tmp_path / "ittybit", encode=False)) as running:
        yield running
