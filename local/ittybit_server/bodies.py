"""The bodies of requests, and their checks. Every error is a 400 that names the field."""

from __future__ import annotations

from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from flask import request
from pydantic import Field, ValidationError

from local.ittybit_server.addresses import Address
from local.ittybit_server.errors import RequestError, invalid
from local.ittybit_server.options import Body, Kind, UploadOptions, read_options

Model = TypeVar("Model", bound=Body)


class ConnectionBody(Body):
    """Body of ``POST /connections``."""

    name: str = Field(min_length=1)
    kind: Literal["s3"]
    endpoint: str = Field(min_length=1)
    region: str = Field(min_length=1)
    access_key_id: str = Field(min_length=1)
    secret_access_key: str = Field(min_length=1)
    is_default: bool = False


class Item(Body):
    """Body of ``POST /tasks``, and one step of a run or of an automation's workflow."""

    kind: Kind
    url: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    connection_id: str | None = None
    destination: str | None = None
    next: list[Item] = Field(default_factory=list)

    @property
    def source(self) -> str | None:
        """The item's own source: an ingest's ``options.url``, else ``url``."""
        named = self.options.get("url") if self.kind == "ingest" else None
        return named or self.url


class RunBody(Body):
    """Body of ``POST /runs``."""

    tasks: list[Item] = Field(min_length=1)
    metadata: dict[str, Any] = Field(default_factory=dict)


class AutomationBody(Body):
    """Body of ``POST /automations``."""

    name: str = Field(min_length=1)
    description: str | None = None
    workflow: list[Item] = Field(min_length=1)
    status: Literal["active", "paused"] = "active"


class AutomationRunBody(Body):
    """Body of ``POST /automations/:id/run``."""

    url: str | None = None


class JobBody(Body):
    """Body of ``POST /jobs``."""

    input: str
    kind: Literal["video", "audio", "image", "animation", "adaptive_video"]
    options: dict[str, Any] = Field(default_factory=dict)
    output: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    webhook_url: str | None = None
    connection_id: str | None = None


def read_json() -> dict[str, Any]:
    """The body of the current request.

    Raises:
        RequestError: If it is not a JSON object.
    """
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.")
    return body


def parse(model: type[Model], body: dict[str, Any]) -> Model:
    """The body as its model.

    Raises:
        RequestError: ``request_invalid``, for the first invalid field.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from error


def check_items(items: list[Item], *, top: bool = True, run_url: str | None = None) -> None:
    """Check a tree of tasks for what its models cannot check.

    The source of a task at the first level is its ``url``, an ingest's ``options.url`` or the run's url. A task below
    works on its parent's output. For an automation, pass any valid ``run_url``.

    Raises:
        RequestError: ``url_required``, ``format_unsupported`` or ``request_invalid``.
    """
    for item in items:
        options = check_options(item.kind, item.options)
        if isinstance(options, UploadOptions):
            check_destination(options.url, "options.url", item.kind)
        if item.destination is not None:
            check_destination(item.destination, "destination", item.kind)
        if top:
            check_source(item.source or run_url)
        check_items(item.next, top=False)


def check_options(kind: str, options: dict[str, Any]) -> Body:
    """The options of a task of this kind.

    Raises:
        RequestError: ``format_unsupported`` or ``request_invalid``.
    """
    try:
        return read_options(kind, options)
    except ValidationError as error:
        raise _refusal(error, "options") from error


def check_source(url: str | None) -> None:
    """Refuse a source that is missing, or is neither ``http(s)://`` nor ``s3://bucket/key``."""
    if not url:
        raise RequestError(400, "url_required", "url is required.")
    if url.startswith("s3://"):
        check_destination(url, "url", "ingest")
    elif not is_http(url):
        raise invalid("url must be an https://, http:// or s3:// address.")


def check_destination(url: str, field: str, kind: str) -> None:
    """Refuse an address that is not ``s3://bucket/key``. Only adaptive video and upload may name a folder."""
    try:
        address = Address.parse(url)
    except ValueError as error:
        raise invalid(f"{field} {error}.") from error
    if address.key.endswith("/") and kind not in {"adaptive_video", "upload"}:
        raise invalid(f"{field} must name a key, not a folder.")


def is_http(url: str) -> bool:
    """Whether this is an ``http(s)://`` address with a host."""
    try:
        address = urlsplit(url)
    except ValueError:
        return False
    return address.scheme in {"http", "https"} and bool(address.hostname)


def _refusal(error: ValidationError, *above: str) -> RequestError:
    first = error.errors()[0]
    place = [*above, *map(str, first["loc"])]
    field = ".".join(place) or "body"
    if place[-1:] == ["format"] and first["type"] == "literal_error":
        return RequestError(400, "format_unsupported", f"{field}: {first['msg']}.")
    if first["type"] == "missing":
        return invalid(f"{field} is required.")
    return invalid(f"{field}: {first['msg']}.")
