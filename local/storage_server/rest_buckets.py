"""REST routes of buckets: ``/bucket``."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from local.storage_server import buckets
from local.storage_server.callers import caller_for
from local.storage_server.errors import access_denied
from local.storage_server.store import Store
from local.storage_server.validation import parse


def add_routes(blueprint: Blueprint, store: Store) -> None:
    """Add the routes to create, list, read, change, empty and delete buckets."""

    @blueprint.post("/bucket", strict_slashes=False)
    def create_bucket() -> Response:
        caller = caller_for("storage.bucket.create")
        body = parse(buckets.NewBucket, request)
        with store.database.transaction(caller) as cursor:
            buckets.create(cursor, caller, body)
        return jsonify(name=body.name)

    @blueprint.get("/bucket", strict_slashes=False)
    def list_buckets() -> Response:
        with store.database.transaction(caller_for("storage.bucket.list")) as cursor:
            return jsonify([buckets.as_json(row) | {"type": row["type"]} for row in buckets.every(cursor)])

    @blueprint.get("/bucket/<bucket>")
    def get_bucket(bucket: str) -> Response:
        with store.database.transaction(caller_for("storage.bucket.get")) as cursor:
            return jsonify(buckets.as_json(buckets.get(cursor, bucket)))

    @blueprint.put("/bucket/<bucket>")
    def update_bucket(bucket: str) -> Response:
        caller, body = caller_for("storage.bucket.update"), parse(buckets.BucketSettings, request)
        with store.database.transaction(caller) as cursor:
            buckets.update(cursor, bucket, body)
        return jsonify(message="Successfully updated")

    @blueprint.post("/bucket/<bucket>/empty")
    def empty_bucket(bucket: str) -> Response | tuple[Response, int]:
        caller = caller_for("storage.bucket.empty")
        if caller.role != "service_role":
            return jsonify(access_denied("Access denied: Invalid role").body()), 403
        store.empty(bucket)
        return jsonify(message="Empty bucket has been queued. Completion may take up to an hour.")

    @blueprint.delete("/bucket/<bucket>")
    def delete_bucket(bucket: str) -> Response:
        with store.database.transaction(caller_for("storage.bucket.delete")) as cursor:
            buckets.delete(cursor, bucket)
        return jsonify(message="Successfully deleted")
