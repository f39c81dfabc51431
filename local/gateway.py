"""The project's one origin, and the keys that open it: who is calling, as the hosted gateway finds it.

Follows the gateway before a hosted project's Data API and Storage, with its two kinds of keys: ``sb_secret_…`` and
``sb_publishable_…`` in the header ``apikey``, and the legacy JWTs. Leaves out: rate limits, CORS, caching, the other
services, and JWTs signed with a project's asymmetric keys.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import jwt
from flask import Blueprint, Flask, Response, g, jsonify, request

_ROLES: Final = {"anon", "authenticated", "service_role"}
_TEN_YEARS: Final = 10 * 365 * 24 * 3600
_OPEN: Final = ("/storage/v1/object/public/", "/storage/v1/s3")
_OPEN_TO_READ: Final = "/storage/v1/object/sign/"


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

    def claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a JWT of this project for one of the API's roles; None when it is not or expired."""
        try:
            payload: dict[str, Any] = jwt.decode(
                token, self.jwt_secret, algorithms=["HS256"], options={"require": ["exp"], "verify_aud": False}
            )
        except jwt.InvalidTokenError:
            return None
        return payload if payload.get("role") in _ROLES else None


class _Refusal(Exception):
    """Why a request does not get past the gateway."""

    def __init__(self, status: int, body: Mapping[str, str | None]) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def create_app(keys: ProjectKeys, blueprints: Mapping[str, Blueprint]) -> Flask:
    """Return the project's origin.

    Args:
        keys: What callers show.
        blueprints: The services by where they are mounted: ``/rest/v1``, ``/storage/v1``. Each finds the caller in
            ``flask.g.role`` (anon, authenticated or service_role) and ``flask.g.sub`` (a user's uuid or None).
    """
    app = Flask("gateway", static_folder=None)
    app.url_map.merge_slashes = False  # an object's key may hold "//"
    for prefix, blueprint in blueprints.items():
        app.register_blueprint(blueprint, url_prefix=prefix)

    @app.before_request
    def identify() -> Response | None:
        try:
            g.role, g.sub = _caller(keys)
        except _Refusal as refusal:
            answer = jsonify(dict(refusal.body))
            answer.status_code = refusal.status
            return answer
        return None

    return app


def _caller(keys: ProjectKeys) -> tuple[str, str | None]:
    """Return the caller's role and, for a signed-in user, its uuid.

    Raises:
        _Refusal: The request shows no key where one is needed, or not one of this project.
    """
    in_storage = request.path.startswith("/storage/v1/")
    apikey = request.headers.get("apikey") or request.args.get("apikey")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else None
    if _is_open() or (apikey is None and bearer is None):
        if not _is_open():
            raise _missing(in_storage)
        return "anon", None
    if apikey is None and not in_storage:
        raise _missing(in_storage)
    claims = {"role": "anon"} if apikey is None else _claims_of_key(keys, apikey)
    # A key of the new kind is no JWT: it is let through here only as what older clients repeat.
    if bearer is not None and bearer != apikey:
        verified = keys.claims(bearer)
        if verified is None:
            raise _bad_token(in_storage)
        claims = verified
    return str(claims["role"]), claims.get("sub")


def _is_open() -> bool:
    """Tell whether the path needs no key: public objects, signed URLs, and S3 with its own signature."""
    reading = request.method in {"GET", "HEAD"}
    return request.path.startswith(_OPEN) or (reading and request.path.startswith(_OPEN_TO_READ))


def _claims_of_key(keys: ProjectKeys, apikey: str) -> dict[str, Any]:
    if hmac.compare_digest(apikey.encode(), keys.secret_key.encode()):
        if "Mozilla/" in request.headers.get("user-agent", ""):
            hint = "Secret API keys can only be used in a protected environment and should never be used in a browser."
            raise _Refusal(401, {"message": "Forbidden use of secret API key in browser", "hint": hint})
        return {"role": "service_role"}
    if hmac.compare_digest(apikey.encode(), keys.publishable_key.encode()):
        return {"role": "anon"}
    if (claims := keys.claims(apikey)) is not None:
        return claims
    hint = "Double check your Supabase `anon` or `service_role` API key."
    raise _Refusal(401, {"message": "Invalid API key", "hint": hint})


def _missing(in_storage: bool) -> _Refusal:
    if in_storage:
        message = "headers must have required property 'authorization'"
        return _Refusal(400, {"statusCode": "400", "error": "Error", "message": message})
    hint = "No `apikey` request header or url param was found."
    return _Refusal(401, {"message": "No API key found in request", "hint": hint})


def _bad_token(in_storage: bool) -> _Refusal:
    if in_storage:
        return _Refusal(400, {"statusCode": "403", "error": "Unauthorized", "message": "Invalid Compact JWS"})
    body = {"code": "PGRST301", "details": None, "hint": None, "message": "No suitable key or wrong key type"}
    return _Refusal(401, body)


def _sign(claims: Mapping[str, Any], secret: str) -> str:
    now = int(time.time())
    return jwt.encode({"iss": "supabase", "iat": now, "exp": now + _TEN_YEARS, **claims}, secret, algorithm="HS256")
