"""The caller of one operation, as the gateway has identified it."""

from __future__ import annotations

from flask import g

from local.storage_server.database import Caller
from local.storage_server.errors import StorageError, access_denied, invalid_request


def caller_for(operation: str) -> Caller:
    """Return the caller whose role the gateway put into ``flask.g.role``, and user into ``flask.g.sub``.

    Raises:
        StorageError: ``InvalidRequest`` (the request carries no key) or ``AccessDenied`` (one that does not hold).
    """
    if (role := g.get("role")) is None:
        raise _refused() or invalid_request("headers must have required property 'authorization'")
    return Caller(role, operation, g.get("sub"), g.get("sub"))


def resumable_caller_for(operation: str) -> Caller:
    """Return the caller as ``caller_for`` does; here no token at all is one that does not hold."""
    if (role := g.get("role")) is None:
        raise _refused() or access_denied("Invalid Compact JWS")
    return Caller(role, operation, g.get("sub"), g.get("sub"))


def anyone_for(operation: str) -> Caller:
    """Return the caller, or without a key the service, for what a public address or a signed URL allows."""
    return Caller(g.get("role") or "service_role", operation, g.get("sub"), g.get("sub"))


def _refused() -> StorageError | None:
    """Return the refusal of a token that the gateway found not to hold."""
    return access_denied(reason) if (reason := g.get("refused_token")) else None
