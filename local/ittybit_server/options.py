"""The options of each kind of task, as far as this server carries them out.

Names and values are those of ittybit's pages on video, audio, image and adaptive video; ``very_low`` to
``very_high`` is the newer documents' scale. The documents give no default for ``fit`` when both sides are
named: here it is ``contain``, with bars. ``position``, ``layers``, ``bitrate``, ``codec`` and sizes in per
cent are ignored or refused.
"""

from __future__ import annotations

from typing import Any, Literal, Self

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


class Picture(Body):
    """The size of a picture in pixels, and how the source is made to fit when both sides are given."""

    width: int | None = Field(default=None, ge=2, le=4096)
    height: int | None = Field(default=None, ge=2, le=4096)
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
    fps: float | None = Field(default=None, ge=1, le=60)


class AdaptiveVideoOptions(Picture, Excerpt):
    """Options of kind ``adaptive_video``."""

    format: Literal["hls"] = "hls"


class ImageOptions(Picture):
    """Options of kind ``image``; ``start`` is the moment of the frame when the source is a video."""

    format: Literal["jpeg", "png", "webp"] = "jpeg"
    start: float = Field(default=0, ge=0)


class AudioOptions(Excerpt):
    """Options of kind ``audio``."""

    format: Literal["mp3", "aac", "ogg", "opus", "wav", "flac"] = "mp3"
    quality: Quality = "medium"


class IngestOptions(Body):
    """Options of kind ``ingest``: the source, if it is not the run's."""

    url: str | None = None


class UploadOptions(Body):
    """Options of kind ``upload``: where its parent's output goes, and through which connection.

    The public documents name the kind and not its options; these are by analogy with ``ingest``.
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
    "ingest": IngestOptions,
    "upload": UploadOptions,
}


def read_options(kind: str, options: dict[str, Any]) -> Body:
    """The options of a task of this kind.

    Raises:
        pydantic.ValidationError: If one of them cannot be used.
    """
    return _MODELS.get(kind, OtherOptions).model_validate(options)
