"""What a project's settings say of the S3 protocol: Dashboard > Storage > S3."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class S3Access:
    """May be changed while the server runs, as a person does in the Dashboard.

    Attributes:
        keys: The secret of each access key, by the key's id. Each of them may do everything.
        region: The project's.
        enabled: Whether the project speaks S3 at all.
        enforce_region: Whether a request signed for another region is refused. Recorded is a server that takes any;
            whether hosted ones do is not known.
    """

    keys: dict[str, str]
    region: str = "local"
    enabled: bool = True
    enforce_region: bool = False
