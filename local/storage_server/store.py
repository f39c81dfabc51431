"""Uploading, copying, moving and deleting: rows and bytes change together, in the order of storage-api v1.70.6.

Every write of a row is first tried as the caller's role and rolled back, so that row-level security decides
before a byte is stored. Then the bytes are stored. Then the row is written as ``service_role``. Triggers
therefore see each write twice. Left out: the object queue. Files of older versions are removed at once
instead of by a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from psycopg.types.json import Jsonb

from local.storage_server import buckets, objects
from local.storage_server.database import Caller, Database, iso_milliseconds
from local.storage_server.files import Files, Written
from local.storage_server.keys import FOLDER_PLACEHOLDER, check_key, check_mimetype
from local.storage_server.objects import TRIAL_VERSION, Content, Target
from local.storage_server.requests import Incoming, limited


class Store:
    """The objects of one project: their rows in the database and their bytes on disk."""

    def __init__(self, database: Database, files: Files) -> None:
        self.database = database
        self.files = files

    def upload(self, caller: Caller, target: Target, body: Incoming) -> dict[str, Any]:
        """Store a body under a key and return the row.

        Raises: StorageError: The bucket does not exist, or the key, the media type, the size, the caller's
        permissions or an existing object forbids it.
        """
        bucket = self.bucket(caller, target.bucket)
        check_key(target.key)
        limit, allowed = bucket["file_size_limit"], bucket["allowed_mime_types"]
        if target.key.endswith(FOLDER_PLACEHOLDER):
            limit, allowed = 0, None
        check_mimetype(body.mimetype, allowed)
        announced = {} if body.length is None else {"contentLength": body.length}
        self.try_write(caller, target, {"mimetype": body.mimetype, **announced}, body.user_metadata)
        version = str(uuid4())
        written = self.files.write((target.bucket, target.key, version), limited(body.chunks, limit))
        metadata = self.measured(written, body.mimetype, body.cache_control)
        return self.complete(caller, target, Content(version, metadata, body.user_metadata or {}))

    def try_write(
        self, caller: Caller, target: Target, metadata: Mapping[str, Any], user_metadata: Mapping[str, Any] | None
    ) -> None:
        """Write the row as the caller and roll back.

        Raises:
            StorageError: Row-level security, an existing row or a trigger forbids it.
        """
        with self.database.transaction(caller, trial=True) as cursor:
            objects.write(cursor, caller, target, Content(TRIAL_VERSION, metadata, user_metadata))

    def complete(self, caller: Caller, target: Target, content: Content) -> dict[str, Any]:
        """Write the row of stored bytes and remove the bytes that it replaces; if it fails, remove the new bytes.

        If two uploads of one new key run at once, the second to get here replaces the first.
        """
        target = replace(target, upsert=True)
        try:
            with self.database.transaction(caller.as_service()) as cursor:
                objects.lock_key(cursor, target.bucket, target.key)
                replaced = objects.find(cursor, target.bucket, target.key, lock=True)
                row = objects.write(cursor, caller, target, content)
        except BaseException:
            self.files.remove((target.bucket, target.key, content.version))
            raise
        if replaced:
            self.files.remove((target.bucket, target.key, replaced.version))
        return row

    def copy(self, caller: Caller, source: tuple[str, str], target: Target) -> dict[str, Any]:
        """Copy bytes, metadata and user metadata of (bucket, key) and return the new row."""
        check_key(target.key)
        with self.database.transaction(caller) as cursor:
            origin = objects.get(cursor, *source)
        self.bucket(caller, target.bucket)
        self.try_write(caller, target, origin.metadata, origin.user_metadata)
        version = str(uuid4())
        self.files.copy((*source, origin.version), (target.bucket, target.key, version))
        metadata = {**origin.metadata, "lastModified": iso_milliseconds(datetime.now(UTC))}
        return self.complete(caller, target, Content(version, metadata, origin.user_metadata))

    def move(self, caller: Caller, source: tuple[str, str], target: tuple[str, str]) -> None:
        """Give the object another address: the same row, with a new version."""
        check_key(target[1])
        version = str(uuid4())
        address = {"bucket_id": target[0], "name": target[1], "version": version}
        address |= objects.owner_values(caller)
        with self.database.transaction(caller, trial=True) as cursor:
            origin = objects.get(cursor, *source)
            objects.update(cursor, *source, address)
        if source == target:
            return
        self.files.copy((*source, origin.version), (*target, version))
        metadata = {**origin.metadata, "lastModified": iso_milliseconds(datetime.now(UTC))}
        try:
            with self.database.transaction(caller.as_service()) as cursor:
                objects.lock_key(cursor, *target)
                objects.get(cursor, *source, lock=True)
                objects.update(cursor, *source, address | {"metadata": Jsonb(metadata)})
        except BaseException:
            self.files.remove((*target, version))
            raise
        self.files.remove((*source, origin.version))

    def delete_many(self, caller: Caller, bucket: str, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Remove the objects that exist and that the caller may remove, and return their rows."""
        with self.database.transaction(caller) as cursor:
            rows = objects.delete(cursor, bucket, keys)
        for row in rows:
            self.files.remove((bucket, row["name"], row["version"]))
        return rows

    def find(self, caller: Caller, bucket: str, key: str) -> objects.StoredObject:
        """Return an object that the caller may see.

        Raises:
            StorageError: ``NoSuchKey``.
        """
        check_key(key)
        with self.database.transaction(caller) as cursor:
            return objects.get(cursor, bucket, key)

    def bucket(self, caller: Caller, name: str) -> dict[str, Any]:
        """Return a bucket's row, even if the caller may not see it.

        Raises:
            StorageError: ``NoSuchBucket``.
        """
        with self.database.transaction(caller.as_service()) as cursor:
            return buckets.get(cursor, name)

    def measured(self, written: Written, mimetype: str, cache_control: str) -> dict[str, Any]:
        """Return the metadata of bytes just stored."""
        return {
            "eTag": f'"{written.md5}"',
            "size": written.size,
            "mimetype": mimetype,
            "cacheControl": cache_control,
            "lastModified": iso_milliseconds(datetime.now(UTC)),
            "contentLength": written.size,
            "httpStatusCode": 200,
        }
