from __future__ import annotations

from typing import Any

import httpx
import pytest

NAMES = ["B.mp4", "a/1.mp4", "a/2.mp4", "a/deep/3.mp4", "a.mp4", "c/4.mp4", "d_.mp4", "dx.mp4"]


@pytest.fixture
def filled(client: httpx.Client, bucket: str) -> str:
    for name in NAMES:
        client.post(f"/object/{bucket}/{name}", content=b"x").raise_for_status()
    return bucket


def pages(client: httpx.Client, bucket: str, **body: Any) -> list[list[str]]:
    """Return the names on each page of list-v2, folders before objects."""
    found, cursor = [], None
    while True:
        asked = body | ({"cursor": cursor} if cursor else {})
        page = client.post(f"/object/list-v2/{bucket}", json=asked).raise_for_status().json()
        found.append([entry["name"] for entry in page["folders"] + page["objects"]])
        assert page["hasNext"] == ("nextCursor" in page)
        if not page["hasNext"]:
            return found
        cursor = page["nextCursor"]


def test_a_folder_level_is_listed_by_relative_names(client: httpx.Client, filled: str) -> None:
    def level(**body: Any) -> list[tuple[str, bool]]:
        answer = client.post(f"/object/list/{filled}", json={"prefix": "", **body}).raise_for_status()
        return [(entry["name"], entry["id"] is None) for entry in answer.json()]

    assert level(prefix="a") == level(prefix="a/") == [("1.mp4", False), ("2.mp4", False), ("deep", True)]
    top = [("B.mp4", False), ("a.mp4", False), ("a", True), ("c", True), ("d_.mp4", False), ("dx.mp4", False)]
    assert level() == top
    assert level(limit=2, offset=1) == top[1:3]
    assert level(search="d_") == [("d_.mp4", False)]
    assert level(sortBy={"column": "name", "order": "desc"}) == top[::-1]
    newest = {"column": "created_at", "order": "desc"}
    assert [name for name, is_folder in level(sortBy=newest) if not is_folder] == ["dx.mp4", "d_.mp4", "a.mp4", "B.mp4"]


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_hold_every_name_once_in_order(limit: int, client: httpx.Client, filled: str) -> None:
    def names(**body: Any) -> list[str]:
        listed = pages(client, filled, limit=limit, **body)
        assert all(len(page) == limit for page in listed[:-1])
        return [name for page in listed for name in page]

    assert sorted(names()) == sorted(NAMES)
    assert names(prefix="a/", with_delimiter=False) == ["a/1.mp4", "a/2.mp4", "a/deep/3.mp4"]
    assert sorted(names(with_delimiter=True, prefix="a")) == ["a.mp4", "a/"]
