"""Plain mode: a Dashboard webhook on storage.objects calls on-upload; the migrations are not needed.

The environment says what to watch. There is no ledger and no retry: a call that fails is lost.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from shared.errors import Refused, Skipped
from shared.globs import matches_mimetype, matches_path
from shared.objects import Bucket, ObjectKey
from shared.settings import Settings

# A webhook carries the row with its user_metadata, which alone may be 1 MB (Supabase: storage limits).
MAX_EVENT_BYTES = 2 * 1024 * 1024


class StoredObject(BaseModel):
    """The columns of a row of storage.objects that are read; user_metadata and the rest are dropped."""

    bucket_id: Bucket
    name: ObjectKey
    # The start's mark: in the source's address and as the Idempotency-Key.
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")] | None = None
    metadata: dict[str, Any] | None = None
    is_delete_marker: bool = False

    @property
    def size(self) -> int:
        """Bytes stored; 0 where the row does not say."""
        size = (self.metadata or {}).get("size")
        return size if isinstance(size, int) else 0

    @property
    def mimetype(self) -> str:
        """The type that the uploader claims, cut: a real one has at most 255 characters (RFC 6838)."""
        return str((self.metadata or {}).get("mimetype") or "")[:1000]

    def is_same_as(self, other: StoredObject) -> bool:
        """Whether both rows have the same content. Older versions of Supabase Storage have no ``version``."""
        etag, others = ((row.metadata or {}).get("eTag") for row in (self, other))
        return (etag, self.size) == (others, other.size) or (self.version is not None and self.version == other.version)


class ObjectEvent(BaseModel):
    """The body of a Supabase Database Webhook on storage.objects."""

    type: Literal["INSERT", "UPDATE", "DELETE"]
    table: Literal["objects"]
    schema_: Literal["storage"] = Field(alias="schema")
    record: StoredObject | None
    old_record: StoredObject | None = None


def check(event: ObjectEvent, settings: Settings) -> StoredObject:
    """Return the event's object if plain mode processes it.

    The conditions are those of the database side (ittybit.reason_to_skip) except one: a webhook does not show that an
    object was written through S3, so results must lie under an output prefix.

    Raises:
        Refused: plain mode is not set up.
        Skipped: the object is not processed; the reason says why.
    """
    if settings.watch_bucket is None:
        raise Refused(422, "This is a Database Webhook: set ITTYBIT_AUTOMATION_ID and WATCH_BUCKET for plain mode.")
    stored = event.record
    if event.type == "DELETE" or stored is None:
        raise Skipped("deleted")
    if event.type == "UPDATE" and event.old_record and stored.is_same_as(event.old_record):
        raise Skipped("same_content")
    if stored.bucket_id != settings.watch_bucket or not matches_path(settings.watch_path, stored.name):
        raise Skipped("not_watched")
    if settings.watch_type and not matches_mimetype(settings.watch_type, stored.mimetype):
        raise Skipped("not_watched")
    if stored.is_delete_marker:
        raise Skipped("delete_marker")
    if stored.name.rpartition("/")[2] in ("", ".emptyFolderPlaceholder"):
        raise Skipped("folder")
    if stored.name.startswith(".ittybit/"):
        raise Skipped("probe")
    if stored.size == 0:
        raise Skipped("empty")
    if stored.name.startswith(settings.output_prefixes):
        raise Skipped("output_prefix")
    return stored
