"""Cursors, in both directions, and filters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local.ittybit_server import Ittybit, Shapes
from local.server import Server
from tests.local.ittybit_server.stack import KEY, Stack
from tests.waiting import until

URL = "https://example.com/a.mp4"


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of an ittybit that was never started, so that its 25 tasks keep waiting."""
    directory: Path = tmp_path_factory.mktemp("lists")
    ittybit = Ittybit(api_key=KEY, directory=directory)
    headers = {"Authorization": f"Bearer {KEY}"}
    with Server(ittybit.app) as server, httpx.Client(base_url=server.origin, headers=headers) as client:
        for number in range(25):
            client.post("/tasks", json={"url": f"{URL}?n={number}", "kind": "video"}).raise_for_status()
        yield client
    ittybit.stop()


def numbers(answer: httpx.Response) -> list[int]:
    return [int(task["inputs"][0]["url"].partition("=")[2]) for task in answer.raise_for_status().json()]


def task_id(http: httpx.Client, number: int) -> str:
    tasks = http.get("/tasks", params={"limit": 100, "order": "asc"}).json()
    found: str = tasks[number]["id"]
    return found


@pytest.mark.parametrize("envelope", [False, True])
@pytest.mark.parametrize("path", ["/tasks", "/jobs"])
def test_a_list_shows_each_record_in_its_current_state(media: Path, tmp_path: Path, path: str, envelope: bool) -> None:
    shapes = Shapes(envelope=envelope)
    ittybit = Ittybit(api_key=KEY, directory=tmp_path, api="both", encode=False, workers=1, shapes=shapes)
    with Stack(media, ittybit) as stack:
        stack.source_faults.add("GET", "/files/clip.mp4", hang=1)
        source, kind = stack.file("clip.mp4"), {"kind": "video"}
        body = kind | ({"input": source} if path == "/jobs" else {"url": source})
        stack.http.post(path, json=body).raise_for_status()

        def read(host: str = "127.0.0.1") -> tuple[str, str]:
            """The list, and the list that the answer about its one record makes."""
            listed = stack.http.get(stack.origin.replace("127.0.0.1", host) + path)
            (found,) = listed.json()["data"] if envelope else listed.json()
            one = stack.http.get(f"{stack.origin.replace('127.0.0.1', host)}{path}/{found['id']}").text
            return listed.text, one.replace('{"data":', '{"data":[')[:-2] + "]}\n" if envelope else f"[{one[:-1]}]\n"

        assert "succeeded" not in read()[0]
        until(lambda: "succeeded" in read()[0])
        for host in ("127.0.0.1", "localhost"):
            listed, alone = read(host)
            assert listed == alone


def test_the_first_page_has_the_twenty_newest_records(http: httpx.Client) -> None:
    answer = http.get("/tasks")
    assert numbers(answer) == list(range(24, 4, -1))
    assert (answer.headers["Has-More"], answer.headers["Limit"]) == ("true", "20")


def test_links_lead_to_the_last_page_and_keep_the_filters(http: httpx.Client) -> None:
    answer = http.get("/tasks", params={"status": "waiting", "limit": 10, "order": "asc"})
    found = [numbers(answer)]
    while "next" in answer.links:
        assert "status=waiting" in answer.links["next"]["url"]
        answer = http.get(answer.links["next"]["url"])
        found.append(numbers(answer))
    assert [len(page) for page in found] == [10, 10, 5]
    assert [number for page in found for number in page] == list(range(25))
    assert answer.headers["Has-More"] == "false"


@pytest.mark.parametrize(
    ("order", "cursor", "expected", "more"),
    [
        ("desc", {"after": 10}, [9, 8, 7], "true"),
        ("desc", {"before": 10}, [13, 12, 11], "true"),
        ("desc", {"before": 22}, [24, 23], "false"),
        ("asc", {"after": 10}, [11, 12, 13], "true"),
        ("asc", {"before": 10}, [7, 8, 9], "true"),
        ("asc", {"after": 22}, [23, 24], "false"),
        ("asc", {"after": 24}, [], "false"),
        ("asc", {"after": 3, "before": 6}, [4, 5], "false"),
    ],
)
def test_cursors(http: httpx.Client, order: str, cursor: dict[str, int], expected: list[int], more: str) -> None:
    ids = {name: task_id(http, number) for name, number in cursor.items()}
    answer = http.get("/tasks", params={"order": order, "limit": 3, **ids})
    assert numbers(answer) == expected
    assert answer.headers["Has-More"] == more
    assert ("next" in answer.links) is (more == "true")


def test_a_link_of_a_page_before_a_cursor_leads_further_back(http: httpx.Client) -> None:
    answer = http.get("/tasks", params={"before": task_id(http, 18), "limit": 3})
    assert numbers(answer) == [21, 20, 19]
    assert numbers(http.get(answer.links["next"]["url"])) == [24, 23, 22]


def test_filters(http: httpx.Client) -> None:
    task = http.get("/tasks", params={"limit": 1}).json()[0]
    assert numbers(http.get("/tasks", params={"run_id": task["run_id"]})) == [24]
    assert numbers(http.get("/tasks", params={"status": "succeeded"})) == []
    assert len(http.get("/tasks", params={"status": "waiting"}).json()) == 20


def test_a_cursor_may_be_a_record_that_the_filters_exclude(http: httpx.Client) -> None:
    assert numbers(http.get("/tasks", params={"after": task_id(http, 12), "status": "failed"})) == []


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"order": "up"},
        {"after": "task_0"},
        {"before": "task_0"},
        {"status": "done"},
    ],
)
def test_invalid_parameters_are_refused(http: httpx.Client, params: dict[str, str]) -> None:
    answer = http.get("/tasks", params=params)
    assert answer.status_code == 400
    assert answer.json()["kind"] == "request_invalid"
    assert answer.json()["message"].startswith(next(iter(params)))


@pytest.mark.parametrize("path", ["/automations", "/connections"])
def test_an_empty_list_is_an_empty_array(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.json() == []
    assert answer.headers["Has-More"] == "false"
