"""Verifies JSON Web Tokens, with the error messages of jose, the library of Supabase's own services.

Leaves out: which part of a token jose cannot decode.
"""

from __future__ import annotations

from typing import Any

import jwt


class InvalidToken(Exception):
    """A token is refused; the message is for the client."""


def verify(token: str, secret: str) -> dict[str, Any]:
    """Return the claims of a token signed with HS256.

    Raises:
        InvalidToken: It is malformed, forged or expired.
    """
    options: Any = {"verify_iat": False, "verify_aud": False, "verify_sub": False}
    try:
        claims: dict[str, Any] = jwt.decode(token, secret, ["HS256"], options=options)
    except jwt.InvalidSignatureError as error:
        raise InvalidToken("signature verification failed") from error
    except jwt.ExpiredSignatureError as error:
        raise InvalidToken('"exp" claim timestamp check failed') from error
    except jwt.InvalidTokenError as error:
        raise InvalidToken("Invalid Compact JWS") from error
    return claims
