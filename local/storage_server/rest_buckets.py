"""REST routes of buckets: ``/bucket``."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from local.storage_server import buckets
from local.storage_server.requests import caller_for, parse
from local.storage_server.store import Store


def add_routes(blueprint: Blueprint, store: Store) -> None:
    """Add the routes to create, list, read and delete buckets."""

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

    @blueprint.delete("/bucket/<bucket>")
    def delete_bucket(bucket: str) -> Response:
        with store.database.transaction(caller_for("storage.bucket.delete")) as cursor:
            buckets.delete(cursor, bucket)
        return jsonify(message="Successfully deleted")
