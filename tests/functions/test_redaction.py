from __future__ import annotations

from urllib.parse import quote

import pytest

from shared.edge import Call
from shared.redaction import Redactor
from shared.settings import load
from tests.functions.calling import NOWHERE

SECRET = 'a "secret"\\ with+all/of=it'


@pytest.mark.parametrize("form", [SECRET, quote(SECRET, safe=""), f"?key={quote(SECRET, safe='')}&x"])
def test_a_secret_is_taken_out_in_every_form(form: str) -> None:
    [[told]] = Redactor([SECRET]).within({"a": [f"before {form} after"]}).values()
    assert "***" in told
    assert not [part for part in ("secret", "all", "of") if part in told]


def test_a_cut_leaves_no_half_of_a_secret() -> None:
    call = Call(load(NOWHERE), Redactor([SECRET]))
    for place in range(480, 501):
        told = call.quote("." * (place - 400) + SECRET + " and more", "." * place + SECRET + " and more")
        assert "secr" not in told["kind"] + told["message"]
        assert (len(told["kind"]) <= 100, len(told["message"]) <= 500) == (True, True)


@pytest.mark.parametrize(
    "address",
    ["https://a/b?token=eyJx.y-z&job=1", "https://a/b?X-Amz-Signature=0f0f&x=1", '{"url": "https://a/b?TOKEN=eyJx"}'],
)
def test_a_signed_address_opens_nothing_any_more(address: str) -> None:
    told = Redactor([])(address)
    assert not [part for part in ("eyJx", "0f0f") if part in told]


def test_of_two_secrets_that_share_a_beginning_neither_is_left_in_part() -> None:
    assert Redactor(["secret-one", "secret-one-and-more"])("secret-one-and-more, secret-one") == "***, ***"
