"""Media files on this machine: make a clip, and probe a file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import av
from av import AudioFrame, VideoFrame
from av.filter import Graph

from local.ittybit_server.media_file import Media, MediaFile

Frame = TypeVar("Frame", VideoFrame, AudioFrame)
_PICTURE_RATE, _SOUND_RATE, _SAMPLES = 25, 44_100, 1024


def make_clip(file: Path, *, seconds: int = 6, size: str = "1920x1080") -> None:
    """Write a clip with a moving picture and a tone: H.264 and AAC in MP4."""
    width, height = map(int, size.split("x"))
    picture, tone = Graph(), Graph()
    picture.link_nodes(
        picture.add("testsrc2", f"duration={seconds}:size={size}:rate={_PICTURE_RATE}"),
        picture.add("format", "yuv420p"),
        picture.add("buffersink"),
    ).configure()
    tone.link_nodes(
        tone.add("sine", f"frequency=440:duration={seconds}:sample_rate={_SOUND_RATE}:samples_per_frame={_SAMPLES}"),
        tone.add("abuffersink"),
    ).configure()
    with av.open(str(file), "w", format="mp4") as output:
        video = output.add_stream("libx264", rate=_PICTURE_RATE, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = output.add_stream("aac", rate=_SOUND_RATE, layout="mono")
        # A second of each in turn, so that players need not look far for the sound.
        for _ in range(seconds):
            for _ in range(_PICTURE_RATE):
                output.mux(video.encode(_pull(picture, VideoFrame)))
            for _ in range(_SOUND_RATE // _SAMPLES):
                output.mux(audio.encode(_pull(tone, AudioFrame)))
        output.mux([*video.encode(None), *audio.encode(None)])


def _pull(graph: Graph, kind: type[Frame]) -> Frame:
    frame = graph.pull()
    if not isinstance(frame, kind):
        raise TypeError(f"{frame} is no {kind.__name__}")
    return frame


def probe(file: Path) -> Media:
    """Decode the whole file and tell what it holds.

    Raises:
        ValueError: it does not decode.
    """
    with MediaFile(file) as opened:
        frames = sum(1 for _ in opened.frames(video=True, audio=True))
        if not frames:
            raise ValueError(f"{file.name} does not decode")
        return opened.media
