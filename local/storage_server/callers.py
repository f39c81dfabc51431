"""Who is asking: what the gateway has found out about the request, for one operation."""

from __future__ import annotations

from flask import g

from local.storage_server.database import Caller
from local.storage_server.errors import invalid_request


def caller_for(operation: str) -> Caller:
    """Return the caller whose role the gateway put into ``flask.g.role``, and user into ``flask.g.sub``.

    Raises:
        StorageError: ``InvalidRequest``; the request carries no key.
    """
    if (role := g.get("role")) is None:
        raise invalid_request("headers must have required property 'authorization'")
    return Caller(role, operation, g.get("sub"))


def anyone_for(operation: str) -> Caller:
    """Return the caller, or without a key the service, for what a public address or a signed URL allows."""
    return Caller(g.get("role") or "service_role", operation, g.get("sub"))
