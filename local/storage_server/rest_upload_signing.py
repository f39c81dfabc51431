"""REST routes of signed upload URLs: ``/object/upload/sign``."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, jsonify, request

from local.storage_server.bodies import decoded_object, incoming
from local.storage_server.callers import caller_for
from local.storage_server.database import Caller
from local.storage_server.errors import invalid_request
from local.storage_server.keys import check_bucket_name
from local.storage_server.objects import Target
from local.storage_server.signed_urls import UrlSigner
from local.storage_server.store import Store

# As hosted projects and the CLI have it.
_SECONDS: Final = 7200


def add_routes(blueprint: Blueprint, store: Store, signer: UrlSigner) -> None:
    """Add the routes to sign one upload, which tries the row as the caller, and to upload with the token."""

    @blueprint.post("/object/upload/sign/<bucket>/<key:key>")
    def sign_upload(bucket: str, key: str) -> Response:
        caller = caller_for("storage.object.sign_upload_url")
        check_bucket_name(bucket)
        said = {"mimetype": request.headers.get("Content-Type"), "contentLength": request.content_length}
        metadata = {name: value for name, value in said.items() if value is not None}
        user_metadata = decoded_object(request.headers.get("x-metadata"))
        upsert = request.headers.get("x-upsert") == "true"
        store.try_write(caller, Target(bucket, key, upsert), metadata, user_metadata)
        owner = {} if caller.owner is None else {"owner": caller.owner}
        token = signer.sign("upload", f"{bucket}/{key}", _SECONDS, upsert=upsert, **owner)
        return jsonify(url=f"/object/upload/sign/{bucket}/{key}?token={token}", token=token)

    @blueprint.put("/object/upload/sign/<bucket>/<key:key>")
    def upload_signed(bucket: str, key: str) -> Response:
        if (token := request.args.get("token")) is None:
            raise invalid_request("querystring must have required property 'token'")
        claims = signer.verify("upload", token, f"{bucket}/{key}")
        caller = Caller("service_role", "storage.object.upload_signed", owner=claims.get("owner"))
        store.upload(caller, Target(bucket, key, bool(claims.get("upsert"))), incoming(request))
        return jsonify(Key=f"{bucket}/{key}")
