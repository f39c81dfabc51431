"""Re-encoding a file inside this process, with FFmpeg's libraries: decode, filter, encode and mux.

Outputs suit every player: H.264, VP9 or the format's own codec, 8 bits a colour, square pixels, upright, one video
track and one stereo audio track at 48 kHz. The encoders use their fastest presets. The rest of the source:

- The frame rate stays the same, even a variable one.
- Cover art does not count as video: audio with cover art is audio. Subtitles, time codes and other tracks are dropped.
- Excerpts are cut between frames: start and end of audio are exact to about 20 ms.

Left out: HDR (PQ or HLG) is not tone-mapped, so its colours look pale; transparency is kept in PNG and WebP, but not
blended with a background in other formats; adaptive video has one rendition.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av import AudioFrame, AudioStream, VideoFrame, VideoStream
from av.container import OutputContainer
from av.filter import Graph

from local.ittybit_server.errors import StoppedError, TaskError
from local.ittybit_server.media_file import Media, MediaFile
from local.ittybit_server.options import (
    AdaptiveVideoOptions,
    AudioOptions,
    Encoded,
    Excerpt,
    ImageOptions,
    VideoOptions,
)

_H264 = ("libx264", "yuv420p", {"preset": "ultrafast", "crf": "28"})
_VP9 = ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8", "crf": "37"})
# For each format: the encoder of its picture, with pixel format and options. Below: the encoder of its audio.
_PICTURES: dict[str, tuple[str, str, dict[str, str]]] = {
    "mp4": _H264,
    "mov": _H264,
    "hls": _H264,
    "webm": _VP9,
    "jpeg": ("mjpeg", "yuvj420p", {"qmin": "6", "qmax": "6"}),
    "png": ("png", "rgba", {}),
    "webp": ("libwebp", "yuva420p", {"quality": "70"}),
}
_SOUNDS = {
    "mp4": "aac",
    "mov": "aac",
    "hls": "aac",
    "webm": "libopus",
    "mp3": "libmp3lame",
    "aac": "aac",
    "opus": "libopus",
    "wav": "pcm_s16le",
}
_CONTAINERS = {"aac": "adts", "jpeg": "image2", "png": "image2", "webp": "image2"}
_MUXERS = {
    "mp4": {"movflags": "+faststart"},
    "mov": {"movflags": "+faststart"},
    "hls": {"hls_time": "4", "hls_playlist_type": "vod"},
    "image2": {"update": "1"},
}
# The rotations that a file can specify, in degrees counterclockwise, and the filters that apply them.
_TURNS = {
    90: [("transpose", "cclock")],
    180: [("hflip", ""), ("vflip", "")],
    270: [("transpose", "clock")],
}
_ROUNDING = 1e-6


def transcode(
    source: Path, options: Encoded, target: Path, stopped: threading.Event, progress: Callable[[float], None]
) -> None:
    """Encode the source into the target.

    Args:
        source: The file to read.
        options: The target's format, and its size and excerpt if any.
        target: The file to write; for ``hls`` the master playlist, with the other files next to it.
        stopped: Set to abort the work.
        progress: Called after each frame with the share that is done, 0 to 1; not if the end is unknown.

    Raises:
        TaskError: The source cannot be decoded, lacks a picture or audio, or has no frame in the requested part.
        StoppedError: ``stopped`` was set.
    """
    container, extra = _CONTAINERS.get(options.format, options.format), dict[str, str]()
    if container == "hls":
        extra = {"master_pl_name": target.name, "hls_segment_filename": str(target.with_name("segment-%d.ts"))}
        target = target.with_name("stream.m3u8")
    muxer = _MUXERS.get(container, {}) | extra
    try:
        with MediaFile(source) as file:
            _check(options, file.media)
            with av.open(str(target), "w", container, options=muxer) as output:
                tracks: list[_Picture | _Sound] = []
                if not isinstance(options, AudioOptions):
                    tracks.append(_Picture(file, options, output))
                if file.audio and options.format in _SOUNDS:
                    tracks.append(_Sound(_SOUNDS[options.format], output))
                _encode(file, options, tracks, stopped, progress)
    except (av.error.FFmpegError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise TaskError("format_unsupported", f"The source could not be encoded: {words}.") from error


def _check(options: Encoded, media: Media) -> None:
    if isinstance(options, AudioOptions) and media.audio is None:
        raise TaskError("format_unsupported", "The source holds no sound.")
    if not isinstance(options, AudioOptions) and media.video is None:
        raise TaskError("format_unsupported", "The source holds no picture.")
    if options.start >= (media.duration or math.inf):
        raise TaskError("request_invalid", "options.start lies beyond the source's end.")


def _encode(
    file: MediaFile,
    options: Encoded,
    tracks: list[_Picture | _Sound],
    stopped: threading.Event,
    progress: Callable[[float], None],
) -> None:
    # A still picture has no time line: ``start`` is ignored.
    start = options.start if file.media.duration else 0
    end = min((options.end if isinstance(options, Excerpt) else None) or math.inf, file.media.duration or math.inf)
    found = set[type]()
    for frame in _part(file, start, end, {track.kind for track in tracks}):
        if stopped.is_set():
            raise StoppedError
        found.add(type(frame))
        for track in tracks:
            if isinstance(frame, track.kind):
                track.send(frame)
        if isinstance(options, ImageOptions):
            break
        if end < math.inf:
            progress(min((frame.time or 0) / (end - start), 1))
    if tracks[0].kind not in found:
        raise TaskError("format_unsupported", "Nothing was encoded: no frame lies in the requested part.")
    for track in tracks:
        track.end()


def _part(file: MediaFile, start: float, end: float, kinds: set[type]) -> Iterator[VideoFrame | AudioFrame]:
    """The frames of these kinds between two times of the source, with timestamps that count from ``start``."""
    for frame in file.frames(video=VideoFrame in kinds, audio=AudioFrame in kinds, start=start):
        moment = (frame.time or 0) - file.start
        if moment >= end:
            kinds.discard(type(frame))
        elif moment - start > -_ROUNDING:
            frame.pts = round((moment - start) / (frame.time_base or Fraction(1, 25)))
            yield frame
        if not kinds:
            break


class _Picture:
    """Filters and encodes the video or image."""

    kind: type = VideoFrame

    def __init__(
        self, file: MediaFile, options: VideoOptions | AdaptiveVideoOptions | ImageOptions, output: OutputContainer
    ) -> None:
        codec, self._pixels, settings = _PICTURES[options.format]
        stream = output.add_stream(codec, rate=file.rate, options=settings)
        if file.video is None or not isinstance(stream, VideoStream):
            raise TypeError(f"{codec} cannot encode this picture")
        stream.width, stream.height = _size(options, file.media)
        stream.pix_fmt = self._pixels
        stream.thread_count = 1
        stream.codec_context.time_base = file.video.time_base or 1 / file.rate
        self._stream, self._output = stream, output
        self._graph = Graph()
        self._graph.threads = 1

    def send(self, frame: VideoFrame | AudioFrame) -> None:
        """Encode a frame, whose timestamp is that of the output."""
        if isinstance(frame, VideoFrame) and not self._graph.configured:
            self._configure(frame)
        self._graph.push(frame)
        self._pull()

    def end(self) -> None:
        """Encode the remaining frames."""
        self._graph.push(None)
        self._pull()
        self._output.mux(self._stream.encode(None))

    def _configure(self, frame: VideoFrame) -> None:
        filters = [
            *_TURNS.get(frame.rotation % 360, []),
            ("scale", f"{self._stream.width}:{self._stream.height}"),
            ("setsar", "1"),
            ("sidedata", "mode=delete"),  # else the output would specify the rotation that was applied already
            ("format", self._pixels),
            ("buffersink", ""),
        ]
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        nodes = [self._graph.add(name, arguments or None) for name, arguments in filters]
        self._graph.link_nodes(source, *nodes).configure()

    def _pull(self) -> None:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            frame.pict_type = 0  # the encoder chooses its key frames itself
            self._output.mux(self._stream.encode(frame))


class _Sound:
    """Encodes the audio. The encoder's own resampler converts it to what the encoder takes."""

    kind: type = AudioFrame

    def __init__(self, codec: str, output: OutputContainer) -> None:
        stream = output.add_stream(codec, rate=48_000, layout="stereo")
        if not isinstance(stream, AudioStream):
            raise TypeError(f"{codec} cannot encode audio")
        self._stream, self._output = stream, output

    def send(self, frame: VideoFrame | AudioFrame) -> None:
        """Encode a frame, whose timestamp is that of the output."""
        if isinstance(frame, AudioFrame):
            self._output.mux(self._stream.encode(frame))

    def end(self) -> None:
        """Encode the remaining frames."""
        self._output.mux(self._stream.encode(None))


def _size(options: VideoOptions | AdaptiveVideoOptions | ImageOptions, media: Media) -> tuple[int, int]:
    """The size of the output in pixels. A video's sides are even: its colours are stored at half the resolution."""
    own, step = (media.width or 2, media.height or 2), 1 if isinstance(options, ImageOptions) else 2
    sides = zip((options.width, options.height), own, strict=True)
    scale = min((wanted / side for wanted, side in sides if wanted), default=1)
    width, height = (max(round(side * scale / step), 1) * step for side in own)
    return width, height
