"""For any key and any answer of a service, no key is in an answer or the log, and a call logs one line of JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.redaction import Redactor
from tests.functions.calling import NOWHERE
from tests.functions.scripted import Answer, Scripted, between
from tests.inputs import ANY_TEXT, JSON, nasty

# What settings accept as a key, quotes and backslashes included.
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=24)
AROUND = st.text("=&?\"' \\,{}:", max_size=4) | nasty() | st.just("x" * 495)


def texts(value: Any) -> list[str]:
    """Every text in a JSON value except the names of fields, which are our own."""
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in texts(item)]
        case dict():
            return [text for item in value.values() for text in texts(item)]
    return []


@given(secrets=st.lists(KEYS, min_size=1, max_size=3), pieces=st.lists(AROUND, min_size=1, max_size=4), data=st.data())
def test_every_secret_is_redacted_in_any_text(secrets: list[str], pieces: list[str], data: st.DataObject) -> None:
    assume(not any("***" in secret for secret in secrets))
    inserted = data.draw(st.lists(st.sampled_from(secrets), min_size=len(pieces), max_size=len(pieces)))
    text = "".join(piece + secret for piece, secret in zip(pieces, inserted, strict=True))
    left = Redactor(secrets)(text)
    assert not [secret for secret in secrets if secret in left]


@given(said=JSON, secret=KEYS, token=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_redaction_keeps_the_structure_of_the_json(said: Any, secret: str, token: str) -> None:
    redact = Redactor([secret])
    whole = {
        "said": said,
        "key": f'"{secret}"',
        "deep": [[secret], {"in": (secret,)}],
        "address": f"https://a/b?token={token}",
    }
    written = json.loads(json.dumps(redact.within(whole)))
    assert written.keys() == whole.keys()
    assert (written["key"], written["deep"]) == ('"***"', [["***"], {"in": ["***"]}])
    assert not [text for text in texts(written) if secret in text]


@settings(max_examples=25)
@given(key=KEYS, before=AROUND, after=AROUND, kind=ANY_TEXT, status=st.sampled_from([400, 401, 402, 404, 503, 200]))
def test_a_key_that_a_service_echoes_is_in_neither_the_answer_nor_the_log(
    scripted: Scripted,
    capfd: pytest.CaptureFixture[str],
    key: str,
    before: str,
    after: str,
    kind: str,
    status: int,
) -> None:
    # A key that is also part of our own texts could not be told from them.
    assume(key not in repr(NOWHERE))
    function = between("create-connection", ITTYBIT_API_KEY=key)
    said = {"kind": kind + key, "message": before + key + after, "id": key, "name": before + key}
    scripted.script(ittybit=[Answer(said, status)])
    capfd.readouterr()
    answer = function.ask({"access_key_id": "key-id", "secret_access_key": "a-secret", "region": "local"})
    assert scripted.requests
    [line] = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    shown = texts(line) + texts(json.loads(answer.text))
    assert not [text for text in shown if key in text]
    assert line["id"] == answer.headers["X-Correlation-Id"]
