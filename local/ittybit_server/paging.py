"""Lists with cursors: ``limit``, ``after``, ``before``, ``order``, as in ittybit's page on pagination.

A cursor is the id of a record of that list, even of one that the filters exclude. ``before`` returns the records
directly before the cursor, in the list's order; its ``Link`` continues in the same direction. Invalid parameters are a
400; what the original does with them is not documented.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urlencode

from flask import request

from local.ittybit_server.errors import invalid

Record = TypeVar("Record")


def page(
    records: dict[str, Record], keep: Callable[[Record], bool] = lambda _: True
) -> tuple[list[Record], dict[str, str]]:
    """The page of a list that the current request asks for.

    Args:
        records: By id, oldest first.
        keep: The request's filters.

    Returns:
        The records in the requested order, and the headers ``Has-More``, ``Limit`` and, if there is more,
        ``Link``.

    Raises:
        RequestError: ``request_invalid``, for an invalid parameter.
    """
    limit = _limit(request.args.get("limit", "20"))
    after, before = request.args.get("after"), request.args.get("before")
    order = request.args.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise invalid("order must be asc or desc.")
    for name, place in (("after", after), ("before", before)):
        if place is not None and place not in records:
            raise invalid(f"{name} must be the id of a record of this list.")
    backwards = before is not None and after is None
    # Read no further than the page's end: the first page of a long list costs no more than that of a short one.
    ids: Iterator[str] = iter(records) if (order == "asc") is not backwards else reversed(records)
    start, stop = (before, None) if backwards else (after, before)
    if start is not None:
        ids = itertools.islice(itertools.dropwhile(start.__ne__, ids), 1, None)
    ids = itertools.takewhile(lambda one: one != stop, ids)
    found = list(itertools.islice((one for one in ids if keep(records[one])), limit + 1))
    more, shown = len(found) > limit, found[:limit]
    if backwards:
        shown.reverse()
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
