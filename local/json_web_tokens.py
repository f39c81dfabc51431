"""JSON Web Tokens verified, and refused in the words of jose, the library of Supabase's own services."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import jwt

# jose looks at the payload after the signature only; the rest of what PyJWT cannot decode is the header.
_UNDECODABLE: Final = {
    "Not enough segments": "Invalid Compact JWS",
    "Invalid payload padding": "signature verification failed",
    "Invalid crypto padding": "Failed to base64url decode the signature",
}
_EXPIRED: Final = '"exp" claim timestamp check failed'


class InvalidToken(Exception):
    """A token is refused; the message is for the client."""


def verify(token: str, secret: str, now: datetime) -> dict[str, Any]:
    """Return the claims of a token signed with HS256.

    Raises:
        InvalidToken: It is no token, forged, or expired.
    """
    # The expiry is checked by the caller's clock instead.
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False, "verify_sub": False}
    try:
        claims: dict[str, Any] = jwt.decode(token, secret, ["HS256"], options=options)
    except jwt.InvalidSignatureError as error:
        raise InvalidToken("signature verification failed") from error
    except jwt.InvalidAlgorithmError as error:
        raise InvalidToken('"alg" (Algorithm) Header Parameter value not allowed') from error
    except jwt.InvalidTokenError as error:
        raise InvalidToken(_UNDECODABLE.get(str(error), "JWS Protected Header is invalid")) from error
    expires = claims.get("exp")
    if expires is not None and expires <= now.timestamp():
        raise InvalidToken(_EXPIRED)
    return claims
