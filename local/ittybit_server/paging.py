"""Lists with cursors: ``limit``, ``after``, ``before``, ``order``, as in ittybit's page on pagination.

A cursor is the id of a record of that list, whether or not the filters let it through. ``before`` gives the
records next to the cursor, in the list's order; its ``Link`` leads further in the same direction. Parameters
that cannot be used are a 400; what the original does then is not documented.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlencode

from flask import request

from local.ittybit_server.errors import invalid

Record = TypeVar("Record")


def page(
    records: dict[str, Record], keep: Callable[[Record], bool] = lambda _: True
) -> tuple[list[Record], dict[str, str]]:
    """The part of a list that the request under way asks for.

    Args:
        records: By id, oldest first.
        keep: The request's filters.

    Returns:
        The records in the order asked for, and the headers ``Has-More``, ``Limit`` and, if there is more,
        ``Link``.

    Raises:
        RequestError: ``request_invalid``, for a parameter that cannot be used.
    """
    limit = _limit(request.args.get("limit", "20"))
    after, before = request.args.get("after"), request.args.get("before")
    order = request.args.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise invalid("order must be asc or desc.")
    ids = list(records) if order == "asc" else list(reversed(records))
    start = _position(ids, "after", after) + 1 if after is not None else 0
    stop = _position(ids, "before", before) if before is not None else len(ids)
    backwards = before is not None and after is None
    kept = [one for one in ids[start:stop] if keep(records[one])]
    shown = kept[-limit:] if backwards else kept[:limit]
    more = len(kept) > limit
    headers = {"Has-More": "true" if more else "false", "Limit": str(limit)}
    if more:
        cursor = {"before": shown[0]} if backwards else {"after": shown[-1]}
        others = {name: value for name, value in request.args.items() if name not in cursor}
        headers["Link"] = f'<{request.base_url}?{urlencode(others | cursor)}>; rel="next"'
    return [records[one] for one in shown], headers


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise invalid("limit must be a number from 1 to 100.")
    return int(text)


def _position(ids: list[str], name: str, cursor: str) -> int:
    if cursor not in ids:
        raise invalid(f"{name} must be the id of a record of this list.")
    return ids.index(cursor)
