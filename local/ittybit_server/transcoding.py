"""Encoding a file anew: decode, filter, encode and mux, with FFmpeg's libraries and in this process.

Parts are cut between frames: a sound's begin and end are exact to some 20 ms.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av import AudioFrame, AudioStream, VideoFrame, VideoStream
from av.container import OutputContainer
from av.filter import Graph
from av.filter.context import FilterContext

from local.ittybit_server.encoder_settings import Encoding, PictureTrack, SoundTrack
from local.ittybit_server.errors import StoppedError, TaskError
from local.ittybit_server.media_file import MediaFile

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes its settings to standard error otherwise

_HDR = {16, 18}  # the transfer functions PQ and HLG, as H.273 numbers them
_BT709 = 1
_ROUNDING = 1e-6
_SDR = ":out_primaries=bt709:out_transfer=bt709:out_color_matrix=bt709"


def transcode(
    source: Path, plan: Encoding, target: Path, stopped: threading.Event, progress: Callable[[float], None]
) -> None:
    """Encode.

    Args:
        source: The file to read.
        plan: What to make of it.
        target: The file to write; HLS playlists have ``%v`` in their path.
        stopped: Set when the work is to be given up.
        progress: Called with the share that is done, 0 to 1, after each frame; not if the length is unknown.

    Raises:
        TaskError: ``format_unsupported``: it does not decode, or no frame lies in the part asked for.
        StoppedError: ``stopped`` was set.
    """
    segments = {"hls_segment_filename": str(target.with_name("segment-%d.ts"))} if plan.container == "hls" else {}
    try:
        with (
            MediaFile(source) as file,
            av.open(str(target), "w", plan.container, options=plan.options | segments) as output,
        ):
            tracks: list[_Track] = [_Picture(file, plan, track, output) for track in plan.pictures]
            tracks += [_Sound(file, track, output) for track in plan.sounds]
            for frame in _part(file, plan):
                if stopped.is_set():
                    raise StoppedError
                for track in tracks:
                    if isinstance(frame, track.kind):
                        track.send(frame)
                if plan.seconds:
                    progress(min((frame.time or 0) / plan.seconds, 1))
            for track in tracks:
                track.end()
    except (av.error.FFmpegError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise TaskError("format_unsupported", f"The source could not be encoded: {words}.") from error


def _part(file: MediaFile, plan: Encoding) -> Iterator[VideoFrame | AudioFrame]:
    """The frames that the plan takes from the source, their moments counted from its start on."""
    reading: set[type] = {kind for kind, tracks in ((VideoFrame, plan.pictures), (AudioFrame, plan.sounds)) if tracks}
    found = set[type]()
    for frame in file.frames(video=bool(plan.pictures), audio=bool(plan.sounds), start=plan.start):
        moment = (frame.time or 0) - file.start - plan.start
        if plan.end is not None and moment >= plan.end - plan.start:
            reading.discard(type(frame))
        elif moment > -_ROUNDING:
            frame.pts = round(moment / (frame.time_base or Fraction(1, 25)))
            yield frame
            found.add(type(frame))
            if plan.one_frame:
                reading.clear()
        if not reading:
            break
    if (VideoFrame if plan.pictures else AudioFrame) not in found:
        raise TaskError("format_unsupported", "Nothing was encoded: no frame lies in the part asked for.")


class _Track(Protocol):
    """A stream on its way into the output."""

    kind: type

    def send(self, frame: VideoFrame | AudioFrame) -> None:
        """Encode a frame of this kind, whose moment is that of the output."""

    def end(self) -> None:
        """Encode the remaining frames."""


class _Picture:
    """One stream of the picture."""

    kind: type = VideoFrame

    def __init__(self, file: MediaFile, plan: Encoding, track: PictureTrack, output: OutputContainer) -> None:
        self._file, self._fps, self._track, self._output = file, plan.fps, track, output
        rate = Fraction(plan.fps).limit_denominator(1001) if plan.fps else file.rate
        stream = output.add_stream(track.codec, rate=rate, options=track.options)
        if not isinstance(stream, VideoStream):
            raise TypeError(f"{track.codec} encodes no picture")
        self._stream = stream
        stream.width, stream.height = track.size
        stream.pix_fmt = track.pixels
        stream.bit_rate = track.bitrate
        stream.thread_count = 1
        stream.codec_context.time_base = 1 / rate if plan.fps else file.time_base
        if track.codec == "libx265":
            stream.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
        self._graph = Graph()  # which lives as long as its filters are used
        self._graph.threads = 1
        self._ends: tuple[FilterContext, FilterContext] | None = None

    def send(self, frame: VideoFrame | AudioFrame) -> None:
        if not isinstance(frame, VideoFrame):
            raise TypeError("a picture is made of pictures")
        if self._ends is None:
            self._ends = self._chain(frame)
        self._ends[0].push(frame)
        self._pull()

    def end(self) -> None:
        if self._ends:
            self._ends[0].push(None)
            self._pull()
            self._output.mux(self._stream.encode(None))

    def _pull(self) -> None:
        while self._ends:
            try:
                frame = self._ends[1].pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if isinstance(frame, VideoFrame):
                frame.pict_type = 0  # the encoder chooses its key frames itself
                self._output.mux(self._stream.encode(frame))

    def _chain(self, frame: VideoFrame) -> tuple[FilterContext, FilterContext]:
        """The filters from such a frame to the encoder."""
        graph = self._graph
        time_base = frame.time_base
        first = last = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=time_base
        )

        def add(name: str, arguments: str = "") -> FilterContext:
            nonlocal last
            node = graph.add(name, arguments or None)
            last.link_to(node)
            last = node
            return node

        for name, arguments in self._file.shown(frame):
            add(name, arguments)
        if self._track.background and self._file.media.alpha:
            add("format", "rgba")
            both = add("split")
            ground = add("drawbox", f"color=0x{self._track.background[1:]}:t=fill:replace=1")
            over = graph.add("overlay", "format=rgb")
            ground.link_to(over)
            both.link_to(over, output_idx=1, input_idx=1)
            last = over
        hdr = frame.color_trc in _HDR
        for name, arguments in self._track.filters:
            range_ = ":out_range=" + ("pc" if self._track.codec == "mjpeg" else "tv")
            add(name, arguments + range_ + (_SDR if hdr else "") if name == "scale" else arguments)
        context = self._stream.codec_context
        if hdr:
            context.color_primaries = context.color_trc = context.colorspace = _BT709
        elif frame.colorspace:  # 0 is RGB, which becomes something else
            context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
            context.colorspace = frame.colorspace
        add("setsar", "1")
        if self._fps:
            add("fps", f"{self._fps:g}")
        add("sidedata", "mode=delete")  # or a turn that was carried out would be noted in the output again
        add("format", self._track.pixels)
        add("buffersink")
        graph.configure()
        return first, last


class _Sound:
    """One stream of the sound; the encoder's own converter makes it what the encoder takes."""

    kind: type = AudioFrame

    def __init__(self, file: MediaFile, track: SoundTrack, output: OutputContainer) -> None:
        if file.audio is None:
            raise TypeError("the source holds no sound")
        self._output = output
        allowed = av.codec.Codec(track.codec, "w").audio_rates
        own = file.audio.rate
        rate = own if not allowed or own in allowed else min(allowed, key=lambda one: (one < own, abs(one - own)))
        stream = output.add_stream(track.codec, rate=rate, options={"strict": "-2"})  # for FFmpeg's vorbis
        if not isinstance(stream, AudioStream):
            raise TypeError(f"{track.codec} encodes no sound")
        self._stream = stream
        stream.layout = "mono" if file.audio.channels == 1 and track.codec != "vorbis" else "stereo"
        if track.bitrate:
            stream.bit_rate = track.bitrate

    def send(self, frame: VideoFrame | AudioFrame) -> None:
        if not isinstance(frame, AudioFrame):
            raise TypeError("a sound is made of sounds")
        self._output.mux(self._stream.encode(frame))

    def end(self) -> None:
        self._output.mux(self._stream.encode(None))
