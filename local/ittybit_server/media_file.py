"""A media file that is open: what it holds, and its frames. Read with FFmpeg's libraries, through PyAV.

HEIC pictures are read with libheif: phones store them as tiles, which FFmpeg's libraries hand out one by one.
Left out: mirroring, which a file may ask for beside a turn; tiled AVIF pictures, of which the first tile comes out;
animated WebP, which is no media here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import pi_heif
from av import AudioFrame, AudioStream, VideoFrame, VideoStream
from av.container import InputContainer
from av.stream import Disposition

from local.ittybit_server.frame_timestamps import Timing

Filters = list[tuple[str, str]]
"""Names and arguments of FFmpeg's filters, one after the other."""

# Counterclockwise degrees that a file notes, and the filters that show a frame as it asks.
_TURNS: dict[int, Filters] = {
    90: [("transpose", "cclock")],
    180: [("hflip", ""), ("vflip", "")],
    270: [("transpose", "clock")],
}
_INDEXED = ("mp4", "matroska")
# What MP4, MOV and HEIC files are made of.
_BOXES = {b"ftyp", b"moov", b"mdat", b"meta", b"moof", b"mfra", b"sidx", b"styp", b"free", b"skip", b"wide", b"uuid"}
# Only files: a playlist sent as a source must not make FFmpeg fetch from anywhere.
_OPTIONS = {"protocol_whitelist": "file"}


@dataclass(frozen=True)
class Media:
    """The properties that the API shows of a file; None where it has none or they are unknown.

    Attributes:
        width: Pixels across, as shown: turned as the file says, with square pixels.
        height: Pixels down, likewise.
        duration: Seconds; None for a still picture.
        bitrate: Bits per second over all streams.
        framerate: Frames per second, on average.
        video: Name of the video or image codec.
        audio: Name of the audio codec.
        damaged: Whether the file breaks off, or is of a known format and cannot be read.
        alpha: Whether the picture may be transparent.
    """

    width: int | None = None
    height: int | None = None
    duration: float | None = None
    bitrate: int | None = None
    framerate: float | None = None
    video: str | None = None
    audio: str | None = None
    damaged: bool = False
    alpha: bool = False


class MediaFile:
    """A file with its first picture, cover art aside, and its first sound; use it in a ``with`` block.

    Attributes:
        media: What it holds.
        start: The moment of its first frame, in seconds.
    """

    def __init__(self, path: Path) -> None:
        self._closing = contextlib.ExitStack()
        self._video: VideoStream | None = None
        self._audio: AudioStream | None = None
        self._still: VideoFrame | None = None
        self._container: InputContainer | None = None
        self.start = 0.0
        try:
            if pi_heif.get_file_mimetype(path) in {"image/heic", "image/heif"}:
                self.media = self._open_heic(path)
            else:
                self.media = self._open(path)
        except av.error.FFmpegError:
            self.media = Media(damaged=_is_iso(path))
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def rate(self) -> Fraction:
        """Frames per second; 25 where that means nothing."""
        return (self._video and (self._video.average_rate or self._video.guessed_rate)) or Fraction(25)

    @property
    def time_base(self) -> Fraction:
        """The unit of the picture's moments, in seconds."""
        return (self._video and self._video.time_base) or Fraction(1, 25)

    @property
    def audio(self) -> AudioStream | None:
        """The sound's stream."""
        return self._audio

    def frames(self, *, video: bool, audio: bool, start: float = 0) -> Iterator[VideoFrame | AudioFrame]:
        """Decode, from the last key frame before ``start`` on or, where there is no index, from the beginning.

        A packet that does not decode is passed over, as players do.

        Raises:
            ValueError: Of one of them nothing decodes, or the file cannot be read on.
        """
        if self._still:
            yield self._still
            return
        streams = [one for one, wanted in ((self._video, video), (self._audio, audio)) if one and wanted]
        if self._container is None or not streams:
            return
        if start and any(name in self._container.format.name for name in _INDEXED):
            with contextlib.suppress(av.error.FFmpegError):
                self._container.seek(int((self.start + start) * av.time_base))
        timing = {one.index: Timing(self.rate) for one in streams}
        broken, decoded = set[int](), set[int]()
        for packet in self._container.demux(streams):
            try:
                for frame in packet.decode():
                    if isinstance(frame, VideoFrame | AudioFrame):
                        decoded.add(packet.stream.index)
                        timing[packet.stream.index].settle(frame)
                        yield frame
            except av.error.InvalidDataError:
                broken.add(packet.stream.index)
        if broken - decoded:
            raise ValueError("it is damaged, and nothing of its picture or sound decodes")

    def shown(self, frame: VideoFrame) -> Filters:
        """The filters that turn a frame as the file says."""
        return _TURNS.get(frame.rotation % 360, [])

    def _open(self, path: Path) -> Media:
        container = self._closing.enter_context(av.open(str(path), options=_OPTIONS))
        self._container = container
        pictures = (one for one in container.streams.video if not one.disposition & Disposition.attached_pic)
        self._video = next(pictures, None)
        self._audio = next(iter(container.streams.audio), None)
        for stream in (self._video, self._audio):
            if stream:
                stream.codec_context.thread_count = 1
        self.start = (container.start_time or 0) / av.time_base
        width, height = self._size(path, self._video) if self._video else (None, None)
        rate = self._video and self._video.average_rate
        still = not container.duration or container.format.name == "image2" or container.format.name.endswith("_pipe")
        return Media(
            width=width,
            height=height,
            duration=None if still else (container.duration or 0) / av.time_base,
            bitrate=container.bit_rate or None,
            framerate=float(rate) if rate and not still else None,
            video=_codec(self._video),
            audio=_codec(self._audio),
            damaged=_breaks_off(path),
            alpha=self._transparent(),
        )

    def _size(self, path: Path, video: VideoStream) -> tuple[int, int] | tuple[None, None]:
        """Width and height as shown. The turn is noted beside the first frame, which is read from a second handle."""
        if not video.width:
            return None, None
        width, height = video.width, video.height
        if video.sample_aspect_ratio:
            width = round(width * video.sample_aspect_ratio)
        place = [one.index for one in video.container.streams.video].index(video.index)
        with contextlib.suppress(av.error.FFmpegError, StopIteration), av.open(str(path), options=_OPTIONS) as other:
            if next(other.decode(video=place)).rotation % 180:
                width, height = height, width
        return width, height

    def _transparent(self) -> bool:
        pixels = self._video and self._video.codec_context.format
        return bool(pixels and (pixels.has_palette or any(one.is_alpha for one in pixels.components)))

    def _open_heic(self, path: Path) -> Media:
        try:
            read = pi_heif.open_heif(path)
            picture = read.to_pillow().convert("RGBA")
        except (ValueError, OSError, EOFError, RuntimeError):
            return Media(damaged=True)
        self._still = VideoFrame.from_bytes(picture.tobytes(), *picture.size)
        self._still.pts, self._still.time_base = 0, Fraction(1, 25)
        return Media(
            width=picture.width, height=picture.height, video="hevc", damaged=_breaks_off(path), alpha=read.has_alpha
        )


def probe(path: Path) -> Media:
    """The file's streams; none, if FFmpeg does not know it as media."""
    with MediaFile(path) as file:
        return file.media


def _breaks_off(path: Path) -> bool:
    """Whether an MP4, MOV or HEIC file ends before the last of its boxes, each of which says how long it is."""
    size, place, end = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:])
            if kind not in _BOXES:  # something else may be appended to a whole file
                break
            end = place + length
            place = end if length else size
    return end > size


def _is_iso(path: Path) -> bool:
    """Whether this begins as MP4, MOV and HEIC files do."""
    with path.open("rb") as file:
        return file.read(8)[4:] in _BOXES


def _codec(stream: VideoStream | AudioStream | None) -> str | None:
    return stream.codec_context.codec.canonical_name if stream else None
