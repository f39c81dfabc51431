"""The project's origin: identifies the caller by the keys of a request, as the hosted gateway does.

Follows the gateway before a hosted project's Data API and Storage, with its two kinds of keys: ``sb_secret_…`` and
``sb_publishable_…`` in the header ``apikey``, and the legacy JWTs. Storage itself refuses an invalid or missing token.
Leaves out: rate limits, caching, the other services, and JWTs signed with a project's asymmetric keys.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self

import jwt
from flask import Blueprint, Flask, Response, abort, g, jsonify, request

from local.json_web_tokens import InvalidToken, verify

_ROLES: Final = {"anon", "authenticated", "service_role"}
_METHODS: Final = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT"
_TEN_YEARS: Final = 10 * 365 * 24 * 3600


@dataclass(frozen=True)
class ProjectKeys:
    """A project's keys and secrets."""

    secret_key: str
    publishable_key: str
    jwt_secret: str
    service_role_jwt: str
    anon_jwt: str
    s3_access_key_id: str
    s3_secret_access_key: str

    @classmethod
    def make(cls) -> Self:
        """Return new keys, made at random, in the shapes of hosted ones."""
        jwt_secret = secrets.token_urlsafe(48)
        return cls(
            secret_key=f"sb_secret_{secrets.token_urlsafe(16)}_{secrets.token_hex(4)}",
            publishable_key=f"sb_publishable_{secrets.token_urlsafe(16)}_{secrets.token_hex(4)}",
            jwt_secret=jwt_secret,
            service_role_jwt=_sign({"role": "service_role"}, jwt_secret),
            anon_jwt=_sign({"role": "anon"}, jwt_secret),
            s3_access_key_id=secrets.token_hex(16),
            s3_secret_access_key=secrets.token_hex(32),
        )

    def jwt(self, role: str, sub: str | None = None) -> str:
        """Return a JWT for ``role`` as Auth signs it (HS256); ``sub`` is a user's uuid."""
        return _sign({"role": role} if sub is None else {"role": role, "sub": sub}, self.jwt_secret)

    def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a JWT of this project for one of the API's roles.

        Raises:
            InvalidToken: It is not one, or is expired.
        """
        claims = verify(token, self.jwt_secret)
        if claims.get("role") not in _ROLES:
            raise InvalidToken("Invalid role")
        return claims


def create_app(keys: ProjectKeys, blueprints: Mapping[str, Blueprint]) -> Flask:
    """Return the project's origin.

    Args:
        keys: The keys that callers send.
        blueprints: The services by where they are mounted: ``/rest/v1``, ``/storage/v1``. Each finds the caller in
            ``flask.g.role`` (anon, authenticated or service_role) and ``flask.g.sub`` (a user's uuid or None). Only
            in Storage may the role be None: ``flask.g.refused_token`` then says why the token is invalid, and is None
            if there is no token.
    """
    app = Flask("gateway", static_folder=None)
    app.url_map.merge_slashes = False  # an object's key may hold "//"
    _allow_every_origin(app)
    for prefix, blueprint in blueprints.items():
        app.register_blueprint(blueprint, url_prefix=prefix)

    @app.before_request
    def identify() -> None:
        g.role, g.sub = _caller(keys)

    return app


def _allow_every_origin(app: Flask) -> None:
    """Answer every preflight request before any key is checked, and let every origin read every answer.

    The gateway, Kong, does so too: its plugin ``cors`` is used without settings. The service behind it says which
    headers a page may read besides the usual ones.
    """

    @app.before_request
    def preflight() -> Response | None:
        headers = request.headers
        if request.method != "OPTIONS" or "Origin" not in headers or "Access-Control-Request-Method" not in headers:
            return None
        answer = Response(headers={"Access-Control-Allow-Methods": _METHODS})
        if names := headers.get("Access-Control-Request-Headers"):
            answer.headers["Access-Control-Allow-Headers"] = names
        return answer

    @app.after_request
    def allow(answer: Response) -> Response:
        answer.headers["Access-Control-Allow-Origin"] = "*"
        return answer


def _caller(keys: ProjectKeys) -> tuple[str | None, str | None]:
    """Return the caller's role and, for a signed-in user, its uuid.

    A request without a key where one is needed, or with a key that is not this project's, is answered with a 401.
    """
    in_storage = request.path.startswith("/storage/v1/")
    apikey = request.headers.get("apikey") or request.args.get("apikey")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    if apikey is None and not in_storage:
        hint = "No `apikey` request header or url param was found."
        _refuse({"message": "No API key found in request", "hint": hint})
    claims = {} if apikey is None else _claims_of_key(keys, apikey)
    g.refused_token = None
    # A key of the new kind is no JWT: it is accepted here only if it repeats `apikey`, as older clients do.
    if bearer is not None and bearer != apikey:
        try:
            claims = keys.claims(bearer)
        except InvalidToken as error:
            if not in_storage:
                message = "No suitable key or wrong key type"
                _refuse({"code": "PGRST301", "details": None, "hint": None, "message": message})
            claims, g.refused_token = {}, str(error)
    return claims.get("role"), claims.get("sub")


def _claims_of_key(keys: ProjectKeys, apikey: str) -> dict[str, Any]:
    if hmac.compare_digest(apikey.encode(), keys.secret_key.encode()):
        if "Mozilla/" in request.headers.get("user-agent", ""):
            hint = "Secret API keys can only be used in a protected environment and should never be used in a browser."
            _refuse({"message": "Forbidden use of secret API key in browser", "hint": hint})
        return {"role": "service_role"}
    if hmac.compare_digest(apikey.encode(), keys.publishable_key.encode()):
        return {"role": "anon"}
    try:
        return keys.claims(apikey)
    except InvalidToken:
        hint = "Double check your Supabase `anon` or `service_role` API key."
        _refuse({"message": "Invalid API key", "hint": hint})


def _refuse(body: Mapping[str, str | None]) -> NoReturn:
    answer = jsonify(dict(body))
    answer.status_code = 401
    abort(answer)


def _sign(claims: Mapping[str, Any], secret: str) -> str:
    now = int(time.time())
    return jwt.encode({"iss": "supabase", "iat": now, "exp": now + _TEN_YEARS, **claims}, secret, algorithm="HS256")
