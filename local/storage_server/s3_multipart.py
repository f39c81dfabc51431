"""S3 multipart uploads: parts on disk, and one row at completion.

As in storage-api v1.70.6, every step first tries to write the row as the caller, so n parts make n + 3 trigger calls.
Left out: the tables ``storage.s3_multipart_uploads*`` (the state is in memory), UploadPartCopy, ListParts and
ListMultipartUploads.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import Response, request

from local.storage_server.database import Caller
from local.storage_server.errors import StorageError, too_large
from local.storage_server.files import read_chunks, write_chunks
from local.storage_server.keys import check_key, check_mimetype
from local.storage_server.objects import Content, Target
from local.storage_server.requests import limited
from local.storage_server.s3_xml import answer, read
from local.storage_server.store import Store


@dataclass(frozen=True)
class _Upload:
    """The metadata from the request that created the upload; ``mimetype`` is None if it had none."""

    bucket: str
    key: str
    mimetype: str | None
    cache_control: str
    user_metadata: Mapping[str, str]

    @property
    def target(self) -> Target:
        return Target(self.bucket, self.key, upsert=True)

    @property
    def trial_metadata(self) -> dict[str, Any]:
        return {} if self.mimetype is None else {"mimetype": self.mimetype}


class Uploads:
    """The unfinished multipart uploads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Upload] = {}

    def create(self, caller: Caller, bucket: str, key: str, user_metadata: Mapping[str, str]) -> Response:
        """Answer CreateMultipartUpload."""
        row = self._store.bucket(caller, bucket)
        check_key(key)
        mimetype = request.headers.get("Content-Type") or None
        if mimetype:
            check_mimetype(mimetype, row["allowed_mime_types"])
        cache_control = request.headers.get("Cache-Control") or "no-cache"
        upload = _Upload(bucket, key, mimetype, cache_control, dict(user_metadata))
        self._try(caller, upload)
        upload_id = str(uuid4())
        self._folder(upload_id).mkdir(parents=True)
        self._known[upload_id] = upload
        return answer("InitiateMultipartUploadResult", {"Bucket": bucket, "Key": key, "UploadId": upload_id})

    def put_part(self, caller: Caller, bucket: str, key: str) -> Response:
        """Answer UploadPart. The entity tag is unquoted, as in the original's file backend."""
        folder, upload = self._open(bucket, key)
        number = request.args.get("partNumber", 0, type=int)
        if not 1 <= number <= 10_000:
            raise StorageError(400, "InvalidParameter", "Invalid Parameter PartNumber")
        limit = self._store.bucket(caller, bucket)["file_size_limit"]
        self._try(caller, upload)
        # A part has a unique name until it is complete: a client may send the same part twice at once.
        arriving = folder / f"arriving-{uuid4()}"
        try:
            with arriving.open("wb") as file:
                written = write_chunks(file, limited(read_chunks(request.stream), limit))
            arriving.replace(folder / f"part-{number}-{written.md5}")
        finally:
            arriving.unlink(missing_ok=True)
        return Response(headers={"ETag": written.md5})

    def complete(self, caller: Caller, bucket: str, key: str) -> Response:
        """Answer CompleteMultipartUpload: join the named parts in the order of their numbers."""
        folder, upload = self._open(bucket, key)
        self._try(caller, upload)
        document = read(request.get_data())
        named = [(int(part.findtext("PartNumber", "0")), part.findtext("ETag", "")) for part in document.iter("Part")]
        parts = [self._part(folder, number, tag.strip('"')) for number, tag in sorted(named)]
        limit = self._store.bucket(caller, bucket)["file_size_limit"]
        if limit is not None and sum(part.stat().st_size for part in parts) > limit:
            raise too_large()
        version = str(uuid4())
        written = self._store.files.write((bucket, key, version), _joined(parts))
        mimetype = upload.mimetype or "application/octet-stream"
        metadata = self._store.measured(written, mimetype, upload.cache_control)
        self._store.complete(caller, upload.target, Content(version, metadata, upload.user_metadata))
        self._forget(folder)
        content = {"Location": f"{bucket}/{key}", "Bucket": bucket, "Key": key, "ETag": metadata["eTag"]}
        return answer("CompleteMultipartUploadResult", content)

    def abort(self, caller: Caller, bucket: str, key: str) -> Response:
        """Answer AbortMultipartUpload."""
        folder, upload = self._open(bucket, key)
        self._try(caller, upload)
        self._forget(folder)
        return Response(status=204)

    def _try(self, caller: Caller, upload: _Upload) -> None:
        self._store.try_write(caller, upload.target, upload.trial_metadata, upload.user_metadata)

    def _folder(self, upload_id: str) -> Path:
        return self._store.files.directory / "multipart" / upload_id

    def _open(self, bucket: str, key: str) -> tuple[Path, _Upload]:
        """Return the request's upload. It must belong to this bucket and key."""
        upload_id = request.args.get("uploadId", "")
        upload = self._known.get(upload_id)
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise StorageError(404, "NoSuchUpload", "Upload not found")
        return self._folder(upload_id), upload

    def _forget(self, folder: Path) -> None:
        shutil.rmtree(folder)
        del self._known[folder.name]

    def _part(self, folder: Path, number: int, md5: str) -> Path:
        if (part := folder / f"part-{number}-{md5}").name in {path.name for path in folder.iterdir()}:
            return part
        raise StorageError(400, "MissingPart", f"Part {number} is missing for upload id {folder.name}")


def _joined(parts: list[Path]) -> Iterator[bytes]:
    for part in parts:
        with part.open("rb") as file:
            yield from read_chunks(file)
