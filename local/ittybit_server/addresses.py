"""Addresses of objects in S3 storage, ``s3://bucket/key``."""

from __future__ import annotations

import re
from typing import NamedTuple, Self


class Address(NamedTuple):
    """A bucket and a key. Keys are taken literally: ``?``, ``#`` and ``%`` have no special meaning."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``s3://bucket/key``. A key that ends in a slash is a folder.

        Raises:
            ValueError: If the text has another form.
        """
        if (match := re.fullmatch(r"s3://([^/]+)/(.+)", text, re.DOTALL)) is None:
            raise ValueError("must have the form s3://bucket/key")
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def folder(self) -> str:
        """The key up to and including its last slash; empty at the top of the bucket."""
        return self.key[: self.key.rfind("/") + 1]
