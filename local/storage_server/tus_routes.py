"""Resumable uploads over the tus protocol (tus.io, version 1.0.0), at ``/upload/resumable``.

As in storage-api v1.70.6, every request that writes first tries to write the row as the caller, so n chunks make n + 2
trigger calls. Headers are checked as @tus/server 2.4 does. Like the original's file backend, and unlike hosted servers,
it sends no ``Upload-Expires``. Left out: expiry itself, a length that is sent later (``Upload-Defer-Length``), uploads
with a signed URL's token, a maximum size for all buckets, and forwarded hosts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from flask import Blueprint, Response, request, url_for

from local.storage_server.database import Caller
from local.storage_server.errors import StorageError, invalid_request
from local.storage_server.keys import check_bucket_name, check_key, check_mimetype
from local.storage_server.objects import Content, Target
from local.storage_server.requests import arriving, caller_for
from local.storage_server.store import Store
from local.storage_server.tus_uploads import Metadata, Upload, Uploads, refusal

_VERSION: Final = "1.0.0"
_CONTENT_TYPE: Final = "application/offset+octet-stream"
_HEADERS: Final = (
    "Authorization, Content-Type, Location, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Concat, "
    "Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset, X-HTTP-Method-Override, X-Requested-With, "
    "X-Forwarded-Host, X-Forwarded-Proto, Forwarded"
)
# The original too ends the list with a comma.
_CORS: Final = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": f"{_HEADERS},"}
_OPERATIONS: Final = {"POST": "create", "PATCH": "part", "HEAD": "get", "DELETE": "delete"}
_SECONDS: Final = re.compile(r"-?\d+")
_SIZE: Final = re.compile(r"0|[1-9][0-9]*")


def create_tus_blueprint(store: Store) -> Blueprint:
    """Return the routes of resumable uploads, to be mounted at ``/upload/resumable``."""
    blueprint = Blueprint("resumable", __name__)
    resumable = _Resumable(store)

    @blueprint.route("/", methods=["POST", "OPTIONS"], strict_slashes=False)
    @blueprint.route("/<address>", methods=["POST", "HEAD", "PATCH", "DELETE", "OPTIONS"])
    def upload(address: str = "") -> Response:
        if request.method == "OPTIONS":
            return _options()
        # An invalid JWT is refused in JSON, before the protocol's own checks.
        caller = caller_for(f"storage.tus.upload.{_OPERATIONS[request.method]}", resumable=True)
        try:
            _check_headers()
        except StorageError as error:
            return _reply(error.status, {}, error.message)
        try:
            response = resumable.answer(caller, address)
        except StorageError as error:
            response = _reply(error.status, {}, error.message)
        response.headers.update(_CORS)
        return response

    return blueprint


class _Resumable:
    """The protocol's requests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploads = Uploads(store.files)

    def answer(self, caller: Caller, address: str) -> Response:
        if request.method == "POST":
            return self._create(caller)
        upload = self._uploads.get(address)
        if request.method == "PATCH":
            return self._patch(caller, upload)
        if request.method == "DELETE":
            return self._terminate(caller, upload)
        return self._head(upload)

    def _create(self, caller: Caller) -> Response:
        upload = _announced()
        check_bucket_name(upload.bucket)
        check_key(upload.key)
        bucket = self._store.bucket(caller, upload.bucket)
        if bucket["file_size_limit"] and upload.length > bucket["file_size_limit"]:
            raise refusal(413, "Maximum size exceeded\n")
        self._try(caller, upload)
        if upload.mimetype:
            check_mimetype(upload.mimetype, bucket["allowed_mime_types"])
        seconds = upload.metadata.get("cacheControl") or ""
        upload.metadata["cacheControl"] = f"max-age={seconds}" if _SECONDS.fullmatch(seconds) else "no-cache"
        self._uploads.create(upload)
        response = _reply(201, {"Location": url_for(".upload", address=upload.address, _external=True)})
        offset = 0
        if request.headers.get("Content-Type") == _CONTENT_TYPE:
            try:
                offset = self._receive(upload, 0)
            except StorageError:
                # The client has not received its address.
                self._uploads.remove(upload)
                raise
            response.headers["Upload-Offset"] = str(offset)
        return self._finish(caller, upload, offset, response)

    def _patch(self, caller: Caller, upload: Upload) -> Response:
        if "Upload-Offset" not in request.headers:
            raise refusal(403, "Upload-Offset header required\n")
        offset = _size("Upload-Offset")
        if "Content-Type" not in request.headers:
            raise refusal(403, "Content-Type header required\n")
        self._try(caller, upload)
        offset = self._receive(upload, offset)
        return self._finish(caller, upload, offset, _reply(204, {"Upload-Offset": str(offset)}))

    def _terminate(self, caller: Caller, upload: Upload) -> Response:
        self._try(caller, upload)
        if self._uploads.offset(upload) == upload.length:
            raise refusal(400, "Cannot terminate an already completed upload")
        self._uploads.remove(upload)
        return _reply(204)

    def _head(self, upload: Upload) -> Response:
        headers = {
            "Cache-Control": "no-store",
            "Upload-Offset": str(self._uploads.offset(upload)),
            "Upload-Length": str(upload.length),
            "Upload-Metadata": _format_metadata(upload.metadata),
        }
        return _reply(200, headers)

    def _try(self, caller: Caller, upload: Upload) -> None:
        """Check the caller's permissions: try to write the row and roll back."""
        self._store.try_write(caller, _target(upload), upload.trial_metadata, upload.user_metadata)

    def _receive(self, upload: Upload, offset: int) -> int:
        if offset + (request.content_length or 0) > upload.length:
            # If the offset is wrong too, this raises that error first.
            self._uploads.append(upload, offset, ())
            raise refusal(413, "upload's size exceeded\n")
        return self._uploads.append(upload, offset, arriving(request))

    def _finish(self, caller: Caller, upload: Upload, offset: int, response: Response) -> Response:
        """Write the row once all bytes have arrived."""
        if offset != upload.length:
            return response
        if not upload.finished:
            written = self._uploads.take(upload)
            mimetype = upload.mimetype or "application/octet-stream"
            metadata = self._store.measured(written, mimetype, str(upload.metadata["cacheControl"]))
            try:
                content = Content(upload.version, metadata, upload.user_metadata)
                self._store.complete(caller, _target(upload), content)
                upload.finished = True
            finally:
                self._uploads.drop_bytes(upload)
        response.headers["Tus-Complete"] = "1"
        return response


def _target(upload: Upload) -> Target:
    return Target(upload.bucket, upload.key, upsert=request.headers.get("x-upsert") == "true")


def _announced() -> Upload:
    """Return the upload that the request creates."""
    headers = request.headers
    if "Upload-Length" not in headers or "Upload-Defer-Length" in headers:
        raise refusal(400, "Upload-Length or Upload-Defer-Length header required\n")
    length = _size("Upload-Length")
    if "Upload-Metadata" not in headers:
        raise invalid_request("Metadata header is required")
    metadata = _parse_metadata(headers["Upload-Metadata"])
    bucket, key = metadata.get("bucketName") or "", metadata.get("objectName") or ""
    return Upload(bucket, key, length, metadata)


def _options() -> Response:
    headers = {
        "Tus-Version": _VERSION,
        "Tus-Extension": "creation,creation-with-upload,termination",
        "Access-Control-Allow-Methods": "POST, HEAD, PATCH, OPTIONS, DELETE",
        "Access-Control-Allow-Headers": f"{_HEADERS}, Authorization, X-Upsert, Upload-Expires, ApiKey, x-signature",
        "Access-Control-Max-Age": "86400",
    }
    return _reply(204, headers | _CORS)


def _reply(status: int, headers: Mapping[str, str] | None = None, text: str = "") -> Response:
    """Return an answer as plain text; like the original's, a 204 has no ``Content-Type``."""
    response = Response(text, status, headers, content_type="text/plain;charset=UTF-8")
    response.headers["Tus-Resumable"] = _VERSION
    if status == 204:
        del response.headers["Content-Type"]
    return response


def _check_headers() -> None:
    """Refuse a request with another version of the protocol or none, and a chunk of another content type."""
    if not (version := request.headers.get("Tus-Resumable")):
        raise refusal(412, "Tus-Resumable Required\n")
    if version != _VERSION:
        raise refusal(400, "Invalid tus-resumable\n")
    if request.method == "PATCH" and request.headers.get("Content-Type", _CONTENT_TYPE) != _CONTENT_TYPE:
        raise refusal(400, "Invalid content-type\n")


def _size(header: str) -> int:
    if not _SIZE.fullmatch(value := request.headers[header]):
        raise refusal(400, f"Invalid {header.lower()}\n")
    return int(value)


def _parse_metadata(header: str) -> Metadata:
    """Parse ``Upload-Metadata``: pairs of a key and a base64 value, which is optional."""
    metadata: Metadata = {}
    for pair in header.split(","):
        key, *values = pair.split(" ")
        try:
            value = base64.b64decode("".join(values), validate=True).decode(errors="replace")
        except binascii.Error:
            key = ""
        if not key or not key.isascii() or key in metadata or len(values) > 1:
            raise refusal(400, "Invalid upload-metadata\n")
        metadata[key] = value or None
    return metadata


def _format_metadata(metadata: Metadata) -> str:
    return ",".join(
        key if value is None else f"{key} {base64.b64encode(value.encode()).decode()}"
        for key, value in metadata.items()
    )
