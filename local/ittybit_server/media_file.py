"""An open media file: its properties and its frames, read with FFmpeg's libraries through PyAV.

Left out: mirroring, which a file may specify in addition to a rotation. HEIC, AVIF and animated WebP do not count as
media: FFmpeg's libraries return the tiles of HEIC and AVIF one by one. A truncated video is read as far as it goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
from av import AudioFrame, AudioStream, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition

# Files only: a playlist as a source must not make FFmpeg fetch other addresses.
_OPTIONS = {"protocol_whitelist": "file"}
_INDEXED = ("mp4", "matroska")
_TILED = {"heic", "heix", "hevc", "mif1", "msf1", "avif", "avis"}


@dataclass(frozen=True)
class Media:
    """The properties of a file that the API shows; None where there is none or it is unknown.

    Attributes:
        width: In pixels, as displayed: rotated as the file says, with square pixels.
        height: In pixels, likewise.
        duration: Seconds; None for a still picture.
        bitrate: Bits per second over all streams.
        framerate: Frames per second, on average.
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


class MediaFile:
    """A file, its first video stream (cover art does not count) and its first audio stream; use it in a ``with`` block.

    Attributes:
        media: Its properties; all None if FFmpeg cannot read it as media.
        start: The time of its first frame, in seconds.
        video, audio: The streams.
    """

    def __init__(self, path: Path) -> None:
        self.media = Media()
        self.start = 0.0
        self.video: VideoStream | None = None
        self.audio: AudioStream | None = None
        self._container: InputContainer | None = None
        with contextlib.suppress(av.error.FFmpegError):
            self._container = av.open(str(path), options=_OPTIONS)
            self.media = self._look(path, self._container)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._container:
            self._container.close()

    @property
    def rate(self) -> Fraction:
        """Frames per second; 25 if there is no video or its rate is unknown."""
        return (self.video and (self.video.average_rate or self.video.guessed_rate)) or Fraction(25)

    def frames(self, *, video: bool, audio: bool, start: float = 0) -> Iterator[VideoFrame | AudioFrame]:
        """Decode from the last key frame before ``start`` or, in formats without an index, from the beginning.

        A packet that cannot be decoded is skipped, as players do.

        Raises:
            ValueError: A stream has damaged packets and none that decodes, or reading the file fails.
        """
        streams = [one for one, wanted in ((self.video, video), (self.audio, audio)) if one and wanted]
        if self._container is None or not streams:
            return
        if start and any(name in self._container.format.name for name in _INDEXED):
            with contextlib.suppress(av.error.FFmpegError):
                self._container.seek(int((self.start + start) * av.time_base))
        broken, decoded = set[int](), set[int]()
        for packet in self._container.demux(streams):
            try:
                for frame in packet.decode():
                    if isinstance(frame, VideoFrame | AudioFrame):
                        decoded.add(packet.stream.index)
                        yield frame
            except av.error.InvalidDataError:
                broken.add(packet.stream.index)
        if broken - decoded:
            raise ValueError("it is damaged, and its video or audio cannot be decoded")

    def _look(self, path: Path, container: InputContainer) -> Media:
        if container.metadata.get("major_brand") in _TILED:
            return Media()
        pictures = (one for one in container.streams.video if not one.disposition & Disposition.attached_pic)
        self.video = next(pictures, None)
        self.audio = next(iter(container.streams.audio), None)
        for stream in (self.video, self.audio):
            if stream:
                stream.codec_context.thread_count = 1
        self.start = (container.start_time or 0) / av.time_base
        width, height = _size(path, self.video) if self.video else (None, None)
        rate = self.video and self.video.average_rate
        still = not container.duration or container.format.name == "image2" or container.format.name.endswith("_pipe")
        return Media(
            width=width,
            height=height,
            duration=None if still else (container.duration or 0) / av.time_base,
            bitrate=container.bit_rate or None,
            framerate=float(rate) if rate and not still else None,
            video=_codec(self.video),
            audio=_codec(self.audio),
        )


def probe(path: Path) -> Media:
    """The file's properties; all None if FFmpeg cannot read it as media."""
    with MediaFile(path) as file:
        return file.media


def _size(path: Path, video: VideoStream) -> tuple[int, int] | tuple[None, None]:
    """Width and height as displayed. The rotation comes with the first frame, which a second handle decodes."""
    if not video.width:
        return None, None
    width, height = round(video.width * (video.sample_aspect_ratio or 1)), video.height
    place = [one.index for one in video.container.streams.video].index(video.index)
    with contextlib.suppress(av.error.FFmpegError, StopIteration), av.open(str(path), options=_OPTIONS) as other:
        if next(other.decode(video=place)).rotation % 180:
            width, height = height, width
    return width, height


def _codec(stream: VideoStream | AudioStream | None) -> str | None:
    return stream.codec_context.codec.canonical_name if stream else None
