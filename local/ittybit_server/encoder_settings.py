"""How a task's options are carried out, with the encoders' quickest presets.

Outputs are made for every player: 8 bits a colour, square pixels, upright, one picture and one sound of at most two
channels. What becomes of the rest:

- HDR (PQ or HLG) is tone-mapped to the SDR colours of BT.709.
- Transparency is kept in PNG and WebP; every other format gets it laid over ``options.background``.
- The frame rate stays as it is, even a variable one, unless ``options.fps`` says otherwise.
- Cover art is no picture: audio with one counts as audio. Subtitles, time codes and further tracks are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from local.ittybit_server.errors import TaskError
from local.ittybit_server.media_file import Filters, Media
from local.ittybit_server.options import (
    AdaptiveVideoOptions,
    AnimationOptions,
    AudioOptions,
    Body,
    Excerpt,
    ImageOptions,
    Picture,
    Quality,
    VideoOptions,
)

_SCALE: list[Quality] = ["very_low", "low", "medium", "high", "very_high"]
_MJPEG_SCALE = ["20", "12", "6", "3", "2"]
_WEBP_QUALITY = ["30", "50", "70", "85", "95"]
_BITRATES = [48_000, 64_000, 128_000, 192_000, 256_000]
# The encoder of each codec, its constant rate factors, and its other options.
_VIDEO_CODECS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "h264": ("libx264", ["36", "32", "28", "23", "18"], {"preset": "ultrafast"}),
    "h265": ("libx265", ["38", "34", "30", "25", "20"], {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", ["50", "43", "37", "31", "24"], {"deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", ["55", "48", "40", "32", "24"], {"preset": "10"}),
}
# The codec and container of each audio format.
_AUDIO_FORMATS: dict[str, tuple[str, str]] = {
    "mp3": ("libmp3lame", "mp3"),
    "aac": ("aac", "adts"),
    "ogg": ("vorbis", "ogg"),
    "opus": ("libopus", "opus"),
    "wav": ("pcm_s16le", "wav"),
    "flac": ("flac", "flac"),
}


@dataclass(frozen=True)
class PictureTrack:
    """A picture to encode.

    Attributes:
        codec: FFmpeg's encoder.
        pixels: Its pixel format.
        size: Of the output, in pixels.
        filters: Make a frame of the source that size, from its size as shown.
        background: What a transparent source is laid over; None if the output can be transparent.
        options: Of the encoder.
        bitrate: Bits per second; 0 where quality decides.
    """

    codec: str
    pixels: str
    size: tuple[int, int]
    filters: Filters
    background: str | None
    options: dict[str, str]
    bitrate: int = 0


@dataclass(frozen=True)
class SoundTrack:
    """A sound to encode: FFmpeg's encoder, and bits per second or 0 for its own choice."""

    codec: str
    bitrate: int = 0


@dataclass(frozen=True)
class Encoding:
    """One output.

    Attributes:
        extension: Of the output's name, without the dot.
        container: FFmpeg's muxer.
        pictures: Streams of the picture.
        sounds: Streams of the sound.
        options: Of the muxer.
        start: The first moment that is taken from the source.
        end: The first moment that is not; None for the source's end.
        fps: Frames per second; None for the source's.
        one_frame: Whether the output is a still picture.
        seconds: Length of the output, if it is known.
    """

    extension: str
    container: str
    pictures: list[PictureTrack] = field(default_factory=list)
    sounds: list[SoundTrack] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    start: float = 0
    end: float | None = None
    fps: float | None = None
    one_frame: bool = False
    seconds: float | None = None


def encoding(options: Body, source: Media) -> Encoding:
    """How to encode this source with these options.

    Raises:
        TaskError: The source is damaged, has no picture or no sound to work on, or ends before ``start``.
    """
    if source.damaged:
        raise TaskError("format_unsupported", "The source is damaged: a part of it is missing.")
    if isinstance(options, Excerpt | ImageOptions) and options.start >= (source.duration or math.inf):
        raise TaskError("request_invalid", "options.start lies beyond the source's end.")
    if isinstance(options, AudioOptions):
        if source.audio is None:
            raise TaskError("format_unsupported", "The source holds no sound.")
        return _audio(options, source)
    if source.video is None:
        raise TaskError("format_unsupported", "The source holds no picture.")
    if isinstance(options, VideoOptions):
        return _video(options, source)
    if isinstance(options, AdaptiveVideoOptions):
        return _hls(options, source)
    if isinstance(options, ImageOptions):
        return _image(options, source)
    if isinstance(options, AnimationOptions):
        return _animation(options, source)
    raise TypeError(f"nothing to encode for {type(options).__name__}")


def _video(options: VideoOptions, source: Media) -> Encoding:
    webm = options.format == "webm"
    codec = options.codec or ("vp9" if webm else "h264")
    picture = _track(options, source, codec, bitrate=options.bitrate or 0)
    return Encoding(
        options.format,
        options.format,
        [picture],
        [SoundTrack("libopus" if webm else "aac")] if source.audio else [],
        {} if webm else {"movflags": "+faststart"},
        options.start,
        options.end,
        options.fps,
        seconds=_length(options, source),
    )


def _hls(options: AdaptiveVideoOptions, source: Media) -> Encoding:
    """Two renditions, the second of half the size, in folders that are named for their height."""
    width, height = _track(options, source, "h264").size
    sides = {"width": max(width // 4 * 2, 2), "height": max(height // 4 * 2, 2), "fit": "fill"}
    half = options.model_copy(update=sides)
    pictures = [_track(options, source, "h264"), _track(half, source, "h264")]
    sounds = [SoundTrack("aac")] * 2 if source.audio else []
    muxer = {
        "hls_time": "4",
        "hls_playlist_type": "vod",
        "master_pl_name": "master.m3u8",
        "var_stream_map": " ".join(
            f"v:{n},{f'a:{n},' if sounds else ''}name:{picture.size[1]}p" for n, picture in enumerate(pictures)
        ),
    }
    length = _length(options, source)
    return Encoding("m3u8", "hls", pictures, sounds, muxer, options.start, options.end, seconds=length)


def _image(options: ImageOptions, source: Media) -> Encoding:
    level = _SCALE.index(options.quality)
    start = options.start if source.duration else 0  # the moment means nothing in a still picture
    if options.format == "avif":
        return Encoding("avif", "avif", [_track(options, source, "av1")], start=start, one_frame=True)
    scale = _MJPEG_SCALE[level]
    size, filters = _size(options, source, step=1)
    codec, pixels, encoder = {
        "jpeg": ("mjpeg", "yuvj420p", {"qmin": scale, "qmax": scale}),
        "png": ("png", "rgba" if source.alpha else "rgb24", {}),
        "webp": ("libwebp", "yuva420p" if source.alpha else "yuv420p", {"quality": _WEBP_QUALITY[level]}),
    }[options.format]
    background = options.background if options.format == "jpeg" else None
    track = PictureTrack(codec, pixels, size, filters, background, encoder)
    extension = "jpg" if options.format == "jpeg" else options.format
    return Encoding(extension, "image2", [track], options={"update": "1"}, start=start, one_frame=True)


def _animation(options: AnimationOptions, source: Media) -> Encoding:
    size, filters = _size(options, source, step=1)
    if options.format == "gif":
        track = PictureTrack("gif", "rgb8", size, filters, options.background, {})
    else:
        pixels = "yuva420p" if source.alpha else "yuv420p"
        encoder = {"quality": _WEBP_QUALITY[_SCALE.index(options.quality)]}
        track = PictureTrack("libwebp_anim", pixels, size, filters, None, encoder)
    return Encoding(
        options.format,
        options.format,
        [track],
        options={"loop": "0"},
        start=options.start,
        end=options.end,
        fps=options.fps,
        seconds=_length(options, source),
    )


def _audio(options: AudioOptions, source: Media) -> Encoding:
    codec, container = _AUDIO_FORMATS[options.format]
    lossless = options.format in {"wav", "flac"}
    bitrate = 0 if lossless else options.bitrate or _BITRATES[_SCALE.index(options.quality)]
    return Encoding(
        options.format,
        container,
        sounds=[SoundTrack(codec, bitrate)],
        start=options.start,
        end=options.end,
        seconds=_length(options, source),
    )


def _track(options: Picture, source: Media, codec: str, *, bitrate: int = 0) -> PictureTrack:
    encoder, factors, others = _VIDEO_CODECS[codec]
    size, filters = _size(options, source, step=2)  # 4:2:0 needs even sides, so odd ones lose a pixel
    rate = {} if bitrate else {"crf": factors[_SCALE.index(options.quality)]}
    return PictureTrack(encoder, "yuv420p", size, filters, options.background, others | rate, bitrate)


def _length(options: Excerpt, source: Media) -> float | None:
    if source.duration is None:
        return None if options.end is None else options.end - options.start
    return min(options.end or source.duration, source.duration) - options.start


def _size(options: Picture, source: Media, *, step: int) -> tuple[tuple[int, int], Filters]:
    """The size of the output, in multiples of ``step``, and the filters that make a picture that large."""
    own = (source.width or step, source.height or step)

    def rounded(side: float) -> int:
        return max(round(side / step), 1) * step

    def wanted(side: int | str | None, whole: int) -> int | None:
        pixels = side if isinstance(side, int) else side and int(side[:-1]) * whole / 100
        return max(int(pixels) // step, 1) * step if pixels else None

    width, height = wanted(options.width, own[0]), wanted(options.height, own[1])
    if width is None and height is None:
        size = (max(own[0] // step, 1) * step, max(own[1] // step, 1) * step)
    elif height is None:
        size = (width or step, rounded(own[1] * (width or step) / own[0]))
    elif width is None:
        size = (rounded(own[0] * height / own[1]), height)
    else:
        size = (width, height)
    if width is None or height is None or options.fit == "fill":
        return size, [("scale", f"{size[0]}:{size[1]}")]
    choose = max if options.fit == "cover" else min
    factor = choose(width / own[0], height / own[1])
    scaled = [choose(rounded(side * factor), limit) for side, limit in zip(own, size, strict=True)]
    scale = ("scale", f"{scaled[0]}:{scaled[1]}")
    if options.fit == "cover":
        return size, [scale, ("crop", f"{width}:{height}")]
    return size, [scale, ("pad", f"{width}:{height}:(ow-iw)/2:(oh-ih)/2:color=0x{options.background[1:]}")]
