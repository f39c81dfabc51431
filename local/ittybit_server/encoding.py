"""The arguments that make ffmpeg carry out a task's options, with its quickest presets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from local.ittybit_server.errors import TaskError
from local.ittybit_server.options import (
    AdaptiveVideoOptions,
    AudioOptions,
    Body,
    Excerpt,
    ImageOptions,
    Picture,
    VideoOptions,
)
from local.ittybit_server.probing import Media

_X264_CRF = {"very_low": "36", "low": "32", "medium": "28", "high": "23", "very_high": "18"}
_VP9_CRF = {"very_low": "50", "low": "43", "medium": "37", "high": "31", "very_high": "24"}
_MJPEG_SCALE = {"very_low": "20", "low": "12", "medium": "6", "high": "3", "very_high": "2"}
_WEBP_QUALITY = {"very_low": "30", "low": "50", "medium": "70", "high": "85", "very_high": "95"}
_VORBIS_QUALITY = {"very_low": "0", "low": "2", "medium": "4", "high": "6", "very_high": "8"}
_BITRATE = {"very_low": "48k", "low": "64k", "medium": "128k", "high": "192k", "very_high": "256k"}

_AUDIO_CODECS = {
    "mp3": "libmp3lame",
    "aac": "aac",
    "ogg": "libvorbis",
    "opus": "libopus",
    "wav": "pcm_s16le",
    "flac": "flac",
}


@dataclass(frozen=True)
class Encoding:
    """One call of ffmpeg.

    Attributes:
        before: Arguments before the input.
        after: Arguments after the input, up to the output's name.
        extension: Of the output's name, without the dot.
        seconds: Length of the output, if it is known.
    """

    before: list[str]
    after: list[str]
    extension: str
    seconds: float | None


def encoding(options: Body, source: Media) -> Encoding:
    """How to encode this source with these options.

    Raises:
        TaskError: The source has no picture, or no sound, to work on, or ends before ``start``.
    """
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
    raise TypeError(f"nothing to encode for {type(options).__name__}")


def _video(options: VideoOptions, source: Media) -> Encoding:
    filters = _size(options, even=True)
    if options.fps:
        filters += f",fps={options.fps:g}"
    if options.format == "webm":
        video = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "0"]
        video += ["-crf", _VP9_CRF[options.quality], "-c:a", "libopus"]
    else:
        video = [*_h264(options), "-movflags", "+faststart"]
    before, seconds = _excerpt(options, source)
    after = ["-map", "0:v:0", "-map", "0:a:0?", "-vf", filters, *video, "-pix_fmt", "yuv420p"]
    return Encoding(before, after, options.format, seconds)


def _hls(options: AdaptiveVideoOptions, source: Media) -> Encoding:
    """Two renditions, the second of half the size, in folders beside the playlist that names them."""
    size = _size(options, even=True)
    sound = bool(source.audio)
    streams = ["-map", "0:v:0", *(["-map", "0:a:0"] if sound else [])] * 2
    filters = ["-filter:v:0", size, "-filter:v:1", f"{size},scale=trunc(iw/4)*2:trunc(ih/4)*2"]
    variants = " ".join(f"v:{n},a:{n}" if sound else f"v:{n}" for n in (0, 1))
    playlist = ["-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-var_stream_map", variants]
    playlist += ["-master_pl_name", "master.m3u8", "-hls_segment_filename", "out/v%v/%03d.ts"]
    before, seconds = _excerpt(options, source)
    after = [*streams, *filters, *_h264(options), "-pix_fmt", "yuv420p", *playlist]
    return Encoding(before, after, "m3u8", seconds)


def _image(options: ImageOptions, source: Media) -> Encoding:
    codecs = {
        "jpeg": ["-c:v", "mjpeg", "-q:v", _MJPEG_SCALE[options.quality], "-pix_fmt", "yuvj420p"],
        "png": ["-c:v", "png"],
        "webp": ["-c:v", "libwebp", "-quality", _WEBP_QUALITY[options.quality]],
    }
    # The moment means nothing in a still picture, and seeking in one finds no frame.
    moment = ["-ss", str(options.start)] if options.start and source.duration else []
    one_frame = ["-map", "0:v:0", "-frames:v", "1", "-update", "1", "-vf", _size(options, even=False)]
    extension = "jpg" if options.format == "jpeg" else options.format
    return Encoding(moment, [*one_frame, *codecs[options.format]], extension, None)


def _audio(options: AudioOptions, source: Media) -> Encoding:
    quality: list[str] = []
    if options.format == "ogg":
        quality = ["-q:a", _VORBIS_QUALITY[options.quality]]
    elif options.format in {"mp3", "aac", "opus"}:
        quality = ["-b:a", _BITRATE[options.quality]]
    before, seconds = _excerpt(options, source)
    after = ["-map", "0:a:0", "-vn", "-c:a", _AUDIO_CODECS[options.format], *quality]
    return Encoding(before, after, options.format, seconds)


def _h264(options: Picture) -> list[str]:
    return ["-c:v", "libx264", "-preset", "ultrafast", "-crf", _X264_CRF[options.quality], "-c:a", "aac"]


def _excerpt(options: Excerpt, source: Media) -> tuple[list[str], float | None]:
    before = ["-ss", str(options.start)] if options.start else []
    if options.end is not None:
        before += ["-to", str(options.end)]
    if source.duration is None:
        return before, None if options.end is None else options.end - options.start
    return before, min(options.end or source.duration, source.duration) - options.start


def _size(options: Picture, *, even: bool) -> str:
    """The filter that scales; h264 and vp9 in 4:2:0 need even sides, so odd ones lose a pixel."""
    step = 2 if even else 1
    width, height = (side and side // step * step for side in (options.width, options.height))
    if not width and not height:
        scale = f"scale=trunc(iw/{step})*{step}:trunc(ih/{step})*{step}"
    elif not (width and height):
        scale = f"scale={width or -step}:{height or -step}"
    elif options.fit == "fill":
        scale = f"scale={width}:{height}"
    elif options.fit == "cover":
        scale = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
    else:
        bars = f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2:color=0x{options.background[1:]}"
        scale = f"scale={width}:{height}:force_original_aspect_ratio=decrease,{bars}"
    return f"{scale},setsar=1"
