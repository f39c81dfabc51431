"""Resumable uploads over the tus protocol, at ``/upload/resumable``, and ``/upload/resumable/sign`` with a token.

As in storage-api v1.70.6 every request that writes first tries the row as the caller, so n chunks make n + 2 trigger
calls; with a token only the last writes it. Like its file backend, and unlike hosted servers, it names no expiry
(``Upload-Expires``). Leaves out the expiry itself, a greatest size for all buckets, and forwarded hosts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final
from uuid import uuid4

from flask import Blueprint, Response, request, url_for

from local.storage_server.bodies import arriving
from local.storage_server.callers import resumable_caller_for
from local.storage_server.database import Caller
from local.storage_server.errors import StorageError, invalid_request
from local.storage_server.keys import check_mimetype
from local.storage_server.objects import Content, Target
from local.storage_server.signed_urls import UrlSigner
from local.storage_server.store import Store
from local.storage_server.tus_protocol import (
    CONTENT_TYPE,
    EXTENSIONS,
    HEADERS,
    VERSION,
    check_headers,
    format_metadata,
    parse_metadata,
    refusal,
    reply,
)
from local.storage_server.tus_uploads import Upload, UploadId, Uploads

# The original forgets what stands after the last comma.
_CORS: Final = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": f"{HEADERS},"}
_OPERATIONS: Final = {"POST": "create", "PATCH": "part", "HEAD": "get", "DELETE": "delete"}
_SECONDS: Final = re.compile(r"-?\d+")


def create_tus_blueprint(store: Store, signer: UrlSigner) -> Blueprint:
    """Return the routes of resumable uploads, to be mounted at ``/upload/resumable``."""
    blueprint = Blueprint("resumable", __name__)
    uploads = Uploads(store.files)
    resumable, signed = _Resumable(store, uploads), _Resumable(store, uploads, signer)

    @blueprint.route("/", methods=["POST", "OPTIONS"], strict_slashes=False)
    @blueprint.route("/<upload_id>", methods=["POST", "HEAD", "PATCH", "DELETE", "OPTIONS"])
    def upload(upload_id: str = "") -> Response:
        return resumable.answer(upload_id)

    @blueprint.route("/sign", methods=["POST", "OPTIONS"], strict_slashes=False)
    @blueprint.route("/sign/<upload_id>", methods=["POST", "HEAD", "PATCH", "DELETE", "OPTIONS"])
    def signed_upload(upload_id: str = "") -> Response:
        return signed.answer(upload_id)

    return blueprint


class _Resumable:
    """The protocol's requests; with a signer they show a token for their key instead of a JWT."""

    def __init__(self, store: Store, uploads: Uploads, signer: UrlSigner | None = None) -> None:
        self._store = store
        self._uploads = uploads
        self._signer = signer

    def answer(self, upload_id: str) -> Response:
        if request.method == "OPTIONS":
            return _options()
        operation = f"storage.tus.upload.{_OPERATIONS[request.method]}"
        # A JWT that does not hold is refused before the protocol begins, in JSON.
        caller = Caller("service_role", f"{operation}_signed") if self._signer else resumable_caller_for(operation)
        try:
            check_headers(request)
        except StorageError as error:
            return reply(error.status, {}, error.message)
        try:
            response = self._handle(caller, upload_id)
        except StorageError as error:
            response = reply(error.status, {}, error.message)
        response.headers.update(_CORS)
        return response

    def _handle(self, caller: Caller, encoded: str) -> Response:
        if request.method == "POST":
            return self._create(caller)
        upload_id = UploadId.decode(encoded)
        if request.method == "PATCH":
            return self._patch(caller, upload_id)
        if request.method == "DELETE":
            return self._terminate(caller, upload_id)
        self._admit(caller, upload_id)
        return self._head(self._uploads.get(upload_id))

    def _create(self, caller: Caller) -> Response:
        upload = _announced()
        upload.id.check()
        bucket = self._store.bucket(caller, upload.id.bucket)
        if upload.length is not None and bucket["file_size_limit"] and upload.length > bucket["file_size_limit"]:
            raise refusal(413, "Maximum size exceeded\n")
        caller, target = self._admit(caller, upload.id)
        self._try(caller, target, upload)
        if upload.mimetype:
            check_mimetype(upload.mimetype, bucket["allowed_mime_types"])
        seconds = upload.metadata.get("cacheControl") or ""
        upload.metadata["cacheControl"] = f"max-age={seconds}" if _SECONDS.fullmatch(seconds) else "no-cache"
        self._uploads.create(upload)
        endpoint = ".signed_upload" if self._signer else ".upload"
        response = reply(201, {"Location": url_for(endpoint, upload_id=upload.id.encode(), _external=True)})
        offset = 0
        if request.headers.get("Content-Type") == CONTENT_TYPE:
            try:
                offset = self._receive(upload, 0, bucket["file_size_limit"])
            except StorageError:
                # Nobody is told its address.
                self._uploads.remove(upload.id)
                raise
            response.headers["Upload-Offset"] = str(offset)
        return self._finish(caller, target, upload, offset, response)

    def _patch(self, caller: Caller, upload_id: UploadId) -> Response:
        offset = request.headers.get("Upload-Offset", type=int)
        if offset is None:
            raise refusal(403, "Upload-Offset header required\n")
        if "Content-Type" not in request.headers:
            raise refusal(403, "Content-Type header required\n")
        caller, target, upload = self._admit_to_existing(caller, upload_id)
        limit = self._store.bucket(caller, upload_id.bucket)["file_size_limit"]
        if (length := request.headers.get("Upload-Length", type=int)) is not None:
            if upload.length is not None or length < offset:
                raise refusal(400, "Upload-Length or Upload-Defer-Length header required\n")
            if limit and length > limit:
                raise refusal(413, "Maximum size exceeded\n")
            upload.length = length
            self._uploads.save(upload)
        offset = self._receive(upload, offset, limit)
        return self._finish(caller, target, upload, offset, reply(204, {"Upload-Offset": str(offset)}))

    def _terminate(self, caller: Caller, upload_id: UploadId) -> Response:
        _, _, upload = self._admit_to_existing(caller, upload_id)
        if self._uploads.offset(upload) == upload.length:
            raise refusal(400, "Cannot terminate an already completed upload")
        self._uploads.remove(upload_id)
        return reply(204)

    def _head(self, upload: Upload) -> Response:
        length = {"Upload-Defer-Length": "1"} if upload.length is None else {"Upload-Length": str(upload.length)}
        offset = str(self._uploads.offset(upload))
        headers = {"Cache-Control": "no-store", "Upload-Offset": offset, **length}
        return reply(200, headers | {"Upload-Metadata": format_metadata(upload.metadata)})

    def _admit(self, caller: Caller, upload_id: UploadId) -> tuple[Caller, Target]:
        """Return the caller and whether the upload may replace an object, from a signed request's token."""
        if self._signer is None:
            upsert = request.headers.get("x-upsert") == "true"
            return caller, Target(upload_id.bucket, upload_id.key, upsert)
        if not (token := request.headers.get("x-signature")):
            raise StorageError(400, "InvalidSignature", "Missing x-signature header")
        claims = self._signer.verify("upload", token, f"{upload_id.bucket}/{upload_id.key}")
        target = Target(upload_id.bucket, upload_id.key, bool(claims.get("upsert")))
        return replace(caller, owner=claims.get("owner")), target

    def _admit_to_existing(self, caller: Caller, upload_id: UploadId) -> tuple[Caller, Target, Upload]:
        caller, target = self._admit(caller, upload_id)
        upload = self._uploads.get(upload_id)
        self._try(caller, target, upload)
        return caller, target, upload

    def _try(self, caller: Caller, target: Target, upload: Upload) -> None:
        """Let row-level security decide; a token was checked when it was signed."""
        if self._signer is None:
            self._store.try_write(caller, target, upload.trial_metadata, upload.user_metadata)

    def _receive(self, upload: Upload, offset: int, bucket_limit: int | None) -> int:
        limit = bucket_limit if upload.length is None else upload.length
        if limit is not None and offset + (request.content_length or 0) > limit:
            # The other offset is the greater fault of the two.
            self._uploads.append(upload, offset, (), None)
            raise refusal(413, "upload's size exceeded\n")
        return self._uploads.append(upload, offset, arriving(request), limit)

    def _finish(self, caller: Caller, target: Target, upload: Upload, offset: int, response: Response) -> Response:
        """Write the row when all has arrived."""
        if offset != upload.length:
            return response
        if not upload.finished:
            written = self._uploads.take(upload)
            mimetype = upload.mimetype or "application/octet-stream"
            metadata = self._store.measured(written, mimetype, str(upload.metadata["cacheControl"]))
            try:
                self._store.complete(caller, target, Content(upload.id.version, metadata, upload.user_metadata))
                self._uploads.save(upload.model_copy(update={"finished": True}))
            finally:
                self._uploads.drop_bytes(upload.id)
        response.headers["Tus-Complete"] = "1"
        return response


def _announced() -> Upload:
    """Return the upload that a request to create one announces."""
    headers = request.headers
    if "Upload-Concat" in headers:
        text = "Concatenation extension is not (yet) supported. Disable parallel uploads in the tus client.\n"
        raise refusal(501, text)
    if ("Upload-Length" in headers) == ("Upload-Defer-Length" in headers):
        raise refusal(400, "Upload-Length or Upload-Defer-Length header required\n")
    if "Upload-Metadata" not in headers:
        raise invalid_request("Metadata header is required")
    metadata = parse_metadata(headers["Upload-Metadata"])
    bucket, key = metadata.get("bucketName") or "", metadata.get("objectName") or ""
    upload_id = UploadId(bucket=bucket, key=key, version=str(uuid4()))
    return Upload(id=upload_id, length=headers.get("Upload-Length", type=int), metadata=metadata)


def _options() -> Response:
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Access-Control-Allow-Methods": "POST, HEAD, PATCH, OPTIONS, DELETE",
        "Access-Control-Allow-Headers": f"{HEADERS}, Authorization, X-Upsert, Upload-Expires, ApiKey, x-signature",
        "Access-Control-Max-Age": "86400",
    }
    return reply(204, headers | _CORS)
