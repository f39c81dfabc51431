"""The options of each kind of task that this server applies.

Names and values are those of ittybit's newest documents, and both generations accept them. Other documented options
are ignored: ``fit``, ``background``, ``quality``, ``codec``, ``fps``, ``bitrate``, ``position``, ``layers``. Formats
that are not listed here are refused.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    """JSON from a request. Types are not converted, and unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Picture(Body):
    """The size of a picture in pixels. It is scaled to fit the sides that are given, and keeps its aspect ratio."""

    width: int | None = Field(default=None, ge=2, le=4096)
    height: int | None = Field(default=None, ge=2, le=4096)


class Excerpt(Body):
    """The part of the source between two times, in seconds."""

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


class AdaptiveVideoOptions(Picture, Excerpt):
    """Options of kind ``adaptive_video``."""

    format: Literal["hls"] = "hls"


class ImageOptions(Picture):
    """Options of kind ``image``.

    If the source is a video, ``start`` is the time of the frame. The documents do not say what happens when it is at or
    after the video's end: here the task fails, as ffmpeg does.
    """

    format: Literal["jpeg", "png", "webp"] = "jpeg"
    start: float = Field(default=0, ge=0)


class AudioOptions(Excerpt):
    """Options of kind ``audio``."""

    format: Literal["mp3", "aac", "opus", "wav"] = "mp3"


Encoded = VideoOptions | AdaptiveVideoOptions | ImageOptions | AudioOptions
"""Options of the kinds that encode."""


class IngestOptions(Body):
    """Options of kind ``ingest``: the source, if it is not the run's, and its connection."""

    url: str | None = None
    connection_id: str | None = None


class UploadOptions(Body):
    """Options of kind ``upload``: where its parent's output goes, and through which connection.

    The only documented sample of them belongs to the API between the two generations.
    """

    url: str
    connection_id: str | None = None


_MODELS: dict[str, type[Body]] = {
    "video": VideoOptions,
    "adaptive_video": AdaptiveVideoOptions,
    "image": ImageOptions,
    "audio": AudioOptions,
    "ingest": IngestOptions,
    "upload": UploadOptions,
}


def read_options(kind: str, options: dict[str, Any]) -> Body:
    """The options of a task of this kind; none for a kind that this server cannot run.

    Raises:
        pydantic.ValidationError: If one of them is invalid.
    """
    return _MODELS.get(kind, Body).model_validate(options)
