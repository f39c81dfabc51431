"""Keeps keys out of whatever is said: answers, log lines, the ledger's errors."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A signed address works for whoever reads it, until it expires.
_TOKEN = re.compile(r"(?i)\b(token|x-amz-signature|x-amz-credential)=[^&\s\"']+")


class Redactor:
    """Replaces every known secret, and the token of every signed address, in a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first, so that none is left half replaced by another that it contains.
        self._secrets = sorted({s for s in secrets if len(s) >= 8}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return ``text`` without its secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _TOKEN.sub(r"\1=***", text)
