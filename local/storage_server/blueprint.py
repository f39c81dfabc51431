"""The storage server as one Flask blueprint."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, jsonify
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from local.connection_pool import Connections
from local.storage_server import rest_buckets, rest_listing, rest_objects, rest_signing
from local.storage_server.database import Database
from local.storage_server.errors import StorageError
from local.storage_server.files import Files
from local.storage_server.s3_routes import create_s3_blueprint
from local.storage_server.s3_signatures import S3Access
from local.storage_server.signed_urls import UrlSigner
from local.storage_server.store import Store
from local.storage_server.tus_routes import create_tus_blueprint


class _KeyConverter(BaseConverter):
    """The rest of a path, unchanged: object keys may begin and end with a slash and contain empty segments."""

    part_isolating = False
    regex = "(?s:.+)"


def create_blueprint(*, connections: Connections, directory: Path, jwt_secret: str, s3: S3Access) -> Blueprint:
    """Return the storage server, to be mounted at ``/storage/v1``.

    The application sets ``flask.g.role`` (``service_role``, ``authenticated``, ``anon`` or None) and
    ``flask.g.sub`` before each request, and ``flask.g.refused_token`` (why the token is invalid, or None).
    Requests below ``/s3`` are signed instead.

    Args:
        connections: Logged in as ``supabase_storage_admin``.
        directory: Where the bytes are kept; created if missing.
        jwt_secret: Signs the tokens of signed URLs (HS256, at least 32 bytes).
        s3: The S3 protocol's keys and settings.
    """
    store = Store(Database(connections), Files(directory))
    blueprint = Blueprint("storage", __name__)
    blueprint.record_once(_add_converter)
    blueprint.register_error_handler(StorageError, _refuse)
    blueprint.after_request(_name_charset)
    rest_buckets.add_routes(blueprint, store)
    rest_objects.add_routes(blueprint, store)
    rest_listing.add_routes(blueprint, store)
    rest_signing.add_routes(blueprint, store, UrlSigner(jwt_secret))
    blueprint.register_blueprint(create_tus_blueprint(store), url_prefix="/upload/resumable")
    blueprint.register_blueprint(create_s3_blueprint(store, s3), url_prefix="/s3")
    return blueprint


def _add_converter(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["key"] = _KeyConverter


def _name_charset(response: Response) -> Response:
    # A downloaded object keeps the type that it was stored with.
    if response.content_type == "application/json" and not response.direct_passthrough:
        response.content_type = "application/json; charset=utf-8"
    return response


def _refuse(error: StorageError) -> tuple[Response, int]:
    return jsonify(error.body()), error.rest_status
