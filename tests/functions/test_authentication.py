from __future__ import annotations

import base64
import json
import time
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.authentication import Unauthenticated, check_signature
from shared.settings import Settings, load
from tests.functions.calling import NOWHERE, sign

# The database's signer is tested with the same vectors.
VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "signatures.json").read_text())
SECRET = NOWHERE["FUNCTIONS_SECRET"]
BODY = b'{"job": "6c2f1f6e-0d6e-4d0e-9f10-c0ffee000000", "attempt": 12}'
ID = "job_6c2f1f6e-0d6e-4d0e-9f10-c0ffee000000_12"


@cache
def settings() -> Settings:
    return load(NOWHERE)


def is_accepted(headers: dict[str, str], body: bytes) -> bool:
    try:
        check_signature(headers, body, settings())
    except Unauthenticated:
        return False
    return True


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(codec="latin-1"), min_size=1))
def test_a_valid_signature_is_accepted_for_any_text(text: str, message_id: str) -> None:
    body = text.encode()
    assert is_accepted(sign(SECRET, body, message_id=message_id), body)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_changed_byte_anywhere_in_the_body_is_refused(place: int, change: int) -> None:
    altered = bytearray(BODY)
    altered[place] ^= change
    assert not is_accepted(sign(SECRET, BODY, message_id=ID), bytes(altered))


@given(st.integers(0, len(BODY)), st.binary(min_size=1, max_size=3))
def test_inserted_bytes_anywhere_in_the_body_are_refused(place: int, more: bytes) -> None:
    assert not is_accepted(sign(SECRET, BODY, message_id=ID), BODY[:place] + more + BODY[place:])


@given(st.sampled_from(["webhook-id", "webhook-timestamp"]), st.data())
def test_a_changed_character_in_the_id_or_the_timestamp_is_refused(header: str, data: st.DataObject) -> None:
    headers = sign(SECRET, BODY, message_id=ID)
    value = headers[header]
    place = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(codec="latin-1"))
    assume(other != value[place])
    assert not is_accepted(headers | {header: value[:place] + other + value[place + 1 :]}, BODY)


@given(st.integers(0, 255))
def test_a_changed_bit_anywhere_in_the_signature_is_refused(bit: int) -> None:
    headers = sign(SECRET, BODY, message_id=ID)
    digest = bytearray(base64.b64decode(headers["webhook-signature"].removeprefix("v1,")))
    digest[bit // 8] ^= 1 << bit % 8
    altered = "v1," + base64.b64encode(digest).decode()
    assert not is_accepted(headers | {"webhook-signature": altered}, BODY)


@given(st.text(st.characters(codec="latin-1"), max_size=80))
def test_every_made_up_signature_is_refused_as_unauthenticated(signature: str) -> None:
    assert not is_accepted(sign(SECRET, BODY) | {"webhook-signature": signature}, BODY)


@given(st.binary(max_size=60))
def test_a_body_that_is_not_utf_8_is_refused(body: bytes) -> None:
    assert not is_accepted(sign(SECRET, BODY), b"\xff" + body)


@pytest.mark.parametrize(("age", "accepted"), [(-290, True), (-310, False), (290, True), (310, False), (0, True)])
def test_a_signature_is_valid_for_five_minutes_both_ways(age: int, accepted: bool) -> None:
    assert is_accepted(sign(SECRET, BODY, at=time.time() - age), BODY) is accepted


def test_one_valid_signature_among_several_is_enough() -> None:
    headers = sign(SECRET, BODY)
    several = f"v1a,AAAA v1,{base64.b64encode(bytes(32)).decode()} {headers['webhook-signature']}"
    assert is_accepted(headers | {"webhook-signature": several}, BODY)


def test_a_request_without_one_of_the_signature_headers_is_refused() -> None:
    headers = sign(SECRET, BODY)
    for name in headers:
        with pytest.raises(Unauthenticated, match="Sign the request"):
            check_signature({other: value for other, value in headers.items() if other != name}, BODY, settings())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_the_signing_library_makes_the_signature_of_each_vector(vector: dict[str, Any]) -> None:
    made = sign(vector["secret"], vector["body"].encode(), at=float(vector["timestamp"]), message_id=vector["id"])
    assert made["webhook-signature"] == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_each_vector_is_accepted_at_its_time(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # a datetime is what is needed
            return datetime.fromtimestamp(float(vector["timestamp"]), tz)

    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Then)
    held = settings().model_copy(update={"functions_secret": (vector["secret"],)})
    headers = {
        "webhook-id": vector["id"],
        "webhook-timestamp": str(vector["timestamp"]),
        "webhook-signature": vector["signature"],
    }
    check_signature(headers, vector["body"].encode(), held)
