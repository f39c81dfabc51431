"""Media files on this machine: make a clip, and tell what a file holds. With the ffmpeg of a wheel."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg

from local.ittybit_server.probing import Media, parse


def make_clip(file: Path, *, seconds: int = 6, size: str = "1920x1080") -> None:
    """Write a clip with a moving picture and a tone: H.264 and AAC in MP4."""
    picture = f"testsrc2=duration={seconds}:size={size}:rate=25"
    tone = f"sine=frequency=440:duration={seconds}"
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest"]
    inputs = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-y", *inputs, *codecs, str(file)]
    subprocess.run(command, check=True)


def probe(file: Path) -> Media:
    """Decode the whole file and tell what it holds.

    Raises:
        ValueError: it does not decode.
    """
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-nostdin",
        "-xerror",
        "-i",
        str(file),
        "-f",
        "null",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise ValueError(f"{file.name} does not decode: {done.stderr.strip().splitlines()[-1:]}")
    return parse(done.stderr.partition("Stream mapping:")[0])
