"""The headers of the tus protocol (tus.io, version 1.0.0), read and refused as @tus/server 2.4 does."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Final

from flask import Request, Response

from local.storage_server.errors import StorageError

VERSION: Final = "1.0.0"
CONTENT_TYPE: Final = "application/offset+octet-stream"
EXTENSIONS: Final = "creation,creation-with-upload,creation-defer-length,termination,expiration"
HEADERS: Final = (
    "Authorization, Content-Type, Location, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Concat, "
    "Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset, X-HTTP-Method-Override, X-Requested-With, "
    "X-Forwarded-Host, X-Forwarded-Proto, Forwarded"
)

Metadata = dict[str, str | None]


def refusal(status: int, text: str) -> StorageError:
    """Return a refusal of the protocol itself."""
    return StorageError(status, "TusError", text)


def reply(status: int, headers: Mapping[str, str] | None = None, text: str = "") -> Response:
    """Return an answer as the original writes it: text, and without a body no type where HTTP forbids one."""
    response = Response(text, status, headers, content_type="text/plain;charset=UTF-8")
    response.headers["Tus-Resumable"] = VERSION
    if status == 204:
        del response.headers["Content-Type"]
    return response


def check_headers(request: Request) -> None:
    """Refuse a request without the protocol's version, or whose headers have values that they cannot have.

    Raises:
        StorageError: ``TusError``.
    """
    if not request.headers.get("Tus-Resumable"):
        raise refusal(412, "Tus-Resumable Required\n")
    wrong = [
        name.lower()
        for name, value in request.headers.items()
        if name.lower() in _VALID and not _VALID[name.lower()](value)
    ]
    if request.method == "PATCH" and request.headers.get("Content-Type", CONTENT_TYPE) != CONTENT_TYPE:
        wrong.append("content-type")
    if wrong:
        raise refusal(400, f"Invalid {' '.join(wrong)}\n")


def parse_metadata(header: str) -> Metadata:
    """Return what ``Upload-Metadata`` says: pairs of a key and a value in base64, which may be left out.

    Raises:
        ValueError: It is not of that form.
    """
    metadata: Metadata = {}
    for pair in header.split(","):
        key, *values = pair.split(" ")
        if not key or not key.isascii() or key in metadata or len(values) > 1:
            raise ValueError(pair)
        value = base64.b64decode("".join(values), validate=True).decode(errors="replace")
        metadata[key] = value or None
    return metadata


def format_metadata(metadata: Metadata) -> str:
    """Return the header that ``parse_metadata`` reads."""
    return ",".join(
        key if value is None else f"{key} {base64.b64encode(value.encode()).decode()}"
        for key, value in metadata.items()
    )


def _is_size(value: str) -> bool:
    return value.isascii() and value.isdigit() and str(int(value)) == value


def _is_metadata(value: str) -> bool:
    try:
        parse_metadata(value)
    except (ValueError, binascii.Error):
        return False
    return True


_VALID: Final[Mapping[str, Callable[[str], bool]]] = {
    "tus-resumable": lambda value: value == VERSION,
    "upload-offset": _is_size,
    "upload-length": _is_size,
    "upload-defer-length": lambda value: value == "1",
    "upload-metadata": _is_metadata,
}
