"""Sending an object's bytes, with ranges, entity tags and conditions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from flask import Request, Response
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import http_date
from werkzeug.wsgi import FileWrapper

from local.storage_server.errors import StorageError
from local.storage_server.files import Files
from local.storage_server.objects import StoredObject

_CHUNK = 1 << 16


class _SelfClosing(FileWrapper):
    """Also closes its file when the client disconnects early, which werkzeug's server does not do."""

    def __del__(self) -> None:
        self.close()


def send(
    files: Files,
    stored: StoredObject,
    request: Request,
    *,
    expires: float | None = None,
    extra: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer to a GET or HEAD: 200, 206 or 304.

    Args:
        files: Where the bytes are.
        stored: The object.
        request: Its ``Range`` and ``If-*`` headers are honoured.
        expires: When the signed URL ends, in Unix seconds; it replaces ``Cache-Control``.
        extra: Further headers.

    Raises:
        StorageError: ``InvalidRange`` (416), or the row has no file (500).
    """
    file = files.open((stored.bucket_id, stored.name, stored.version))
    size = os.fstat(file.fileno()).st_size
    response = Response(_SelfClosing(file, _CHUNK), direct_passthrough=True)
    response.headers.update(_headers(stored))
    response.content_length = size
    if expires is not None:
        del response.headers["Cache-Control"]
        response.expires = datetime.fromtimestamp(expires, UTC)
    response.headers.update(extra or {})
    try:
        response.make_conditional(request, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable as error:
        file.close()
        message = "invalid range provided"
        raise StorageError(416, "InvalidRange", message, error="invalid_range") from error
    if request.method == "HEAD" or response.status_code == 304:
        # Nothing iterates over such an answer, so nothing would close its file.
        file.close()
        response.response = ()
    return response


def attachment(name: str | None) -> dict[str, str]:
    """Return the header that makes a browser save the answer, under ``name`` if it is not empty."""
    if name is None:
        return {}
    if not name:
        return {"Content-Disposition": "attachment;"}
    encoded = quote(name, safe="!'()*~")
    return {"Content-Disposition": f"attachment; filename={encoded}; filename*=UTF-8''{encoded};"}


def caching_headers(stored: StoredObject) -> dict[str, str]:
    """Return the headers for caches: the entity tag, for how long to keep the answer, and the last change."""
    return {
        "ETag": str(stored.metadata.get("eTag", "")),
        "Cache-Control": str(stored.metadata.get("cacheControl", "no-cache")),
        "Last-Modified": http_date(stored.updated_at),
    }


def _headers(stored: StoredObject) -> dict[str, str]:
    mimetype = str(stored.metadata.get("mimetype", "application/octet-stream"))
    return {
        # HTML served from the API's own origin could run scripts there.
        "Content-Type": "text/plain" if "text/html" in mimetype else mimetype,
        "X-Robots-Tag": "none",
        **caching_headers(stored),
    }
