"""S3 requests that concern many objects of a bucket: ListObjectsV2 and DeleteObjects."""

from __future__ import annotations

from urllib.parse import quote

from flask import Response, request

from local.storage_server import listing
from local.storage_server.database import Caller
from local.storage_server.errors import StorageError
from local.storage_server.s3_xml import answer, read
from local.storage_server.store import Store
from local.storage_server.timestamps import iso_milliseconds


def list_objects(store: Store, caller: Caller, bucket: str) -> Response:
    """Return one page of ListObjectsV2."""
    store.bucket(caller, bucket)
    arguments = request.args
    query = listing.Query(
        prefix=arguments.get("prefix", ""),
        delimiter=arguments.get("delimiter") or None,
        limit=arguments.get("max-keys", listing.MOST, type=int) or listing.MOST,
        start_after=arguments.get("start-after", ""),
        cursor=arguments.get("continuation-token"),
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
        "ContinuationToken": query.cursor,
        "StartAfter": text(arguments.get("start-after")),
        "Contents": contents,
        "IsTruncated": page.cursor is not None,
        "MaxKeys": min(query.limit, listing.MOST),
        "Delimiter": text(query.delimiter),
        "EncodingType": encoding,
        "KeyCount": len(page.entries),
        "CommonPrefixes": [{"Prefix": text(row["name"])} for row in page.entries if row["folder"]],
        "NextContinuationToken": page.cursor,
    }
    return answer("ListBucketResult", content)


def delete_objects(store: Store, caller: Caller, bucket: str) -> Response:
    """Remove the keys that the request's document names; a key that is not there counts as removed."""
    if "delete" not in request.args:
        raise StorageError(400, "InvalidRequest", "Only DeleteObjects is supported here")
    document = read(request.get_data())
    keys = [element.findtext("Key", "") for element in document.iter("Object")]
    store.bucket(caller, bucket)
    store.delete_many(caller, bucket, keys)
    quiet = document.findtext("Quiet", "").lower() == "true"
    return answer("DeleteResult", {"Deleted": [] if quiet else [{"Key": key} for key in keys]})
