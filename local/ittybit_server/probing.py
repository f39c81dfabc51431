"""What a media file holds, read from what ``ffmpeg -i`` writes: the wheel has no ffprobe."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+)", re.MULTILINE)
_BITRATE = re.compile(r"^  Duration: .*, bitrate: (\d+) kb/s", re.MULTILINE)
_STREAM = re.compile(r"^  Stream #\d+:\d+\S*: (Video|Audio): (\S+?)(?:,| )(.*(?:\n {4,}.*)*)", re.MULTILINE)
# After a comma: a codec's tag, such as "avc1 / 0x31637661", is otherwise a size as well.
_SIZE = re.compile(r", (\d+)x(\d+)(?=[ ,\n]|$)")
_FRAMERATE = re.compile(r", (\d+(?:\.\d+)?) fps\b")
_ROTATION = re.compile(r"displaymatrix: rotation of (-?\d+)")


@dataclass(frozen=True)
class Media:
    """The properties that the API shows of a file; None where it has none or they are unknown.

    Attributes:
        width: Pixels across, as shown (after the rotation a phone notes in the file).
        height: Pixels down, likewise.
        duration: Seconds.
        bitrate: Bits per second over all streams.
        framerate: Frames per second.
        video: Name of the video or image codec.
        audio: Name of the audio codec.
    """

    width: int | None = None
    height: int | None = None
    duration: float | None = None
    bitrate: int | None = None
    framerate: float | None = None
    video: str | None = None
    audio: str | None = None


def parse(text: str) -> Media:
    """Read ffmpeg's description of its input: the first stream of each sort; cover art is no video."""
    found: dict[str, tuple[str, str]] = {}
    for sort, codec, rest in _STREAM.findall(text):
        if "(attached pic)" not in rest.partition("\n")[0]:
            found.setdefault(sort, (codec, f", {rest}"))
    duration, bitrate = _DURATION.search(text), _BITRATE.search(text)
    video, picture = found.get("Video", (None, ""))
    audio, _ = found.get("Audio", (None, ""))
    size, framerate = _SIZE.search(picture), _FRAMERATE.search(picture)
    width, height = (int(size[1]), int(size[2])) if size else (None, None)
    if (turned := _ROTATION.search(picture)) and int(turned[1]) % 180:
        width, height = height, width
    return Media(
        width=width,
        height=height,
        duration=int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3]) if duration else None,
        bitrate=int(bitrate[1]) * 1000 if bitrate else None,
        framerate=float(framerate[1]) if framerate else None,
        video=video,
        audio=audio,
    )
