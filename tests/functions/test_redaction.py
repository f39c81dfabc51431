from __future__ import annotations

from urllib.parse import quote

import pytest

from shared.edge import Call
from shared.redaction import Redactor
from shared.settings import load
from tests.functions.calling import NOWHERE

SECRET = 'a "secret"\\ with+all/of=it'


@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe=""), f"?key={quote(SECRET, safe='')}&x"])
def test_a_secret_is_redacted_in_every_form(form: str) -> None:
    [[redacted]] = Redactor([SECRET]).within({"a": [f"before {form} after"]}).values()
    assert "***" in redacted
    assert not [part for part in ("secret", "all", "of") if part in redacted]


def test_a_shortened_text_has_no_part_of_a_secret() -> None:
    call = Call(load(NOWHERE), Redactor([SECRET]))
    for place in range(480, 501):
        redacted = call.quote("." * (place - 400) + SECRET + " and more", "." * place + SECRET + " and more")
        assert "secr" not in redacted["kind"] + redacted["message"]
        assert (len(redacted["kind"]) <= 100, len(redacted["message"]) <= 500) == (True, True)


@pytest.mark.parametrize(
    "address",
    ["https://a/b?token=eyJx.y-z&job=1", "https://a/b?X-Amz-Signature=0f0f&x=1", '{"url": "https://a/b?TOKEN=eyJx"}'],
)
def test_the_token_of_a_signed_address_is_redacted(address: str) -> None:
    redacted = Redactor([])(address)
    assert not [part for part in ("eyJx", "0f0f") if part in redacted]


def test_two_secrets_with_the_same_beginning_are_both_redacted() -> None:
    assert Redactor(["secret-one", "secret-one-and-more"])("secret-one-and-more, secret-one") == "***, ***"
