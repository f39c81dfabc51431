from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from flask import Flask, request

from local.fault_injection import Faults, Request
from local.server import Server
from tests.waiting import until


class Site:
    """An application that records the requests it has handled, with faults in front of it."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        app = Flask(__name__)
        app.add_url_rule("/<path:path>", view_func=self._answer, methods=["GET", "POST"])
        self.faults = Faults(app)

    def _answer(self, path: str) -> str:
        self.handled.append(f"{request.method} {path} {request.get_data(as_text=True)}".strip())
        return "fine"


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def http(site: Site) -> Iterator[httpx.Client]:
    with Server(site.faults) as server, httpx.Client(base_url=server.origin, timeout=10) as client:
        yield client
        site.faults.close()


def test_without_a_fault_the_application_answers(site: Site, http: httpx.Client) -> None:
    assert http.post("/a", content="x").text == "fine"
    assert site.handled == ["POST a x"]


def test_a_status_is_answered_the_given_number_of_times(site: Site, http: httpx.Client) -> None:
    fault = site.faults.add("GET", "/a", times=2, status=429, headers={"Retry-After": "3"}, body={"kind": "rate"})
    answers = [http.get("/a") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "3"
    assert answers[0].json() == {"kind": "rate"}
    assert fault.seen == 2
    assert site.handled == ["GET a"]


def test_a_fault_needs_the_method_and_the_whole_path(site: Site, http: httpx.Client) -> None:
    fault = site.faults.add("POST", "/a/[0-9]+", status=500, times=9)
    assert http.get("/a/1").status_code == 200
    assert http.post("/a/1/run").status_code == 200
    assert http.post("/a/12", params={"q": "1"}).status_code == 500
    assert fault.seen == 1


def test_any_method_and_an_encoded_path(site: Site, http: httpx.Client) -> None:
    site.faults.add(None, "/ä b", status=520, times=2)
    assert [http.get("/ä b").status_code, http.post("/ä b").status_code] == [520, 520]


def test_faults_are_used_up_in_the_order_they_were_added(site: Site, http: httpx.Client) -> None:
    site.faults.add("GET", "/a", status=500)
    site.faults.add(None, "/a", status=503)
    assert [http.get("/a").status_code for _ in range(3)] == [500, 503, 200]


def test_a_request_dropped_before_is_not_handled(site: Site, http: httpx.Client) -> None:
    fault = site.faults.add("POST", "/a", drop="before")
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/a", content="x")
    assert fault.seen == 1
    assert site.handled == []


def test_a_request_dropped_after_is_handled_once(site: Site, http: httpx.Client) -> None:
    site.faults.add("POST", "/a", drop="after")
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/a", content="x")
    assert site.handled == ["POST a x"]
    assert http.post("/a", content="y").text == "fine"


def test_a_hang_alone_delays_the_answer(site: Site, http: httpx.Client) -> None:
    site.faults.add(None, "/a", hang=0.2)
    begin = time.monotonic()
    assert http.get("/a").text == "fine"
    assert time.monotonic() - begin >= 0.2


def test_a_caller_gives_up_on_a_hang(site: Site, http: httpx.Client) -> None:
    site.faults.add("GET", "/a", hang=60)
    with pytest.raises(httpx.ReadTimeout):
        http.get("/a", timeout=0.2)
    assert http.get("/a").text == "fine"


def test_close_drops_hanging_requests(site: Site, http: httpx.Client) -> None:
    fault = site.faults.add("GET", "/a", hang=60)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            http.get("/a")
        except httpx.HTTPError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: fault.seen)
    site.faults.close()
    asking.join(5)
    assert [type(error) for error in errors] == [httpx.RemoteProtocolError]


def test_clear_forgets_the_remaining_faults(site: Site, http: httpx.Client) -> None:
    fault = site.faults.add("GET", "/a", status=500, times=5)
    assert http.get("/a").status_code == 500
    site.faults.clear()
    assert http.get("/a").status_code == 200
    assert fault.seen == 1


def test_a_fault_with_no_effect_or_with_two_is_refused(site: Site) -> None:
    with pytest.raises(ValueError, match="a fault answers"):
        site.faults.add("GET", "/a")
    with pytest.raises(ValueError, match="a fault answers"):
        site.faults.add("GET", "/a", status=500, drop="after")


def test_a_fault_may_be_limited_to_some_matching_requests(site: Site, http: httpx.Client) -> None:
    first = site.faults.add("GET", "/a", at={1, 3}, status=500)
    second = site.faults.add("GET", "/a|/b", at={1, 4}, status=503)
    answers = [http.get(path).status_code for path in ("/a", "/a", "/b", "/a", "/b", "/a", "/a")]
    # Both faults match the second request: the older one wins.
    assert answers == [200, 500, 200, 200, 503, 500, 200][: len(answers)]
    assert (first.met, first.seen) == (5, 2)
    assert (second.met, second.seen) == (7, 1)


def test_requests_are_recorded_once_a_list_is_set(site: Site, http: httpx.Client) -> None:
    http.get("/unnoted")
    recorded: list[Request] = []
    site.faults.requests = recorded
    site.faults.add("POST", "/ä", hang=0.2)
    site.faults.add("POST", "/lost", drop="before")
    http.post("/ä?q=1", headers={"Idempotency-Key": "one"})
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/lost")
    late, lost = recorded
    assert (late.method, late.path, late.query, late.idempotency_key) == ("POST", "/ä", "q=1", "one")
    assert late.passed is not None
    assert late.passed - late.arrived >= 0.2
    assert (lost.path, lost.passed) == ("/lost", None)


def test_idle_means_that_no_request_can_take_effect_any_more(site: Site, http: httpx.Client) -> None:
    assert site.faults.wait_until_idle(0)
    fault = site.faults.add("POST", "/a", hang=0.5)
    with pytest.raises(httpx.ReadTimeout):
        http.post("/a", timeout=0.1)
    assert fault.seen == 1
    assert not site.faults.wait_until_idle(0)
    assert site.handled == []
    assert site.faults.wait_until_idle(5)
    assert site.handled == ["POST a"]
