from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.doctor.functions import visit
from local.functions import FunctionProcess, stage
from shared import settings
from tests.functions.calling import NAMES, NOWHERE, sign


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FunctionProcess]:
    """The staged folder, served by functions-framework."""
    stage("together")
    log: Path = tmp_path_factory.mktemp("together") / "log"
    plain_mode = {"WATCH_BUCKET": "uploads", "ITTYBIT_AUTOMATION_ID": "auto_1"}
    process = FunctionProcess("together", NOWHERE | plain_mode, log=log)
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.stop()


def post(together: FunctionProcess, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    headers = {"Content-Type": "application/json", **headers}
    return httpx.post(f"{together.url}{path}", content=body, headers=headers, trust_env=False)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("on-upload", {"bucket", "name", "automation_id"}),
        ("push-back", {"bucket", "name", "kind", "destination"}),
        ("create-connection", set[str]()),
    ],
)
def test_each_function_authenticates_at_its_path(together: FunctionProcess, name: str, fields: set[str]) -> None:
    body = b'{"nothing": true}'
    stranger = post(together, f"/{name}", body, {})
    assert (stranger.status_code, stranger.headers["content-type"]) == (401, "application/problem+json")
    # Each names the fields that it expects.
    known = post(together, f"/{name}", body, sign(NOWHERE["FUNCTIONS_SECRET"], body))
    assert known.status_code == 422
    assert {fault["field"] for fault in known.json()["errors"]} == fields | {"nothing"}


def test_each_function_keeps_its_own_body_limit(together: FunctionProcess) -> None:
    # In plain mode on-upload accepts 2 MiB with the token.
    body = b'{"nothing": "' + b"n" * 100_000 + b'"}'
    bearer = {"Authorization": f"Bearer {NOWHERE['FUNCTIONS_TOKEN']}"}
    assert [post(together, f"/{name}", body, bearer).status_code for name in NAMES] == [422, 413, 413]
    assert {post(together, f"/{name}", body, {}).status_code for name in NAMES} == {413}


@pytest.mark.parametrize("path", ["/", "/on-uploads", "/on-upload/", "/on_upload", "/x/push-back"])
def test_any_other_path_is_404(together: FunctionProcess, path: str) -> None:
    bearer = {"Authorization": f"Bearer {NOWHERE['FUNCTIONS_TOKEN']}"}
    for answer in (post(together, path, b"{}", bearer), post(together, path, b"x" * 3_000_000, {})):
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        body = answer.json()
        assert body["detail"] == f"No function is at this path. There are: {', '.join(f'/{name}' for name in NAMES)}."
        lines = [json.loads(line) for line in together.log.read_text().splitlines() if line.startswith("{")]
        [line] = [line for line in lines if line["id"] == body["id"]]
        assert line["message"] == "elsewhere 404"


def test_the_doctor_tells_which_function_is_at_an_address(together: FunctionProcess) -> None:
    def verdict(url: str) -> tuple[str, str]:
        found = visit("create-connection", url, settings.load(NOWHERE), NOWHERE["FUNCTIONS_SECRET"]).finding
        return found.verdict, found.saw

    assert verdict(f"{together.url}/create-connection")[0] == "ok"
    assert verdict(f"{together.url}/push-back") == ("failure", "push-back is at its address")
    assert verdict(together.url) == ("failure", "there is no function at its address (HTTP 404)")
