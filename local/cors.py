"""Cross-origin requests, answered as Supabase's gateway does: Kong's plugin ``cors`` with none of its settings."""

from __future__ import annotations

from flask import Flask, Response, request

_METHODS = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT"


def allow_every_origin(app: Flask) -> None:
    """Answer every preflight request, before any key is looked at, and let every origin read every answer.

    Which headers a page may read beside the usual ones is for the service behind to say.
    """

    @app.before_request
    def preflight() -> Response | None:
        asked = request.headers
        if request.method != "OPTIONS" or "Origin" not in asked or "Access-Control-Request-Method" not in asked:
            return None
        answer = Response(headers={"Access-Control-Allow-Methods": _METHODS})
        if names := asked.get("Access-Control-Request-Headers"):
            answer.headers["Access-Control-Allow-Headers"] = names
        return answer

    @app.after_request
    def allow(answer: Response) -> Response:
        answer.headers["Access-Control-Allow-Origin"] = "*"
        return answer
