"""REST routes of signed URLs: ``/object/sign``."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, Field

from local.storage_server import objects
from local.storage_server.callers import caller_for
from local.storage_server.database import Caller
from local.storage_server.downloads import attachment, send
from local.storage_server.errors import invalid_request
from local.storage_server.signed_urls import UrlSigner, decode_uri
from local.storage_server.store import Store
from local.storage_server.validation import parse

_MISSING = "Either the object does not exist or you do not have access to it"


class Signing(BaseModel):
    """The body of a request for one signed URL."""

    seconds: Annotated[int, Field(alias="expiresIn", ge=1)]


class BulkSigning(Signing):
    """The body of a request for many."""

    paths: Annotated[list[str], Field(min_length=1)]


def add_routes(blueprint: Blueprint, store: Store, signer: UrlSigner) -> None:
    """Add the routes that sign one key, sign many keys, and read a signed object."""

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
        if (token := request.args.get("token")) is None:
            raise invalid_request("querystring must have required property 'token'")
        expires = signer.verify_download(token, f"{bucket}/{key}")
        stored = store.find(Caller("service_role", "storage.object.get_signed"), bucket, key)
        extra = attachment(request.args.get("download"))
        return send(store.files, stored, request, expires=expires, extra=extra)
