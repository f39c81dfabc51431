"""REST routes that list objects: ``/object/list``, a folder level, and ``/object/list-v2``, a page with a cursor.

Left out: a cursor in lists that are not sorted by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, Field

from local.storage_server import listing
from local.storage_server.database import to_json
from local.storage_server.requests import caller_for, parse
from local.storage_server.store import Store

_FIELDS = ("name", "id", "updated_at", "created_at", "last_accessed_at", "metadata")


class Order(BaseModel):
    """How to sort."""

    column: str = "name"
    order: Literal["asc", "desc"] = "asc"


class FolderQuery(BaseModel):
    """The body of a request for one folder level."""

    prefix: str
    limit: Annotated[int, Field(ge=1)] = 100
    offset: Annotated[int, Field(ge=0)] = 0
    order: Annotated[Order | None, Field(alias="sortBy")] = None
    search: str | None = None


class PageQuery(BaseModel):
    """The body of a request for one page."""

    prefix: str | None = None
    limit: Annotated[int, Field(ge=1)] = listing.MAX_LIMIT
    cursor: str | None = None
    with_delimiter: bool = False


def add_routes(blueprint: Blueprint, store: Store) -> None:
    """Add both list routes."""

    @blueprint.post("/object/list/<bucket>")
    def list_folder(bucket: str) -> Response:
        caller, body = caller_for("storage.object.list"), parse(FolderQuery, request)
        order = body.order or Order()
        folder = f"{body.prefix}/" if body.prefix and not body.prefix.endswith("/") else body.prefix
        query = listing.Query(
            prefix=folder + (body.search or ""),
            delimiter="/",
            limit=body.limit,
            offset=body.offset,
            column=order.column,
            descending=order.order == "desc",
        )
        with store.database.transaction(caller) as cursor:
            page = listing.page(cursor, bucket, query)
        return jsonify([_relative(row, folder) for row in page.entries])

    @blueprint.post("/object/list-v2/<bucket>")
    def list_page(bucket: str) -> Response:
        caller, body = caller_for("storage.object.list_v2"), parse(PageQuery, request)
        query = listing.Query(
            prefix=body.prefix or "",
            delimiter="/" if body.with_delimiter else None,
            limit=body.limit,
            after=body.cursor or "",
        )
        with store.database.transaction(caller) as cursor:
            page = listing.page(cursor, bucket, query)
        answer: dict[str, Any] = {
            "hasNext": page.more,
            "folders": [{"name": row["name"]} for row in page.entries if row["folder"]],
            "objects": [_shown(row) for row in page.entries if not row["folder"]],
        }
        if page.more:
            answer |= dict.fromkeys(("nextCursor", "nextCursorKey"), page.entries[-1]["name"])
        return jsonify(answer)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {field: to_json(row[field]) for field in _FIELDS}


def _relative(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the entry with its name inside the folder. A subfolder has only a name."""
    name = row["name"].removeprefix(folder)
    if row["folder"]:
        return dict.fromkeys(_FIELDS) | {"name": name.removesuffix("/")}
    return _shown(row) | {"name": name}
