"""What a caller may do without a token, or with an invalid one."""

from __future__ import annotations

import time

import httpx
import jwt
import pytest

from tests.local.storage_server.conftest import KEYS, MakeBucket

EXPIRED = jwt.encode({"role": "service_role", "exp": time.time() - 1}, KEYS.jwt_secret, "HS256")
FORGED = jwt.encode({"role": "service_role", "exp": time.time() + 60}, KEYS.jwt_secret[::-1], "HS256")
NO_TOKEN = "headers must have required property 'authorization'"
REASONS = {
    None: NO_TOKEN,
    "garbage": "Invalid Compact JWS",
    FORGED: "signature verification failed",
    EXPIRED: '"exp" claim timestamp check failed',
}


def headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("token", REASONS, ids=["none", "garbage", "forged", "expired"])
def test_a_read_without_a_valid_token_finds_no_private_bucket(
    token: str | None, client: httpx.Client, anonymous: httpx.Client, bucket: str, make_bucket: MakeBucket
) -> None:
    opened = make_bucket(public=True)
    for each in (bucket, opened):
        client.post(f"/object/{each}/a", content=b"x").raise_for_status()
    for path in (f"/object/{bucket}/a", f"/object/info/{bucket}/a"):
        refused = anonymous.get(path, headers=headers(token))
        assert (refused.status_code, refused.json()["code"]) == (400, "NoSuchBucket")
    assert anonymous.get(f"/object/{opened}/a", headers=headers(token)).content == b"x"


@pytest.mark.parametrize("token", REASONS, ids=["none", "garbage", "forged", "expired"])
def test_other_requests_say_why_the_token_is_refused(token: str | None, anonymous: httpx.Client, bucket: str) -> None:
    status, code = ("400", "InvalidRequest") if token is None else ("403", "AccessDenied")
    for method, path in (
        ("GET", f"/object/authenticated/{bucket}/a"),
        ("POST", f"/object/{bucket}/a"),
        ("GET", "/bucket"),
    ):
        refused = anonymous.request(method, path, headers=headers(token))
        body = refused.json()
        assert (refused.status_code, body["statusCode"], body["code"]) == (400, status, code)
        assert body["message"] == REASONS[token]
