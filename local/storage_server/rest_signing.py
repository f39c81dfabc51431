"""REST routes of signed URLs: ``/object/sign`` to read, ``/object/upload/sign`` to write."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, Field

from local.storage_server import objects
from local.storage_server.database import Caller
from local.storage_server.downloads import attachment, send
from local.storage_server.errors import invalid_request
from local.storage_server.keys import check_bucket_name
from local.storage_server.objects import Target
from local.storage_server.requests import caller_for, decoded_object, incoming, parse
from local.storage_server.signed_urls import UrlSigner, decode_uri
from local.storage_server.store import Store

_MISSING: Final = "Either the object does not exist or you do not have access to it"
# How long an upload's URL is valid, as in hosted projects and the CLI.
_SECONDS: Final = 7200


class Signing(BaseModel):
    """The body of a request for one signed URL."""

    seconds: Annotated[int, Field(alias="expiresIn", ge=1)]


class BulkSigning(Signing):
    """The body of a request for many signed URLs."""

    paths: Annotated[list[str], Field(min_length=1)]


def add_routes(blueprint: Blueprint, store: Store, signer: UrlSigner) -> None:
    """Add the routes that sign one key or many, read a signed object, sign an upload, and upload with the token."""

    @blueprint.post("/object/sign/<bucket>/<key:key>")
    def sign(bucket: str, key: str) -> Response:
        caller, body = caller_for("storage.object.sign"), parse(Signing, request)
        store.find(caller, bucket, key)
        path = urlsplit(request.environ["RAW_URI"]).path
        address = decode_uri(path.split("/object/sign/", 1)[1])
        return jsonify(signedURL=signer.sign_download(address, body.seconds))

    @blueprint.post("/object/sign/<bucket>")
    def sign_many(bucket: str) -> Response:
        caller, body = caller_for("storage.object.sign_many"), parse(BulkSigning, request)
        with store.database.transaction(caller) as cursor:
            found = objects.existing(cursor, bucket, body.paths)

        def answer(path: str) -> dict[str, Any]:
            if path not in found:
                return {"error": _MISSING, "path": path, "signedURL": None}
            return {"error": None, "path": path, "signedURL": signer.sign_download(f"{bucket}/{path}", body.seconds)}

        return jsonify([answer(path) for path in body.paths])

    @blueprint.get("/object/sign/<bucket>/<key:key>")
    def get_signed(bucket: str, key: str) -> Response:
        claims = signer.verify("download", _token(), f"{bucket}/{key}")
        stored = store.find(Caller("service_role", "storage.object.get_signed"), bucket, key)
        extra = attachment(request.args.get("download"))
        return send(store.files, stored, request, expires=claims.get("exp"), extra=extra)

    @blueprint.post("/object/upload/sign/<bucket>/<key:key>")
    def sign_upload(bucket: str, key: str) -> Response:
        """Try to write the row as the caller. Anyone with the token may then upload."""
        caller = caller_for("storage.object.sign_upload_url")
        check_bucket_name(bucket)
        sent = {"mimetype": request.headers.get("Content-Type"), "contentLength": request.content_length}
        metadata = {name: value for name, value in sent.items() if value is not None}
        user_metadata = decoded_object(request.headers.get("x-metadata"))
        upsert = request.headers.get("x-upsert") == "true"
        store.try_write(caller, Target(bucket, key, upsert), metadata, user_metadata)
        owner = {} if caller.owner is None else {"owner": caller.owner}
        token = signer.sign("upload", f"{bucket}/{key}", _SECONDS, upsert=upsert, **owner)
        return jsonify(url=f"/object/upload/sign/{bucket}/{key}?token={token}", token=token)

    @blueprint.put("/object/upload/sign/<bucket>/<key:key>")
    def upload_signed(bucket: str, key: str) -> Response:
        claims = signer.verify("upload", _token(), f"{bucket}/{key}")
        caller = Caller("service_role", "storage.object.upload_signed", owner=claims.get("owner"))
        store.upload(caller, Target(bucket, key, bool(claims.get("upsert"))), incoming(request))
        return jsonify(Key=f"{bucket}/{key}")


def _token() -> str:
    if token := request.args.get("token"):
        return token
    raise invalid_request("querystring must have required property 'token'")
