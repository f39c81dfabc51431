"""The bytes of objects on disk: one file per (bucket, key, version), written once and never changed.

A key is never part of a path: the file's name is a digest. The original's file backend makes folders from the
keys and keeps media type and cache control in extended attributes. Here they are only in the row's metadata.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from local.storage_server.errors import internal


@dataclass(frozen=True)
class Written:
    """A file's size in bytes and its MD5 in hex, which is its entity tag (unquoted)."""

    size: int
    md5: str


class Files:
    """The stored bytes below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._objects = directory / "objects"
        self._incoming = directory / "incoming"
        self._objects.mkdir(parents=True, exist_ok=True)
        self._incoming.mkdir(exist_ok=True)

    def write(self, address: tuple[str, str, str], chunks: Iterable[bytes]) -> Written:
        """Store the chunks as the content of (bucket, key, version), or nothing if they raise an error."""
        path = self._path(address)
        with _temporary(self._incoming) as (file, name):
            written = write_chunks(file, chunks)
            path.parent.mkdir(exist_ok=True)
            name.replace(path)
        return written

    def take(self, address: tuple[str, str, str], source: Path) -> Written:
        """Store a complete file as the content of (bucket, key, version). The file may be removed afterwards."""
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        path = self._path(address)
        path.parent.mkdir(exist_ok=True)
        os.link(source, path)
        return Written(path.stat().st_size, digest.hexdigest())

    def copy(self, source: tuple[str, str, str | None], target: tuple[str, str, str]) -> None:
        """Give one content a second address. They share a file, since no file is ever changed.

        Raises:
            StorageError: The source has no file (500).
        """
        path = self._path(target)
        path.parent.mkdir(exist_ok=True)
        try:
            os.link(self._path(source), path)
        except FileNotFoundError as error:
            raise internal() from error

    def open(self, address: tuple[str, str, str | None]) -> BinaryIO:
        """Open the content for reading. It stays readable if the object is overwritten or deleted meanwhile.

        Raises:
            StorageError: There is no file (500): the row was inserted by hand, or replaced after it was read.
        """
        try:
            return self._path(address).open("rb")
        except FileNotFoundError as error:
            raise internal() from error

    def remove(self, address: tuple[str, str, str | None]) -> None:
        """Remove the content, if it exists."""
        self._path(address).unlink(missing_ok=True)

    def _path(self, address: tuple[str, str, str | None]) -> Path:
        digest = hashlib.sha256("\0".join(part or "" for part in address).encode()).hexdigest()
        return self._objects / digest[:2] / digest


def write_chunks(file: BinaryIO, chunks: Iterable[bytes]) -> Written:
    """Write the chunks to a file."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    for chunk in chunks:
        digest.update(chunk)
        size += file.write(chunk)
    return Written(size, digest.hexdigest())


def read_chunks(stream: IO[bytes], size: int = 1 << 16) -> Iterator[bytes]:
    """Yield a stream's bytes in chunks, to its end."""
    while chunk := stream.read(size):
        yield chunk


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    descriptor, name = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
