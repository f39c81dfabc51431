"""A project's settings of the S3 protocol: Dashboard > Storage > S3."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class S3Access:
    """May be changed while the server runs, as a person does in the Dashboard.

    Attributes:
        keys: The secret of each access key, by the key's id. Each of them may do everything.
        region: The project's. Requests signed for ``auto``, ``us-east-1`` or no region are taken too.
        enabled: Whether the project speaks S3 at all.
        enforce_region: Whether no region but the project's is taken; whether hosted ones do so is not known.
    """

    keys: dict[str, str]
    region: str = "local"
    enabled: bool = True
    enforce_region: bool = False
