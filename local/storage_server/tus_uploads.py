"""The resumable uploads: received bytes are on disk, everything else is in memory."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from local.storage_server.errors import StorageError
from local.storage_server.files import Files, Written
from local.storage_server.requests import user_object

Metadata = dict[str, str | None]


def refusal(status: int, text: str) -> StorageError:
    """Return an error of the tus protocol."""
    return StorageError(status, "TusError", text)


@dataclass
class Upload:
    """An upload: where it goes, its length in bytes, and the client's metadata.

    Attributes:
        version: The version that the object will have.
        finished: Whether its row is written.
        writer: The newest request that writes to it.
    """

    bucket: str
    key: str
    length: int
    metadata: Metadata
    version: str = field(default_factory=lambda: str(uuid4()))
    finished: bool = False
    writer: object = None

    @property
    def address(self) -> str:
        """The last segment of the upload's address."""
        return base64.urlsafe_b64encode(f"{self.bucket}/{self.key}/{self.version}".encode()).decode().rstrip("=")

    @property
    def mimetype(self) -> str | None:
        """As the client states it."""
        return self.metadata.get("contentType")

    @property
    def trial_metadata(self) -> dict[str, str | int]:
        """The row's metadata when the write is only tried."""
        return {"contentLength": self.length} | ({"mimetype": self.mimetype} if self.mimetype else {})

    @property
    def user_metadata(self) -> dict[str, object] | None:
        """The client's own metadata; None if it sends none."""
        return user_object(self.metadata.get("metadata") or "")


class Uploads:
    """The uploads of one server. Finished ones stay known, so that a client can ask about them.

    If several requests write to one upload, the newest takes over at once. In the original it waits until the
    older ones have ended.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._folder = files.directory / "resumable"
        self._folder.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._known: dict[str, Upload] = {}

    def create(self, upload: Upload) -> None:
        """Begin an upload, with no bytes."""
        self._part(upload).touch()
        self._known[upload.address] = upload

    def get(self, address: str) -> Upload:
        """Return the upload.

        Raises:
            StorageError: ``TusError``; there is no such upload.
        """
        if (upload := self._known.get(address)) is None:
            raise refusal(404, "The file for this url was not found\n")
        return upload

    def offset(self, upload: Upload) -> int:
        """Return how many bytes have arrived.

        Raises:
            StorageError: ``TusError``; the bytes are gone because the row could not be written.
        """
        if upload.finished:
            return upload.length
        try:
            return self._part(upload).stat().st_size
        except FileNotFoundError as error:
            raise refusal(410, "The file for this url no longer exists\n") from error

    def append(self, upload: Upload, offset: int, chunks: Iterable[bytes]) -> int:
        """Write the chunks after ``offset`` bytes, up to the upload's length, and return the offset after them.

        If the chunks end early, the received bytes stay.

        Raises:
            StorageError: ``TusError``; the offset is wrong, there are too many bytes, or a newer request took over.
        """
        writer = object()
        with self._lock:
            if self.offset(upload) != offset:
                raise refusal(409, "Upload-Offset conflict\n")
            if upload.finished:
                return offset
            upload.writer = writer
            file = self._part(upload).open("ab")
        with file:
            for chunk in chunks:
                with self._lock:
                    if upload.writer is not writer:
                        raise refusal(400, "Request aborted due to lock acquired")
                    if file.tell() + len(chunk) > upload.length:
                        raise refusal(413, "upload's size exceeded\n")
                    file.write(chunk)
                    file.flush()
            return file.tell()

    def take(self, upload: Upload) -> Written:
        """Store the bytes that have arrived as the object's content."""
        return self._files.take((upload.bucket, upload.key, upload.version), self._part(upload))

    def drop_bytes(self, upload: Upload) -> None:
        """Remove the bytes and their writer."""
        with self._lock:
            upload.writer = None
            self._part(upload).unlink(missing_ok=True)

    def remove(self, upload: Upload) -> None:
        """Remove the upload."""
        self.drop_bytes(upload)
        del self._known[upload.address]

    def _part(self, upload: Upload) -> Path:
        return self._folder / upload.version
