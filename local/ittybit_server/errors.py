"""The errors of this server: a refused request, a failed task, and a task that the server's end cancels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Found = TypeVar("Found")


class RequestError(Exception):
    """A request that is refused.

    The kinds in ittybit's documents are ``token_missing``, ``token_invalid``, ``request_invalid``,
    ``url_required``, ``format_unsupported``, ``payment_required``, ``task_not_found``, ``run_not_found``,
    ``automation_not_found``, ``internal_error`` and, in the generation *jobs*, ``job_not_found`` and
    ``invalid_input``. ``connection_not_found``, ``not_found`` and ``method_not_allowed`` are undocumented; their names
    follow the same pattern.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


def invalid(message: str) -> RequestError:
    """A 400 of kind ``request_invalid``; the message names the field."""
    return RequestError(400, "request_invalid", message)


def find(resource: str, known: Mapping[str, Found], resource_id: str) -> Found:
    """Return the record with this id.

    Raises:
        RequestError: A 404 of kind ``<resource>_not_found``.
    """
    if resource_id not in known:
        raise RequestError(404, f"{resource}_not_found", f"There is no {resource} {resource_id!r}.")
    return known[resource_id]


class TaskError(Exception):
    """The error of a failed task.

    The documents list no kinds for tasks, so those of requests are used. The message never contains a path of this
    machine, or the query of an address, which may be a signature.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class StoppedError(Exception):
    """The server is stopping. The task that raises this is cancelled."""
