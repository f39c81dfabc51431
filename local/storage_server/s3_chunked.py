"""The aws-chunked content encoding: pieces with their length in hex, then trailing headers.

After the AWS documents "Signature Calculations for the Authorization Header: Transferring Payload in Multiple
Chunks" and "Working with trailing checksums". Signatures of pieces and the values of trailing checksums are
read, not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Final

from werkzeug.wrappers import Request

from local.storage_server.errors import StorageError
from local.storage_server.files import read_chunks

_LONGEST_LINE: Final = 8192


def is_chunked(request: Request) -> bool:
    """Tell whether the body is aws-chunked: its payload's hash then says STREAMING-… instead of a hash."""
    return request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-")


def body(request: Request) -> tuple[Iterator[bytes], int | None]:
    """Return the pieces of the object itself, and its announced length in bytes."""
    stream = request.stream
    if is_chunked(request):
        return decoded(stream), request.headers.get("x-amz-decoded-content-length", type=int)
    return read_chunks(stream), request.content_length


def decoded(stream: IO[bytes]) -> Iterator[bytes]:
    """Give the bytes within an aws-chunked stream, and read its trailers.

    Raises:
        StorageError: ``IncompleteBody``; the stream breaks off or is not of this encoding.
    """
    while left := _chunk_length(stream):
        while left:
            if not (piece := stream.read(min(left, 1 << 16))):
                raise _incomplete()
            left -= len(piece)
            yield piece
        if _line(stream):
            raise _incomplete()
    while trailer := _line(stream, may_end=True):
        if b":" not in trailer:
            raise _incomplete()


def _chunk_length(stream: IO[bytes]) -> int:
    try:
        return int(_line(stream).split(b";")[0], 16)
    except ValueError as error:
        raise _incomplete() from error


def _line(stream: IO[bytes], *, may_end: bool = False) -> bytes:
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\r\n") and not (may_end and not line):
        raise _incomplete()
    return line.removesuffix(b"\r\n")


def _incomplete() -> StorageError:
    return StorageError(400, "IncompleteBody", "The request body is not a complete aws-chunked stream")
