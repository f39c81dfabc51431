"""The options of each kind of task, as far as this server carries them out.

Names and values are those of ittybit's newest documents, and both generations take them. What else the documents have
is ignored: ``fit``, ``background``, ``quality``, ``codec``, ``fps``, ``bitrate``, ``position``, ``layers``. Formats
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
    """JSON from a request: nothing is converted, what is not known is ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Picture(Body):
    """The size of a picture in pixels: it keeps its shape, and fits into the sides that are given."""

    width: int | None = Field(default=None, ge=2, le=4096)
    height: int | None = Field(default=None, ge=2, le=4096)


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


class AdaptiveVideoOptions(Picture, Excerpt):
    """Options of kind ``adaptive_video``."""

    format: Literal["hls"] = "hls"


class ImageOptions(Picture):
    """Options of kind ``image``.

    ``start`` is the moment of the frame when the source is a video. The documents do not say what becomes of a moment
    at or after the video's end: here the task fails, as ffmpeg does.
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

    The documents of this kind show its options in one sample, that of the API in between the two generations.
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
    """The options of a task of this kind; of a kind that is not carried out, none.

    Raises:
        pydantic.ValidationError: If one of them cannot be used.
    """
    return _MODELS.get(kind, Body).model_validate(options)
