"""Which object keys, bucket names, sizes and media types the storage server accepts (storage-api v1.70.6)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from local.storage_server.errors import StorageError

# ASCII only, as the original's \w.
_KEY: Final = re.compile(r"[A-Za-z0-9_/!.*'() &$@=;:+,?-]+")
_BUCKET: Final = re.compile(r"[A-Za-z0-9_!.*'() &$@=;:+,?-]{1,63}")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)(gb|mb|kb|b)", re.IGNORECASE)
_UNITS: Final = {"gb": 10**9, "mb": 10**6, "kb": 10**3, "b": 1}
FOLDER_PLACEHOLDER: Final = ".emptyFolderPlaceholder"


def check_key(key: str) -> None:
    """Refuse a key with an illegal character, or with a ``.`` or ``..`` segment, as the file backend does.

    A leading slash, an empty segment and a trailing slash are legal.

    Raises:
        StorageError: ``InvalidKey``.
    """
    if not _KEY.fullmatch(key) or not {".", ".."}.isdisjoint(key.split("/")):
        raise StorageError(400, "InvalidKey", f"Invalid key: {key}")


def check_bucket_name(name: str) -> None:
    """Refuse a name that no bucket can have.

    Raises:
        StorageError: ``InvalidBucketName``.
    """
    if not _BUCKET.fullmatch(name):
        raise StorageError(400, "InvalidBucketName", "Bucket name invalid", error="Invalid Input")


def size_in_bytes(size: str) -> int:
    """Return the number of bytes in e.g. ``20MB``; units are powers of 1,000.

    Raises:
        StorageError: ``InvalidRequest``; the size has another form.
    """
    if not (match := _SIZE.fullmatch(size)):
        text = "Invalid file size format, hint: use 20GB / 20MB / 30KB / 3B"
        raise StorageError(400, "InvalidRequest", text)
    return int(float(match[1]) * _UNITS[match[2].lower()])


def check_mimetype(mimetype: str, allowed: Sequence[str] | None) -> None:
    """Refuse a media type that none of the bucket's patterns (``video/mp4``, ``video/*``) matches.

    No list, or an empty one, allows every type.

    Raises:
        StorageError: ``InvalidMimeType``.
    """
    if not allowed:
        return
    kind = mimetype.partition("/")[0]
    if "/" not in mimetype or not ({mimetype, f"{kind}/*"} & set(allowed)):
        message = f"mime type {mimetype} is not supported"
        raise StorageError(415, "InvalidMimeType", message, error="invalid_mime_type")
