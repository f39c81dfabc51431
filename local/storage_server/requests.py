"""A request's caller, as the gateway determined it, and its body."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Request, g
from pydantic import BaseModel, ValidationError

from local.storage_server.database import Caller
from local.storage_server.errors import StorageError, access_denied, invalid_request, too_large
from local.storage_server.files import read_chunks

Model = TypeVar("Model", bound=BaseModel)


def caller_for(operation: str, *, resumable: bool = False) -> Caller:
    """Return the caller. The gateway has put its role into ``flask.g.role`` and its user into ``flask.g.sub``.

    Raises:
        StorageError: ``AccessDenied`` (an invalid token; for a resumable upload also a missing one) or
            ``InvalidRequest`` (no key).
    """
    if (role := g.get("role")) is None:
        if reason := g.get("refused_token") or ("Invalid Compact JWS" if resumable else None):
            raise access_denied(reason)
        raise invalid_request("headers must have required property 'authorization'")
    return Caller(role, operation, g.get("sub"), g.get("sub"))


def anyone_for(operation: str) -> Caller:
    """Return the caller or, without a key, the service: for routes that serve public objects to everybody."""
    return Caller(g.get("role") or "service_role", operation, g.get("sub"), g.get("sub"))


def parse(model: type[Model], request: Request) -> Model:
    """Return the JSON body as ``model``.

    Raises:
        StorageError: ``InvalidRequest``, which names the first error. The original uses Ajv's message.
    """
    try:
        return model.model_validate_json(request.get_data() or b"null")
    except ValidationError as error:
        fault = error.errors()[0]
        raise invalid_request(f"{'/'.join(['body', *map(str, fault['loc'])])}: {fault['msg']}") from error


@dataclass(frozen=True)
class Incoming:
    """An upload's content.

    Attributes:
        chunks: The bytes; they can be read once.
        length: The request's ``Content-Length``, which counts a whole form; None if there is none.
        mimetype: As the client states it.
        cache_control: The header ``Cache-Control`` of later downloads.
        user_metadata: The client's own metadata; None if it sends none.
    """

    chunks: Iterable[bytes]
    length: int | None
    mimetype: str
    cache_control: str
    user_metadata: dict[str, Any] | None = None


def incoming(request: Request) -> Incoming:
    """Return the upload in a REST request, which is its raw body or the first file of a multipart form.

    Raises:
        StorageError: ``InvalidRequest``; the form has no file.
    """
    length = request.content_length
    if request.mimetype != "multipart/form-data":
        mimetype = request.headers.get("Content-Type") or "application/octet-stream"
        cache_control = request.headers.get("Cache-Control") or "no-cache"
        metadata = decoded_object(request.headers.get("x-metadata"))
        return Incoming(read_chunks(request.stream), length, mimetype, cache_control, metadata)
    if (file := next(iter(request.files.values()), None)) is None:
        raise StorageError(400, "InvalidRequest", "No content provided")
    seconds = request.form.get("cacheControl")
    return Incoming(
        read_chunks(file.stream),
        length,
        request.form.get("contentType") or file.mimetype or "application/octet-stream",
        f"max-age={seconds}" if seconds else "no-cache",
        user_object(request.form.get("metadata") or request.form.get("userMetadata") or ""),
    )


def arriving(request: Request) -> Iterator[bytes]:
    """Yield a request's bytes as they arrive, until the last one or until the client disconnects."""
    if (left := request.content_length) is None:
        yield from read_chunks(request.stream)
        return
    while left and (chunk := request.environ["wsgi.input"].read1(min(left, 1 << 16))):
        left -= len(chunk)
        yield chunk


def limited(chunks: Iterable[bytes], limit: int | None) -> Iterator[bytes]:
    """Yield the chunks, up to ``limit`` bytes in total.

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


def user_object(text: str) -> dict[str, Any] | None:
    """Return the client's JSON object in ``text``; None for anything else, which the original ignores silently."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def decoded_object(encoded: str | None) -> dict[str, Any] | None:
    """Return the client's JSON object in the header ``x-metadata``, if there is one."""
    try:
        return user_object(base64.b64decode(encoded or "").decode())
    except (binascii.Error, UnicodeDecodeError):
        return None
