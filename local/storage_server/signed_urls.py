"""Signed URLs: a JSON Web Token that binds one bucket and key, to be read or to be written, for a time."""

from __future__ import annotations

import re
import time
from typing import Any, Final, Literal
from urllib.parse import unquote

import jwt

from local.json_web_tokens import InvalidToken, verify
from local.storage_server.errors import StorageError

# The escapes that JavaScript's decodeURI leaves as they are.
_RESERVED: Final = re.compile(r"%(?=3B|2F|3F|3A|40|26|3D|2B|24|2C|23)", re.IGNORECASE)

Scope = Literal["download", "upload"]


class UrlSigner:
    """Makes and checks the tokens of signed URLs."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def sign(self, scope: Scope, address: str, seconds: int, **claims: object) -> str:
        """Return the token that allows ``scope`` on ``address`` (bucket/key) for so many seconds."""
        now = int(time.time())
        claims |= {"url": address, "scope": scope, "iat": now, "exp": now + seconds}
        return jwt.encode(claims, self._secret, "HS256")

    def sign_download(self, address: str, seconds: int) -> str:
        """Return the path, relative to the API, that reads ``address`` for so many seconds.

        The address is not percent-encoded in it.
        """
        return f"/object/sign/{address}?token={self.sign('download', address, seconds)}"

    def verify(self, scope: Scope, token: str, address: str) -> dict[str, Any]:
        """Return the claims of the token that allows ``scope`` on ``address``.

        Raises:
            StorageError: ``InvalidJWT`` (forged, expired) or ``InvalidSignature`` (for something else).
        """
        try:
            claims = verify(token, self._secret)
        except InvalidToken as error:
            raise StorageError(400, "InvalidJWT", str(error)) from error
        # Tokens of before there were scopes are for uploads when they say whether to overwrite.
        if claims.get("scope", "upload" if "upsert" in claims else "download") != scope:
            raise StorageError(400, "InvalidSignature", f"Token is not scoped for {scope}")
        if claims.get("url") != address:
            raise StorageError(400, "InvalidSignature", "Invalid signature")
        return claims


def decode_uri(path: str) -> str:
    """Decode a request's path as JavaScript's decodeURI does, which keeps e.g. ``%2B`` and ``%3F`` encoded.

    The single sign endpoint binds its token to this, and reading compares it with the fully decoded key: a
    key whose reserved characters were percent-encoded in the signing request cannot be read with the answer.
    """
    return unquote(_RESERVED.sub("%25", path))
