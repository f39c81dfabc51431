"""What a client sends with an upload: the bytes as they arrive, and what it says of them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Request
from pydantic import BaseModel, ValidationError

from local.storage_server.errors import StorageError, invalid_request, too_large
from local.storage_server.files import read_chunks

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Incoming:
    """An upload's content.

    Attributes:
        chunks: The bytes, to be taken once.
        length: What the request's header says, so a form's length includes the form; None if it says nothing.
        mimetype: As the client claims.
        cache_control: As an answer to a reader will say.
        user_metadata: The client's own object.
    """

    chunks: Iterable[bytes]
    length: int | None
    mimetype: str
    cache_control: str
    user_metadata: dict[str, Any] = field(default_factory=dict)


def incoming(request: Request) -> Incoming:
    """Return the upload in a REST request, which is its raw body or the first file of a multipart form.

    Raises:
        StorageError: ``InvalidRequest``; the form has no file.
    """
    length = request.content_length
    if request.mimetype != "multipart/form-data":
        mimetype = request.headers.get("Content-Type") or "application/octet-stream"
        cache_control = request.headers.get("Cache-Control") or "no-cache"
        metadata = _decoded_object(request.headers.get("x-metadata", ""))
        return Incoming(read_chunks(request.stream), length, mimetype, cache_control, metadata)
    if (file := next(iter(request.files.values()), None)) is None:
        raise StorageError(400, "InvalidRequest", "No content provided")
    seconds = request.form.get("cacheControl")
    return Incoming(
        read_chunks(file.stream),
        length,
        request.form.get("contentType") or file.mimetype or "application/octet-stream",
        f"max-age={seconds}" if seconds else "no-cache",
        _object(request.form.get("metadata") or request.form.get("userMetadata") or ""),
    )


def limited(chunks: Iterable[bytes], limit: int | None) -> Iterator[bytes]:
    """Pass the chunks on, up to ``limit`` bytes in all.

    Raises:
        StorageError: ``EntityTooLarge``, at the first chunk beyond the limit.
    """
    left = limit
    for chunk in chunks:
        if left is not None:
            left -= len(chunk)
            if left < 0:
                raise too_large()
        yield chunk


def parse(model: type[Model], request: Request) -> Model:
    """Return the JSON body as ``model``.

    Raises:
        StorageError: ``InvalidRequest``, which names the first fault.
    """
    try:
        return model.model_validate_json(request.get_data())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "/".join(["body", *map(str, first["loc"])])
        raise invalid_request(f"{place}: {first['msg']}") from error


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object in ``text``; the original silently takes none for what it cannot read."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _decoded_object(encoded: str) -> dict[str, Any]:
    try:
        return _object(base64.b64decode(encoded).decode())
    except (binascii.Error, UnicodeDecodeError):
        return {}
