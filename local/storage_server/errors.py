"""The errors of the storage server, with the messages, codes and statuses of storage-api v1.70.6."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import psycopg


class StorageError(Exception):
    """An error that a client sees.

    Attributes:
        status: The status of the S3 answer, and the ``statusCode`` in the body of the REST answer.
        code: The stable code, e.g. ``NoSuchKey``.
        message: The text for people.
        error: The code's older name, which REST bodies still contain.
    """

    def __init__(self, status: int, code: str, message: str, *, error: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.error = error or code

    @property
    def rest_status(self) -> int:
        """The HTTP status of the REST answer: 400 for nearly every error, "not found" included."""
        return self.status if self.status in {416, 500, 544} else 400

    def body(self) -> dict[str, str]:
        """Return the JSON body of the REST answer."""
        return {
            "statusCode": str(self.status),
            "error": self.error,
            "message": self.message,
            "code": self.code,
        }


def no_such_key() -> StorageError:
    """Return the error for an object that does not exist or that the caller may not see."""
    return StorageError(404, "NoSuchKey", "Object not found", error="not_found")


def no_such_bucket() -> StorageError:
    """Return the error for a bucket that does not exist, or that is private while the request needs a public one."""
    return StorageError(404, "NoSuchBucket", "Bucket not found", error="Bucket not found")


def already_exists(code: str) -> StorageError:
    """Return the error for a second object (``KeyAlreadyExists``) or bucket (``BucketAlreadyExists``)."""
    return StorageError(409, code, "The resource already exists", error="Duplicate")


def invalid_request(message: str, *, error: str = "Error") -> StorageError:
    """Return the error for a request whose header, query or body is malformed."""
    return StorageError(400, "InvalidRequest", message, error=error)


def access_denied(message: str) -> StorageError:
    """Return the error for a caller without a valid token or without the permission."""
    return StorageError(403, "AccessDenied", message, error="Unauthorized")


def too_large() -> StorageError:
    """Return the error for a body longer than the bucket allows."""
    message = "The object exceeded the maximum allowed size"
    return StorageError(413, "EntityTooLarge", message, error="Payload too large")


def internal() -> StorageError:
    """Return the error for a failure of the server itself, e.g. a row without its file."""
    return StorageError(500, "InternalError", "Internal Server Error", error="Internal")


_BY_SQLSTATE: Final[Mapping[str, tuple[int, str, str, str | None]]] = MappingProxyType(
    {
        "23505": (409, "ResourceAlreadyExists", "The resource already exists", "Duplicate"),
        "23503": (404, "InvalidRequest", "The related resource does not exist", None),
        "55P03": (423, "ResourceLocked", "The resource is locked", None),
        "57014": (544, "DatabaseTimeout", "The connection to the database timed out", None),
    }
)


def from_postgres(error: psycopg.Error) -> StorageError:
    """Return a database error as the client sees it.

    A trigger that raises (P0001) is a 500 ``DatabaseError``. A missing privilege inside a trigger is an
    ``AccessDenied``, just like a violation of row-level security.
    """
    state = error.sqlstate
    if state is None:
        return internal()
    if state == "42501":
        message = str(error.diag.message_primary)
        if "row-level security" in message:
            message = "new row violates row-level security policy"
        return access_denied(message)
    if known := _BY_SQLSTATE.get(state):
        status, code, text, name = known
        return StorageError(status, code, text, error=name)
    return StorageError(500, "DatabaseError", f"database error, code: {state}")
