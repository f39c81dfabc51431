"""The HTTP application: the key, errors as JSON, and the parts that answer.

``GET /results/...`` needs no key: it stands for ittybit's public CDN.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from flask import Blueprint, Flask, Response, jsonify, request, send_from_directory
from werkzeug.exceptions import HTTPException

from local.ittybit_server.errors import RequestError

_KINDS = {404: "not_found", 405: "method_not_allowed", 500: "internal_error"}


def application(api_key: str, results: Path, parts: list[Blueprint]) -> Flask:
    """The application that answers requests bearing this key."""
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined] # of the default provider

    @app.before_request
    def check_key() -> None:
        if request.endpoint == "result":
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise RequestError(401, "token_missing", "Send the API key as a bearer token.")
        if not hmac.compare_digest(key.encode(), api_key.encode()):
            raise RequestError(401, "token_invalid", "The API key is not valid.")

    @app.get("/results/<path:name>")
    def result(name: str) -> Response:
        return send_from_directory(results, name)

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> tuple[Response, int]:
        return jsonify(kind=error.kind, message=error.message), error.status

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        kind = _KINDS.get(status, "request_invalid")
        return jsonify(kind=kind, message=error.description), status

    for part in parts:
        app.register_blueprint(part)
    return app
