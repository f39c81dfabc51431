"""Files like those of cameras, phones and broken uploads. Another build of FFmpeg makes them and reads the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from tests.local.ittybit_server.stack import Stack, ffmpeg, picture


@pytest.fixture(scope="module", autouse=True)
def files(media: Path) -> None:
    """Add these files to the plain ones."""
    clip, copied, h264 = media / "clip.mp4", ["-c", "copy"], ["-c:v", "libx264", "-preset", "ultrafast"]
    ffmpeg("-i", clip, "-timecode", "00:00:00:00", *copied, media / "timecode.mp4")
    ffmpeg("-display_rotation", "90", "-i", clip, *copied, media / "turned.mp4")
    ffmpeg("-i", clip, "-vf", "scale=1440:1080,setsar=4/3", *h264, media / "anamorphic.mp4")
    ffmpeg("-i", clip, "-vf", "select='lt(n,10)+not(mod(n,7))'", "-fps_mode", "vfr", *h264, media / "uneven.mp4")
    cover = ["-map", "0:a", "-map", "1:v", "-c", "copy", "-disposition:v", "attached_pic"]
    ffmpeg("-i", media / "tone.mp3", "-i", media / "still.png", *cover, media / "cover.mp3")
    ffmpeg("-i", clip, *copied, "-movflags", "+faststart", media / "index_first.mp4")
    (media / "cut.mp4").write_bytes(clip.read_bytes()[:50_000])
    Image.new("RGBA", (64, 48), (255, 0, 0, 0)).save(media / "clear.png")
    Image.new("RGB", (64, 48)).save(media / "tiled.avif")
    phone = Image.new("RGB", (64, 48), "blue")
    phone.paste("white", (0, 0, 32, 48))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright: rotate clockwise
    phone.save(media / "phone.jpg", exif=turned)
    spoiled = bytearray((media / "index_first.mp4").read_bytes())
    data = spoiled.index(b"mdat") + 4
    spoiled[data:] = bytes(len(spoiled) - data)
    (media / "spoiled.mp4").write_bytes(spoiled)


def decoded(path: Path) -> Image.Image:
    """The first frame, as the other build of FFmpeg decodes it."""
    ffmpeg("-i", path, "-frames:v", "1", "-update", "1", path.with_suffix(".check.png"))
    with Image.open(path.with_suffix(".check.png")) as image:
        return image.convert("RGB")


def colours(path: Path, *places: tuple[int, int]) -> list[str]:
    """The colours at these places, each as the nearest of a few names."""
    names = {"blue": (0, 0, 255), "white": (255, 255, 255), "black": (0, 0, 0)}
    found: list[Any] = [decoded(path).getpixel(place) for place in places]
    return [min(names, key=lambda one: sum((a - b) ** 2 for a, b in zip(names[one], at, strict=True))) for at in found]


def timestamps(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("timecode.mp4", (320, 240)),
        ("turned.mp4", (240, 320)),
        ("anamorphic.mp4", (1920, 1080)),
        ("uneven.mp4", (320, 240)),
        ("mute.mp4", (320, 240)),
    ],
)
def test_videos(stack: Stack, tmp_path: Path, source: str, size: tuple[int, int]) -> None:
    task = stack.task("video", source)
    path = stack.output(task, tmp_path)
    assert (task["inputs"][0]["width"], task["inputs"][0]["height"]) == size
    assert picture(path)["size"] == size
    assert picture(path)["duration"] == pytest.approx(2, abs=0.1)
    assert ("audio" in task["outputs"][0]["codecs"]) == (source != "mute.mp4")


@pytest.mark.parametrize("name", ["a.avi", "a.wmv", "a.ts", "a.mkv", "a.mov", "a.webm"])
def test_an_excerpt_of_every_container(stack: Stack, media: Path, tmp_path: Path, name: str) -> None:
    ffmpeg("-i", media / "clip.mp4", media / name)
    path = stack.output(stack.task("video", name, options={"start": 1, "end": 1.5}), tmp_path)
    assert 12 <= len(timestamps(path)) <= 13
    assert "Audio: aac" in ffmpeg("-i", path, "-f", "null", "-")


def test_an_anamorphic_video_keeps_its_shape(stack: Stack, tmp_path: Path) -> None:
    path = stack.output(stack.task("video", "anamorphic.mp4", options={"width": 1280}), tmp_path)
    assert picture(path)["size"] == (1280, 720)


def test_frames_keep_their_timestamps(stack: Stack, media: Path, tmp_path: Path) -> None:
    path = stack.output(stack.task("video", "uneven.mp4"), tmp_path)
    assert timestamps(path) == pytest.approx(timestamps(media / "uneven.mp4"), abs=0.002)


def test_transparency_is_kept(stack: Stack, tmp_path: Path) -> None:
    kept = stack.output(stack.task("image", "clear.png", options={"format": "png"}), tmp_path)
    with Image.open(kept) as image:
        assert image.getpixel((10, 10)) == (255, 0, 0, 0)


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_a_photo_is_rotated_once(stack: Stack, tmp_path: Path, image_format: str) -> None:
    task = stack.task("image", "phone.jpg", options={"format": image_format})
    assert (task["inputs"][0]["width"], task["inputs"][0]["duration"]) == (48, None)
    path = stack.output(task, tmp_path)
    assert decoded(path).size == (48, 64)
    assert colours(path, (24, 10), (24, 54)) == ["white", "blue"]


def test_cover_art_does_not_count_as_video(stack: Stack) -> None:
    task = stack.task("audio", "cover.mp3", options={"format": "wav"})
    assert task["outputs"][0]["codecs"] == {"audio": {"codec": "pcm_s16le"}}
    assert task["outputs"][0]["duration"] == pytest.approx(2, abs=0.1)
    assert stack.task("video", "cover.mp3")["error"]["message"] == "The source holds no picture."


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cut.mp4", "holds no picture"),
        ("spoiled.mp4", "is damaged"),
        ("text.mp4", "holds no picture"),
        ("tiled.avif", "holds no picture"),
    ],
)
def test_a_file_that_cannot_be_decoded_fails(stack: Stack, source: str, message: str) -> None:
    for kind in ("video", "image"):
        error = stack.task(kind, source)["error"]
        assert error["kind"] == "format_unsupported"
        assert message in error["message"]


def test_audio_with_another_rate_and_other_channels_is_converted(stack: Stack, media: Path, tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1:sample_rate=96000", "-ac", "6", "-c:a", "flac", media / "studio.flac")
    for audio_format in ("mp3", "aac", "opus", "wav"):
        task = stack.task("audio", "studio.flac", options={"format": audio_format})
        path = stack.output(task, tmp_path)
        assert task["outputs"][0]["duration"] == pytest.approx(1, abs=0.1)
        assert "48000 Hz, stereo" in ffmpeg("-i", path, "-f", "null", "-")
