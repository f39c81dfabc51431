"""The S3 protocol, at ``/s3``, for the project's keys, each of which may do everything.

Left out, in addition to what the original leaves out: ListObjects version 1, DeleteObjects, requests that create,
delete or locate buckets, tagging, POST forms, and bodies in length-prefixed chunks (``aws-chunked``), which are
refused. Like the original it ignores what it does not support, e.g. ``If-None-Match`` on a PUT.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from flask import Blueprint, Response, jsonify, request

from local.storage_server import buckets, listing, s3_multipart
from local.storage_server.database import Caller, iso_milliseconds
from local.storage_server.downloads import send
from local.storage_server.errors import StorageError, no_such_key
from local.storage_server.files import read_chunks
from local.storage_server.keys import FOLDER_PLACEHOLDER
from local.storage_server.objects import Target
from local.storage_server.requests import Incoming
from local.storage_server.s3_signatures import S3Access, verify
from local.storage_server.s3_xml import answer
from local.storage_server.store import Store

_METADATA: Final = "x-amz-meta-"


def create_s3_blueprint(store: Store, access: S3Access) -> Blueprint:
    """Return the routes of the S3 protocol, to be mounted at ``/s3``."""
    blueprint = Blueprint("s3", __name__)
    uploads = s3_multipart.Uploads(store)

    @blueprint.before_request
    def admit() -> tuple[Response, int] | None:
        if not access.enabled:
            # JSON, not XML: follows storage-api's source (tenant-feature); not recorded.
            message = "feature not enabled for this tenant"
            return jsonify(StorageError(403, "FeatureNotEnabled", message).body()), 403
        verify(request, access)
        if request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            raise StorageError(501, "NotImplemented", "The embedded stack takes no aws-chunked body: send it whole")
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
        return _list_objects(store, _caller("object.list"), bucket)

    @blueprint.get("/<bucket>/<key:key>")
    def get_object(bucket: str, key: str) -> Response:
        stored = store.find(_caller("object.get"), bucket, key)
        extra = {f"{_METADATA}{name}": str(value) for name, value in (stored.user_metadata or {}).items()}
        if request.method == "HEAD":
            # A time as JavaScript formats it.
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
    return Incoming(
        read_chunks(request.stream),
        request.content_length,
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


def _list_objects(store: Store, caller: Caller, bucket: str) -> Response:
    """Return one page of ListObjectsV2."""
    store.bucket(caller, bucket)
    arguments = request.args
    query = listing.Query(
        prefix=arguments.get("prefix", ""),
        delimiter=arguments.get("delimiter") or None,
        limit=arguments.get("max-keys", listing.MAX_LIMIT, type=int) or listing.MAX_LIMIT,
        after=arguments.get("continuation-token") or arguments.get("start-after", ""),
    )
    with store.database.transaction(caller) as cursor:
        page = listing.page(cursor, bucket, query)
    encoding = arguments.get("encoding-type")

    def text(value: str | None) -> str | None:
        return quote(value, safe="-_.~") if value is not None and encoding == "url" else value

    contents = [
        {
            "Key": text(row["name"]),
            "LastModified": iso_milliseconds(row["updated_at"]),
            "ETag": (row["metadata"] or {}).get("eTag"),
            "Size": (row["metadata"] or {}).get("size", 0),
            "StorageClass": "STANDARD",
        }
        for row in page.entries
        if not row["folder"]
    ]
    content = {
        "Name": bucket,
        "Prefix": text(query.prefix),
        "ContinuationToken": arguments.get("continuation-token"),
        "StartAfter": text(arguments.get("start-after")),
        "Contents": contents,
        "IsTruncated": page.more,
        "MaxKeys": min(query.limit, listing.MAX_LIMIT),
        "Delimiter": text(query.delimiter),
        "EncodingType": encoding,
        "KeyCount": len(page.entries),
        "CommonPrefixes": [{"Prefix": text(row["name"])} for row in page.entries if row["folder"]],
        "NextContinuationToken": page.entries[-1]["name"] if page.more else None,
    }
    return answer("ListBucketResult", content)
