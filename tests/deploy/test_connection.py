"""./deploy.sh connection: what it sends to create-connection, and how it prints the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.clone import Clone

URL = "https://create-connection.test"
TOKEN = 'a "token\\ of 20 chars'.replace(" ", "-")
FLAGS = ["--disable", "--silent", "--show-error", "--max-time=", "--write-out=", "--header=*", "--data="]
CONNECTION = {
    "id": "conn_1",
    "name": "supabase-ref",
    "kind": "s3",
    "endpoint": "https://ref.storage.supabase.co/storage/v1/s3",
    "region": "eu-central-1",
    "is_default": False,
}


@pytest.fixture
def ready(clone: Clone) -> Clone:
    """A clone that knows where create-connection is."""
    clone.write_env({"CREATE_CONNECTION_URL": URL, "FUNCTIONS_TOKEN": TOKEN})
    answers(clone, 200, {"outcome": "created", "connection": CONNECTION})
    return clone


def answers(clone: Clone, status: int, body: Any) -> None:
    """Let create-connection give this answer."""
    text = body if isinstance(body, str) else json.dumps(body)
    clone.commands.add("curl", answer=f"{text}\n{status}", accepts={"": FLAGS})


def test_the_token_goes_over_standard_input_and_is_no_argument(ready: Clone) -> None:
    result = ready.deploy("connection")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "supabase-ref (conn_1): registered at ittybit",
        "  endpoint https://ref.storage.supabase.co/storage/v1/s3, region eu-central-1",
    ]
    [call] = ready.commands.calls("curl")
    assert call.argv == [
        *("--disable", "--silent", "--show-error", "--max-time", "60", "--write-out", "\\n%{http_code}"),
        *("--header", "@-", "--header", "Content-Type: application/json", "--data", "{}", URL),
    ]
    assert call.stdin == f"Authorization: Bearer {TOKEN}\n"
    assert TOKEN not in result.stdout + result.stderr


def test_the_options_go_into_the_body(ready: Clone) -> None:
    ready.deploy("connection", "--region", 'eu"1', "--bucket", "media", "--bucket", "a\\b", "--default")
    [call] = ready.commands.calls("curl")
    assert json.loads(call.argv[-2]) == {"region": 'eu"1', "buckets": ["media", "a\\b"], "is_default": True}


def test_each_outcome_is_printed_in_words(ready: Clone) -> None:
    for outcome, said in {
        "unchanged": "already registered at ittybit, unchanged",
        "replaced": "the keys had changed; the new ones are registered at ittybit",
    }.items():
        answers(ready, 200, {"outcome": outcome, "connection": CONNECTION})
        assert said in ready.deploy("connection").stdout


def problem(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": "T", "status": status, "detail": detail, "id": "abc", **more}


PROBLEMS: list[tuple[int, Any, str]] = [
    (
        422,
        problem(
            422,
            "Missing: region (or SUPABASE_S3_REGION). Dashboard > Storage > S3 has them.",
            errors=[{"field": "region", "message": "missing, and not in the environment either"}],
        ),
        "deploy.sh: Missing: region (or SUPABASE_S3_REGION). Dashboard > Storage > S3 has them.\n"
        "  region: missing, and not in the environment either\n"
        "  Fix that, then run the command again. It is in the function's log as abc.\n",
    ),
    (401, problem(401, "No."), "FUNCTIONS_TOKEN in .env is not the function's: ./deploy.sh functions gives"),
    (
        503,
        problem(503, "ittybit: no credit."),
        "deploy.sh: ittybit: no credit.\n  Run the command again in a minute.\n",
    ),
    (403, "<html>Forbidden</html>", "The host requires callers to sign in"),
    (301, "", "It redirects: set the final https address"),
    (404, "[]", "the HTTP 404 from CREATE_CONNECTION_URL is not create-connection's"),
]


def test_an_error_is_printed_with_its_remedy(ready: Clone) -> None:
    for status, answer, said in PROBLEMS:
        answers(ready, status, answer)
        result = ready.deploy("connection")
        assert (result.returncode, result.stdout) == (2, "")
        assert said in result.stderr


def test_without_an_answer_curls_error_is_printed(ready: Clone) -> None:
    ready.commands.fail("curl", code=6, message="curl: (6) Could not resolve host: create-connection.test")
    result = ready.deploy("connection")
    assert result.returncode == 2
    assert "create-connection did not answer: curl: (6) Could not resolve host" in result.stderr
    assert "Check CREATE_CONNECTION_URL in .env: it must be" in result.stderr


def test_an_unknown_option_or_missing_setting_is_named_and_nothing_is_sent(ready: Clone) -> None:
    assert "--region takes a value" in ready.deploy("connection", "--region").stderr
    assert "connection does not take 'now'" in ready.deploy("connection", "now").stderr
    whole = ready.read_env()
    for missing in whole:
        ready.write_env({name: value for name, value in whole.items() if name != missing})
        result = ready.deploy("connection")
        assert result.returncode == 2
        assert f"{missing} is not set" in result.stderr
    assert ready.commands.calls() == []


@pytest.mark.parametrize(
    "url",
    [
        "http://create-connection.test",
        "create-connection.test",
        "http://127.0.0.1.create-connection.test",
        "http://127.0.0.1:80@create-connection.test/",
        "http://create-connection.test?127.0.0.1",
        "http://create-connection.test#@localhost",
    ],
)
def test_the_token_is_sent_only_over_https_or_to_this_machine(ready: Clone, url: str) -> None:
    ready.write_env({"CREATE_CONNECTION_URL": url, "FUNCTIONS_TOKEN": TOKEN})
    result = ready.deploy("connection")
    assert (result.returncode, ready.commands.calls("curl")) == (2, [])
    assert "CREATE_CONNECTION_URL must be an https address" in result.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "http://[::1]:8080", "http://localhost/"])
def test_plain_http_is_accepted_on_this_machine(ready: Clone, url: str) -> None:
    ready.write_env({"CREATE_CONNECTION_URL": url, "FUNCTIONS_TOKEN": TOKEN})
    assert ready.deploy("connection").returncode == 0


@pytest.mark.parametrize("status", [200, 422])
def test_control_characters_in_an_answer_are_not_printed(ready: Clone, status: int) -> None:
    said = "\x1b[2J\x07\x9b\nall is well"
    connection = dict.fromkeys(CONNECTION, said)
    faults = [{"field": said, "message": said}]
    answers(
        ready, status, {"outcome": "created", "connection": connection, "detail": said, "errors": faults, "id": said}
    )
    result = ready.deploy("connection")
    printed = result.stdout + result.stderr
    assert (printed.count("\n"), "[2J all is well" in printed) == (2 if status == 200 else 3, True)
    assert not set(printed) & set("\x1b\x07\x9b")


def test_a_dry_run_needs_no_settings_and_shows_no_token(clone: Clone) -> None:
    bare = clone.deploy("--dry-run", "connection", "--default")
    assert bare.returncode == 0
    assert bare.stdout.rstrip().endswith("<CREATE_CONNECTION_URL>")
    assert '"is_default": true'.replace(" ", "\\ ").replace('"', '\\"') in bare.stdout

    clone.write_env({"CREATE_CONNECTION_URL": URL, "FUNCTIONS_TOKEN": TOKEN})
    result = clone.deploy("--dry-run", "connection")
    assert TOKEN not in result.stdout + result.stderr
    assert clone.commands.calls() == []
