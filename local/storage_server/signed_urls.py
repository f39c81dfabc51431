"""Signed URLs: a JSON Web Token allows reading or writing one bucket and key for a limited time."""

from __future__ import annotations

import re
import time
from typing import Any, Final, Literal
from urllib.parse import unquote

import jwt

from local.json_web_tokens import InvalidToken, verify
from local.storage_server.errors import StorageError

# The escapes that JavaScript's decodeURI leaves unchanged.
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

        It contains the address without percent-encoding.
        """
        return f"/object/sign/{address}?token={self.sign('download', address, seconds)}"

    def verify(self, scope: Scope, token: str, address: str) -> dict[str, Any]:
        """Return the claims of the token that allows ``scope`` on ``address``.

        Raises:
            StorageError: ``InvalidJWT`` (forged, expired) or ``InvalidSignature`` (another scope or address).
        """
        try:
            claims = verify(token, self._secret)
        except InvalidToken as error:
            raise StorageError(400, "InvalidJWT", str(error)) from error
        # Older tokens have no scope. Those with ``upsert`` are for uploads.
        if claims.get("scope", "upload" if "upsert" in claims else "download") != scope:
            raise StorageError(400, "InvalidSignature", f"Token is not scoped for {scope}")
        if claims.get("url") != address:
            raise StorageError(400, "InvalidSignature", "Invalid signature")
        return claims


def decode_uri(path: str) -> str:
    """Decode a request's path as JavaScript's decodeURI does, which keeps e.g. ``%2B`` and ``%3F`` encoded.

    The endpoint that signs one key puts the result into its token. Reading compares it with the fully decoded key. So
    if the signing request percent-encodes a key's reserved characters, the signed URL does not work.
    """
    return unquote(_RESERVED.sub("%25", path))
