"""REST routes that write and read objects: ``/object``."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, Field

from local.storage_server import objects
from local.storage_server.database import Caller
from local.storage_server.downloads import attachment, caching_headers, send
from local.storage_server.errors import no_such_bucket, no_such_key
from local.storage_server.objects import Target
from local.storage_server.requests import anyone_for, caller_for, incoming, parse
from local.storage_server.store import Store


class Relocation(BaseModel):
    """The body of a request to copy or move. The default destination bucket is the source's."""

    bucket_id: Annotated[str, Field(alias="bucketId")]
    source_key: Annotated[str, Field(alias="sourceKey")]
    destination_bucket: Annotated[str | None, Field(alias="destinationBucket")] = None
    destination_key: Annotated[str, Field(alias="destinationKey")]

    @property
    def source(self) -> tuple[str, str]:
        """The bucket and key that are read."""
        return self.bucket_id, self.source_key

    @property
    def target(self) -> tuple[str, str]:
        """The bucket and key that are written."""
        return self.destination_bucket or self.bucket_id, self.destination_key


class Deletion(BaseModel):
    """The body of a request to delete several objects. Despite their name, ``prefixes`` are whole keys."""

    prefixes: Annotated[list[str], Field(min_length=1, max_length=1000)]


def add_routes(blueprint: Blueprint, store: Store) -> None:
    """Add the routes to upload, copy, move, delete, read and describe objects."""
    _add_writing(blueprint, store)
    _add_reading(blueprint, store)


def _add_writing(blueprint: Blueprint, store: Store) -> None:
    @blueprint.post("/object/<bucket>/<key:key>")
    def upload(bucket: str, key: str) -> Response:
        caller = caller_for("storage.object.upload")
        target = Target(bucket, key, upsert=request.headers.get("x-upsert") == "true")
        row = store.upload(caller, target, incoming(request))
        return jsonify(Key=f"{bucket}/{key}", Id=str(row["id"]))

    @blueprint.put("/object/<bucket>/<key:key>")
    def overwrite(bucket: str, key: str) -> Response:
        caller = caller_for("storage.object.upload_update")
        row = store.upload(caller, Target(bucket, key, upsert=True), incoming(request))
        return jsonify(Key=f"{bucket}/{key}", Id=str(row["id"]))

    @blueprint.post("/object/copy")
    def copy() -> Response:
        caller, body = caller_for("storage.object.copy"), parse(Relocation, request)
        target = Target(*body.target, upsert=request.headers.get("x-upsert") == "true")
        row = store.copy(caller, body.source, target)
        return jsonify(objects.as_json(row) | {"Id": str(row["id"]), "Key": "/".join(body.target)})

    @blueprint.post("/object/move")
    def move() -> Response:
        caller, body = caller_for("storage.object.move"), parse(Relocation, request)
        store.move(caller, body.source, body.target)
        return jsonify(message="Successfully moved")

    @blueprint.delete("/object/<bucket>/<key:key>")
    def delete(bucket: str, key: str) -> Response:
        if not store.delete_many(caller_for("storage.object.delete"), bucket, [key]):
            raise no_such_key()
        return jsonify(message="Successfully deleted")

    @blueprint.delete("/object/<bucket>")
    def delete_many(bucket: str) -> Response:
        caller, body = caller_for("storage.object.delete_many"), parse(Deletion, request)
        return jsonify([objects.as_json(row) for row in store.delete_many(caller, bucket, body.prefixes)])


def _add_reading(blueprint: Blueprint, store: Store) -> None:
    def readable(caller: Caller, bucket: str, key: str, *, public_only: bool = False) -> objects.StoredObject:
        found = store.bucket(caller, bucket)
        if (public_only or g.get("role") is None) and not found["public"]:
            raise no_such_bucket()
        return store.find(caller.as_service() if found["public"] else caller, bucket, key)

    def read(stored: objects.StoredObject) -> Response:
        return send(store.files, stored, request, extra=attachment(request.args.get("download")))

    def described(stored: objects.StoredObject) -> Response:
        response = jsonify(objects.described(stored))
        response.headers.update(caching_headers(stored))
        return response

    @blueprint.get("/object/<bucket>/<key:key>")
    def get(bucket: str, key: str) -> Response:
        return read(readable(anyone_for("storage.object.get_authenticated"), bucket, key))

    @blueprint.get("/object/authenticated/<bucket>/<key:key>")
    def get_authenticated(bucket: str, key: str) -> Response:
        return read(readable(caller_for("storage.object.get_authenticated"), bucket, key))

    @blueprint.get("/object/public/<bucket>/<key:key>")
    def get_public(bucket: str, key: str) -> Response:
        return read(readable(anyone_for("storage.object.get_public"), bucket, key, public_only=True))

    @blueprint.get("/object/info/<bucket>/<key:key>")
    def info(bucket: str, key: str) -> Response:
        return described(readable(anyone_for("storage.object.info_authenticated"), bucket, key))
