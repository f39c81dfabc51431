"""Authenticates callers: the database by its signature, people and schedulers by a bearer token."""

from __future__ import annotations

import base64
import hmac
from typing import Protocol

from standardwebhooks import Webhook, WebhookVerificationError

from shared.errors import Refused
from shared.settings import Settings

# The caller gets the same answer for every reason. The log has the reason.
_DETAIL = "Sign the request with FUNCTIONS_SECRET (Standard Webhooks) or send FUNCTIONS_TOKEN as a bearer token."


class Headers(Protocol):
    """A request's headers; names in any case."""

    def get(self, name: str, /) -> str | None:
        """Return the header's value, or None."""


class Unauthenticated(Refused):
    """The caller is not authenticated."""

    def __init__(self, reason: str) -> None:
        super().__init__(401, _DETAIL, reason=reason)


def has_bearer(headers: Headers, settings: Settings) -> bool:
    """Whether the caller sent the bearer token; False when it sent none at all.

    Raises:
        Unauthenticated: it sent a wrong one, or none is configured.
    """
    sent = headers.get("Authorization")
    if sent is None:
        return False
    if settings.functions_token is None:
        raise Unauthenticated("bearer sent, but FUNCTIONS_TOKEN is not set")
    scheme, _, token = sent.partition(" ")
    # On bytes: compare_digest refuses non-ASCII text, and a header may contain it.
    same = hmac.compare_digest(token.strip(" \t").encode(), settings.functions_token.encode())
    if scheme.lower() != "bearer" or not same:
        raise Unauthenticated("wrong bearer token")
    return True


def check_signature(headers: Headers, body: bytes, settings: Settings) -> None:
    """Verify a Standard Webhooks 1.0.0 signature over the raw body, with a timestamp within 5 minutes of now.

    Any configured secret may match: during a rotation there are two.

    Raises:
        Unauthenticated: there is no signature, no secret is configured, or no secret matches.
    """
    if not settings.functions_secret:
        raise Unauthenticated("no bearer sent, and FUNCTIONS_SECRET is not set")
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    signed = {name: value for name in names if (value := headers.get(name)) is not None}
    if len(signed) < len(names):
        raise Unauthenticated("neither a signature nor a bearer token")
    reason = ""
    for secret in settings.functions_secret:
        try:
            Webhook(base64.b64decode(secret.removeprefix("whsec_"))).verify(body, signed, json_parse=False)
        # For a malformed header, or a body that is not UTF-8, the library raises a plain ValueError.
        except (WebhookVerificationError, ValueError) as error:
            reason = f"signature: {error}" if isinstance(error, WebhookVerificationError) else "malformed signature"
        else:
            return
    raise Unauthenticated(reason)
