"""The options of each kind of task, as far as this server carries them out.

Names and values are those of ittybit's newest documents, and both generations take them. The documents give no
default for ``fit`` when both sides are named: here it is ``contain``, with bars. ``background`` also lies beneath
what is transparent. ``position`` and ``layers`` are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Quality = Literal["very_low", "low", "medium", "high", "very_high"]
Kind = Literal[
    "video",
    "adaptive_video",
    "image",
    "audio",
    "speech",
    "nsfw",
    "summary",
    "outline",
    "subtitles",
    "chapters",
    "ingest",
    "conditions",
    "upload",
]


class Body(BaseModel):
    """JSON from a request: nothing is converted, what is not known is ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


Side = Annotated[int, Field(ge=2, le=4096)] | Annotated[str, Field(pattern=r"^(100|[1-9]\d?)%$")]


class Picture(Body):
    """The size of a picture, and how the source is made to fit when both sides are given.

    Sides are in pixels, or in per cent of the source's.
    """

    width: Side | None = None
    height: Side | None = None
    fit: Literal["contain", "cover", "fill"] = "contain"
    background: str = Field(default="#000000", pattern=r"^#[0-9a-fA-F]{6}$")
    quality: Quality = "medium"


class Excerpt(Body):
    """The part of the source between two moments, in seconds."""

    start: float = Field(default=0, ge=0)
    end: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError("end must be later than start")
        return self


class VideoOptions(Picture, Excerpt):
    """Options of kind ``video``."""

    format: Literal["mp4", "webm", "mov"] = "mp4"
    codec: Literal["h264", "h265", "vp9", "av1"] | None = None
    fps: float | None = Field(default=None, ge=1, le=60)
    bitrate: int | None = Field(default=None, ge=300_000, le=60_000_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format == "webm" and self.codec in {"h264", "h265"}:
            raise ValueError(f"webm does not hold {self.codec}: use vp9 or av1")
        return self


class AdaptiveVideoOptions(Picture, Excerpt):
    """Options of kind ``adaptive_video``."""

    format: Literal["hls"] = "hls"


class ImageOptions(Picture):
    """Options of kind ``image``.

    ``start`` is the moment of the frame when the source is a video. The documents do not say what becomes of a moment
    at or after the video's end: here the task fails, as ffmpeg does.
    """

    format: Literal["jpeg", "png", "webp", "avif"] = "jpeg"
    start: float = Field(default=0, ge=0)


class AnimationOptions(Picture, Excerpt):
    """Options of kind ``animation``."""

    format: Literal["gif", "webp"] = "gif"
    fps: float | None = Field(default=None, ge=1, le=60)


class AudioOptions(Excerpt):
    """Options of kind ``audio``."""

    format: Literal["mp3", "aac", "ogg", "opus", "wav", "flac"] = "mp3"
    quality: Quality = "medium"
    bitrate: int | None = Field(default=None, ge=32_000, le=320_000)


class IngestOptions(Body):
    """Options of kind ``ingest``: the source, if it is not the run's, and its connection."""

    url: str | None = None
    connection_id: str | None = None


class UploadOptions(Body):
    """Options of kind ``upload``: where its parent's output goes, and through which connection.

    The documents of this kind show its options in one sample, that of the API in between the two generations.
    """

    url: str
    connection_id: str | None = None


class OtherOptions(Body):
    """Options of the kinds that are not carried out."""


_MODELS: dict[str, type[Body]] = {
    "video": VideoOptions,
    "adaptive_video": AdaptiveVideoOptions,
    "image": ImageOptions,
    "audio": AudioOptions,
    "animation": AnimationOptions,
    "ingest": IngestOptions,
    "upload": UploadOptions,
}


def read_options(kind: str, options: dict[str, Any]) -> Body:
    """The options of a task of this kind.

    Raises:
        pydantic.ValidationError: If one of them cannot be used.
    """
    return _MODELS.get(kind, OtherOptions).model_validate(options)
