"""Times as JavaScript writes them into JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID


def iso_milliseconds(moment: datetime) -> str:
    """Return e.g. ``2026-11-23T22:40:59.656Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(value: Any) -> Any:
    """Return a database value as JSON has it; other values are returned unchanged."""
    if isinstance(value, datetime):
        return iso_milliseconds(value)
    return str(value) if isinstance(value, UUID) else value
