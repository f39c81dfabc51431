"""Resumable uploads on disk: the bytes that have arrived, and the metadata from the creation."""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from local.storage_server.errors import StorageError
from local.storage_server.files import Files, Written
from local.storage_server.keys import check_bucket_name, check_key
from local.storage_server.requests import user_object

Metadata = dict[str, str | None]


def refusal(status: int, text: str) -> StorageError:
    """Return a refusal of the protocol itself."""
    return StorageError(status, "TusError", text)


class UploadId(BaseModel, frozen=True):
    """Which upload: where it goes, and the version that the object is going to have."""

    bucket: str
    key: str
    version: str

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the id in an upload's address.

        Raises:
            StorageError: ``InvalidUploadId``, or a bucket or a key that cannot be.
        """
        try:
            decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode(errors="replace")
        except binascii.Error:
            decoded = ""
        bucket, *names = decoded.split("/")
        if not names:
            raise StorageError(400, "InvalidUploadId", "Invalid upload id")
        upload_id = cls(bucket=bucket, key="/".join(names[:-1]), version=names[-1])
        upload_id.check()
        return upload_id

    def check(self) -> None:
        """Refuse a bucket's name or a key that cannot be.

        Raises:
            StorageError: ``InvalidBucketName`` or ``InvalidKey``.
        """
        check_bucket_name(self.bucket)
        check_key(self.key)

    def encode(self) -> str:
        """Return the last segment of the upload's address."""
        address = f"{self.bucket}/{self.key}/{self.version}"
        return base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")


class Upload(BaseModel):
    """An upload: its length in bytes, the client's metadata, and whether its row is written."""

    id: UploadId
    length: int
    metadata: Metadata
    finished: bool = False

    @property
    def mimetype(self) -> str | None:
        """As the client claims."""
        return self.metadata.get("contentType")

    @property
    def trial_metadata(self) -> dict[str, str | int]:
        """The row that is written when an upload is only tried."""
        return {"contentLength": self.length} | ({"mimetype": self.mimetype} if self.mimetype else {})

    @property
    def user_metadata(self) -> dict[str, object] | None:
        """The client's own object, None if it sends none."""
        return user_object(self.metadata.get("metadata") or "")


class Uploads:
    """The uploads beneath one directory. Each keeps its ``.info`` when it is over, so that a client may ask.

    Of several requests that write to one upload the newest wins, at once; the original makes it wait until the
    older ones have ended.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._folder = files.directory / "resumable"
        self._folder.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._writing: dict[UploadId, object] = {}

    def create(self, upload: Upload) -> None:
        """Begin an upload, with no bytes."""
        self._part(upload.id).touch()
        self.save(upload)

    def save(self, upload: Upload) -> None:
        """Store the upload's metadata."""
        self._info(upload.id).write_text(upload.model_dump_json())

    def get(self, upload_id: UploadId) -> Upload:
        """Return what is known of the upload.

        Raises:
            StorageError: ``TusError``; there is none.
        """
        try:
            return Upload.model_validate_json(self._info(upload_id).read_text())
        except FileNotFoundError as error:
            raise refusal(404, "The file for this url was not found\n") from error

    def offset(self, upload: Upload) -> int:
        """Return how many bytes have arrived.

        Raises:
            StorageError: ``TusError``; they are gone, because the row could not be written.
        """
        if upload.finished:
            return upload.length
        try:
            return self._part(upload.id).stat().st_size
        except FileNotFoundError as error:
            raise refusal(410, "The file for this url no longer exists\n") from error

    def append(self, upload: Upload, offset: int, chunks: Iterable[bytes]) -> int:
        """Write the chunks after ``offset`` bytes, up to the upload's length, and return the offset after them.

        What has arrived stays when the chunks break off.

        Raises:
            StorageError: ``TusError``; another number of bytes has arrived, too many, or a newer request.
        """
        turn = object()
        with self._lock:
            if self.offset(upload) != offset:
                raise refusal(409, "Upload-Offset conflict\n")
            if upload.finished:
                return offset
            self._writing[upload.id] = turn
            file = self._part(upload.id).open("ab")
        with file:
            for chunk in chunks:
                with self._lock:
                    if self._writing.get(upload.id) is not turn:
                        raise refusal(400, "Request aborted due to lock acquired")
                    if file.tell() + len(chunk) > upload.length:
                        raise refusal(413, "upload's size exceeded\n")
                    file.write(chunk)
                    file.flush()
            return file.tell()

    def take(self, upload: Upload) -> Written:
        """Store the bytes that have arrived as the object's content."""
        upload_id = upload.id
        return self._files.take((upload_id.bucket, upload_id.key, upload_id.version), self._part(upload_id))

    def drop_bytes(self, upload_id: UploadId) -> None:
        """Forget the bytes and their writer."""
        with self._lock:
            self._writing.pop(upload_id, None)
            self._part(upload_id).unlink(missing_ok=True)

    def remove(self, upload_id: UploadId) -> None:
        """Forget the upload."""
        self.drop_bytes(upload_id)
        self._info(upload_id).unlink(missing_ok=True)

    def _part(self, upload_id: UploadId) -> Path:
        return self._path(upload_id, ".part")

    def _info(self, upload_id: UploadId) -> Path:
        return self._path(upload_id, ".info")

    def _path(self, upload_id: UploadId, suffix: str) -> Path:
        return self._folder / (hashlib.sha256(upload_id.encode().encode()).hexdigest() + suffix)
