"""Signed URLs: a JSON Web Token that binds one bucket and key for a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

import jwt

from local.storage_server.errors import StorageError

# The escapes that JavaScript's decodeURI leaves as they are.
_RESERVED: Final = re.compile(r"%(?=3B|2F|3F|3A|40|26|3D|2B|24|2C|23)", re.IGNORECASE)


class UrlSigner:
    """Makes and checks the tokens of signed URLs."""

    def __init__(self, secret: str, clock: Callable[[], datetime]) -> None:
        self._secret = secret
        self._clock = clock

    def sign(self, address: str, seconds: int) -> str:
        """Return the path, relative to the API, that reads ``address`` (bucket/key) for so many seconds.

        The address is not percent-encoded in it.
        """
        now = int(self._clock().timestamp())
        claims = {"url": address, "iat": now, "exp": now + seconds}
        return f"/object/sign/{address}?token={jwt.encode(claims, self._secret, 'HS256')}"

    def verify(self, token: str, address: str) -> datetime:
        """Return when the token for ``address`` ends.

        Raises:
            StorageError: ``InvalidJWT`` (forged, expired) or ``InvalidSignature`` (for another address).
        """
        claims = self._claims(token)
        if claims["exp"] <= self._clock().timestamp():
            raise StorageError(400, "InvalidJWT", '"exp" claim timestamp check failed')
        if claims["url"] != address:
            raise StorageError(400, "InvalidSignature", "Invalid signature")
        return datetime.fromtimestamp(claims["exp"], tz=self._clock().tzinfo)

    def _claims(self, token: str) -> dict[str, Any]:
        # The expiry is checked by this server's clock instead.
        options: Any = {"verify_exp": False, "verify_iat": False, "require": ["exp", "url"]}
        try:
            return jwt.decode(token, self._secret, ["HS256"], options=options)
        except jwt.InvalidSignatureError as error:
            raise StorageError(400, "InvalidJWT", "signature verification failed") from error
        except jwt.InvalidTokenError as error:
            raise StorageError(400, "InvalidJWT", "Invalid Compact JWS") from error


def decode_uri(path: str) -> str:
    """Decode a request's path as JavaScript's decodeURI does, which keeps e.g. ``%2B`` and ``%3F`` encoded.

    The single sign endpoint binds its token to this, and reading compares it with the fully decoded key: a
    key whose reserved characters were percent-encoded in the signing request cannot be read with the answer.
    """
    return unquote(_RESERVED.sub("%25", path))
