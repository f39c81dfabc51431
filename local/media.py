"""Media files on this machine: make a clip, and probe a file."""

from __future__ import annotations

from pathlib import Path

import av
from av import AudioFrame, VideoFrame

from local.ittybit_server.media_file import Media, MediaFile


def make_clip(file: Path, *, seconds: int = 6, size: str = "1920x1080") -> None:
    """Write a clip with a moving picture and a tone: H.264 and AAC in MP4."""
    picture = f"testsrc2=duration={seconds}:size={size}:rate=25,format=yuv420p[out0]"
    tone = f"sine=frequency=440:duration={seconds}[out1]"
    with av.open(f"{picture};{tone}", format="lavfi") as source, av.open(str(file), "w", format="mp4") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height = map(int, size.split("x"))
        audio = output.add_stream("aac", rate=44_100, layout="mono")
        for packet in source.demux():
            for frame in packet.decode():
                if isinstance(frame, VideoFrame):
                    output.mux(video.encode(frame))
                elif isinstance(frame, AudioFrame):
                    output.mux(audio.encode(frame))
        output.mux([*video.encode(None), *audio.encode(None)])


def probe(file: Path) -> Media:
    """Decode the whole file, and return what it contains.

    Raises:
        ValueError: it does not decode.
    """
    with MediaFile(file) as opened:
        frames = sum(1 for _ in opened.frames(video=True, audio=True))
        if not frames:
            raise ValueError(f"{file.name} does not decode")
        return opened.media
