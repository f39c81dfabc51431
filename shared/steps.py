"""A workflow in a person's request, in ittybit's format: tasks, and uploads of their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from shared import objects

MAX_STEPS = 64


class UploadOptions(objects.Request):
    """Where an upload goes, through the project's connection."""

    url: objects.Destination


class Upload(objects.Request):
    """Write the previous task's output into a bucket."""

    kind: Literal["upload"]
    options: UploadOptions


class Encode(objects.Request):
    """A task of any other kind, and the steps that work on its output."""

    kind: Annotated[objects.Kind, Field(json_schema_extra={"not": {"const": "upload"}})]
    options: objects.Options = Field({})
    next: list[AnyStep] = Field([])


def _step(step: Any) -> str:
    kind = step.get("kind") if isinstance(step, dict) else getattr(step, "kind", None)
    return "<upload>" if kind == "upload" else "<encode>"


AnyStep = Annotated[
    Annotated[Upload, Tag("<upload>")] | Annotated[Encode, Tag("<encode>")],
    Discriminator(_step),
]
Encode.model_rebuild()


def _not_too_many(steps: list[Upload | Encode]) -> list[Upload | Encode]:
    def count(steps: list[Upload | Encode]) -> int:
        return sum(1 + count(step.next) if isinstance(step, Encode) else 1 for step in steps)

    if count(steps) > MAX_STEPS:
        raise ValueError(f"a run has at most {MAX_STEPS} steps")
    return steps


Steps = Annotated[list[AnyStep], Field(min_length=1), AfterValidator(_not_too_many)]


def uploads(place: str, steps: Sequence[Upload | Encode]) -> Iterator[tuple[str, str]]:
    """Each upload's field in the request, and its destination."""
    for number, step in enumerate(steps):
        if isinstance(step, Upload):
            yield f"{place}.{number}.options.url", step.options.url
        else:
            yield from uploads(f"{place}.{number}.next", step.next)
