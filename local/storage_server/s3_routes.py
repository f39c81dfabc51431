"""The S3 protocol, at ``/s3``, for the project's keys, each of which may do everything.

Leaves out, besides what the original leaves out: ListObjects version 1, tagging, POST forms and session tokens.
Like the original it ignores what it does not support, ``If-None-Match`` on a PUT for one.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from flask import Blueprint, Response, jsonify, request

from local.storage_server import buckets, s3_chunked, s3_multipart
from local.storage_server.bodies import Incoming
from local.storage_server.database import Caller
from local.storage_server.downloads import send
from local.storage_server.errors import StorageError, no_such_key
from local.storage_server.keys import FOLDER_PLACEHOLDER
from local.storage_server.objects import Target
from local.storage_server.s3_access import S3Access
from local.storage_server.s3_buckets import delete_objects, list_objects
from local.storage_server.s3_signatures import Verifier
from local.storage_server.s3_xml import answer
from local.storage_server.store import Store
from local.storage_server.timestamps import iso_milliseconds

_METADATA: Final = "x-amz-meta-"


def create_s3_blueprint(store: Store, verifier: Verifier, access: S3Access) -> Blueprint:
    """Return the routes of the S3 protocol, to be mounted at ``/s3``.

    Args:
        store: The objects.
        verifier: Checks the signature of every request.
        access: Whether S3 is on, and the region that GetBucketLocation and HeadBucket say.
    """
    blueprint = Blueprint("s3", __name__)
    uploads = s3_multipart.Uploads(store)

    @blueprint.before_request
    def admit() -> tuple[Response, int] | None:
        if not access.enabled:
            # JSON and no XML: after storage-api's source (tenant-feature), not recorded.
            message = "feature not enabled for this tenant"
            return jsonify(StorageError(403, "FeatureNotEnabled", message).body()), 403
        verifier.verify(request)
        return None

    @blueprint.errorhandler(StorageError)
    def refuse(error: StorageError) -> Response:
        resource = request.path.partition("/s3/")[2]
        content = {"Resource": resource, "Code": error.code, "Message": error.message}
        return answer("Error", content, status=error.status)

    @blueprint.get("/", strict_slashes=False)
    def list_buckets() -> Response:
        with store.database.transaction(_caller("bucket.list")) as cursor:
            every = buckets.every(cursor)
        rows = [{"Name": row["name"], "CreationDate": iso_milliseconds(row["created_at"])} for row in every]
        return answer("ListAllMyBucketsResult", {"Buckets": {"Bucket": rows}})

    @blueprint.get("/<bucket>", strict_slashes=False)
    def get_bucket(bucket: str) -> Response:
        if request.method == "HEAD":
            store.bucket(_caller("bucket.head"), bucket)
            return Response(headers={"x-amz-bucket-region": access.region})
        if "location" in request.args:
            store.bucket(_caller("bucket.get_location"), bucket)
            return answer("LocationConstraint", {"LocationConstraint": access.region})
        return list_objects(store, _caller("object.list"), bucket)

    @blueprint.post("/<bucket>", strict_slashes=False)
    def post_bucket(bucket: str) -> Response:
        return delete_objects(store, _caller("object.delete_many"), bucket)

    @blueprint.put("/<bucket>", strict_slashes=False)
    def create_bucket(bucket: str) -> Response:
        caller = _caller("bucket.create")
        with store.database.transaction(caller) as cursor:
            buckets.create(cursor, caller, buckets.NewBucket(name=bucket))
        return Response(headers={"Location": f"/{bucket}"})

    @blueprint.delete("/<bucket>", strict_slashes=False)
    def delete_bucket(bucket: str) -> Response:
        with store.database.transaction(_caller("bucket.delete")) as cursor:
            buckets.delete(cursor, bucket)
        return Response(status=204)

    @blueprint.get("/<bucket>/<key:key>")
    def get_object(bucket: str, key: str) -> Response:
        stored = store.find(_caller("object.get"), bucket, key)
        extra = {f"{_METADATA}{name}": str(value) for name, value in (stored.user_metadata or {}).items()}
        if request.method == "HEAD":
            # JavaScript's way to write a time.
            extra["created-at"] = f"{stored.created_at:%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)}"
        response = send(store.files, stored, request, extra=extra)
        for name in ("Accept-Ranges", "X-Robots-Tag"):
            del response.headers[name]
        return response

    @blueprint.put("/<bucket>/<key:key>")
    def put_object(bucket: str, key: str) -> Response:
        if "uploadId" in request.args:
            return uploads.put_part(_caller("upload.part"), bucket, key)
        if source := request.headers.get("x-amz-copy-source"):
            return _copy(store, source, Target(bucket, key, upsert=True))
        if key.endswith("/") and not request.content_length:
            key += FOLDER_PLACEHOLDER
        row = store.upload(_caller("upload"), Target(bucket, key, upsert=True), _incoming())
        return Response(headers={"ETag": row["metadata"]["eTag"]})

    @blueprint.post("/<bucket>/<key:key>")
    def post_object(bucket: str, key: str) -> Response:
        if "uploads" in request.args:
            return uploads.create(_caller("upload.create_multipart"), bucket, key, _user_metadata())
        return uploads.complete(_caller("upload.complete_multipart"), bucket, key)

    @blueprint.delete("/<bucket>/<key:key>")
    def delete_object(bucket: str, key: str) -> Response:
        if "uploadId" in request.args:
            return uploads.abort(_caller("upload.abort_multipart"), bucket, key)
        caller = _caller("object.delete")
        if not store.delete_many(caller, bucket, [key]):
            store.bucket(caller, bucket)
        return Response(status=204)

    return blueprint


def _caller(operation: str) -> Caller:
    return Caller("service_role", f"storage.s3.{operation}")


def _incoming() -> Incoming:
    chunks, length = s3_chunked.body(request)
    return Incoming(
        chunks,
        length,
        request.headers.get("Content-Type") or "application/octet-stream",
        request.headers.get("Cache-Control") or "no-cache",
        _user_metadata(),
    )


def _user_metadata() -> dict[str, str]:
    lower = ((name.lower(), value) for name, value in request.headers.items())
    return {name.removeprefix(_METADATA): value for name, value in lower if name.startswith(_METADATA)}


def _copy(store: Store, source: str, target: Target) -> Response:
    bucket, _, key = unquote(source).removeprefix("/").partition("/")
    if not key:
        raise no_such_key()
    row = store.copy(_caller("object.copy"), (bucket, key), target)
    content = {"ETag": row["metadata"]["eTag"], "LastModified": row["metadata"]["lastModified"]}
    return answer("CopyObjectResult", content)
