"""Keeps keys out of answers, log lines and the ledger's errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

# Anybody who reads a signed address can use it until it expires.
_TOKEN = re.compile(r"(?i)\b(token|x-amz-signature|x-amz-credential)=[^&\s\"']+")


class Redactor:
    """Replaces every known secret, and the token of every signed address, in a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        long = [secret for secret in secrets if len(secret) >= 8]
        # In an address, a secret's special characters are percent-encoded.
        forms = {form for secret in long for form in (secret, quote(secret, safe=""))}
        # The longest first: a secret that contains another must not be replaced in part.
        self._secrets = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return ``text`` without its secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _TOKEN.sub(r"\1=***", text)

    def within(self, value: Any) -> Any:
        """Return the value with each text redacted. In its JSON, escapes could hide a secret from the search."""
        match value:
            case str():
                return self(value)
            case list() | tuple():
                return [self.within(item) for item in value]
            case dict():
                return {name: self.within(item) for name, item in value.items()}
        return value
