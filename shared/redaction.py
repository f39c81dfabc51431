"""Keeps keys out of whatever is said: answers, log lines, the ledger's errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

# A signed address works for whoever reads it, until it expires.
_TOKEN = re.compile(r"(?i)\b(token|x-amz-signature|x-amz-credential)=[^&\s\"']+")


class Redactor:
    """Replaces every known secret, and the token of every signed address, in a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        long = [secret for secret in secrets if len(secret) >= 8]
        # In JSON and in an address as well, where a secret with special characters looks otherwise.
        forms = {form for s in long for form in (s, json.dumps(s)[1:-1], quote(s, safe=""))}
        # The longest first, so that none is left half replaced by another that it contains.
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return ``text`` without its secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _TOKEN.sub(r"\1=***", text)

    def brief(self, text: str, most: int = 500) -> str:
        """Return ``text`` without its secrets, and then cut to ``most`` characters: half a secret tells as well."""
        return self(text)[:most]
