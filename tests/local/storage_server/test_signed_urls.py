from __future__ import annotations

import string
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest

from tests.local.storage_server.conftest import KEYS as PROJECT

LEGAL = string.ascii_letters + string.digits + "_/!-.*'() &$@=;:+,?"
KEYS = [f"k/x{character}y" for character in LEGAL] + ["/leading", "double//slash", "trailing/", LEGAL]


def put(client: httpx.Client, bucket: str, key: str) -> None:
    url = f"/object/{bucket}/{quote(key, safe='/')}"
    client.post(url, content=key.encode()).raise_for_status()


def signed_path(client: httpx.Client, bucket: str, encoded_key: str, seconds: int = 60) -> str:
    answer = client.post(f"/object/sign/{bucket}/{encoded_key}", json={"expiresIn": seconds})
    path: str = answer.raise_for_status().json()["signedURL"]
    return path


def by_token(bucket: str, key: str, path: str) -> str:
    return f"/object/sign/{bucket}/{quote(key, safe='/')}?token={path.rpartition('?token=')[2]}"


def test_every_legal_key_is_uploaded_signed_in_bulk_and_read(
    client: httpx.Client, anonymous: httpx.Client, bucket: str
) -> None:
    for key in KEYS:
        put(client, bucket, key)
    answer = client.post(f"/object/sign/{bucket}", json={"expiresIn": 60, "paths": [*KEYS, "none"]})
    *found, missing = answer.raise_for_status().json()
    assert [item["path"] for item in found] == KEYS
    for item in found:
        assert item["error"] is None
        read = anonymous.get(by_token(bucket, item["path"], item["signedURL"]) + "&job=1.2&x")
        assert (read.status_code, read.content) == (200, item["path"].encode())
    assert missing["signedURL"] is None
    assert missing["error"] == "Either the object does not exist or you do not have access to it"


@pytest.mark.parametrize("character", "+&=;,@:$?")
def test_a_fully_encoded_single_signing_request_signs_another_path(
    character: str, client: httpx.Client, anonymous: httpx.Client, bucket: str
) -> None:
    key = f"a{character}b c"
    put(client, bucket, key)
    refused = anonymous.get(by_token(bucket, key, signed_path(client, bucket, quote(key, safe="/"))))
    assert (refused.status_code, refused.json()["code"]) == (400, "InvalidSignature")
    if character != "?":
        path = signed_path(client, bucket, quote(key, safe="/;,:@&=+$!*'()"))
        assert path.startswith(f"/object/sign/{bucket}/{key}?token=")
        assert anonymous.get(by_token(bucket, key, path)).content == key.encode()


def test_a_signed_url_binds_the_path_and_not_the_version(
    client: httpx.Client, anonymous: httpx.Client, bucket: str
) -> None:
    put(client, bucket, "a")
    url = by_token(bucket, "a", signed_path(client, bucket, "a"))
    assert anonymous.head(url).headers["content-length"] == "1"
    assert anonymous.get(url, headers={"Range": "bytes=0-0"}).status_code == 206
    assert "expires" in anonymous.get(url).headers
    client.put(f"/object/{bucket}/a", content=b"new").raise_for_status()
    assert anonymous.get(url).content == b"new"
    client.delete(f"/object/{bucket}/a").raise_for_status()
    gone = anonymous.get(url)
    assert (gone.status_code, gone.json()["code"], gone.json()["statusCode"]) == (400, "NoSuchKey", "404")


@pytest.mark.parametrize(
    ("claims", "secret", "code", "message"),
    [
        ({"exp": 1}, PROJECT.jwt_secret, "InvalidJWT", '"exp" claim timestamp check failed'),
        ({"exp": 1 << 40}, PROJECT.jwt_secret[::-1], "InvalidJWT", "signature verification failed"),
        ({"exp": 1 << 40, "url": "another/a"}, PROJECT.jwt_secret, "InvalidSignature", "Invalid signature"),
        ({"url": None}, PROJECT.jwt_secret, "InvalidSignature", "Invalid signature"),
        ({"scope": "upload"}, PROJECT.jwt_secret, "InvalidSignature", "Token is not scoped for download"),
    ],
)
def test_an_invalid_token_is_refused(
    claims: dict[str, Any],
    secret: str,
    code: str,
    message: str,
    client: httpx.Client,
    anonymous: httpx.Client,
    bucket: str,
) -> None:
    put(client, bucket, "a")
    token = jwt.encode({"url": f"{bucket}/a", **claims}, secret, "HS256")
    refused = anonymous.get(f"/object/sign/{bucket}/a", params={"token": token})
    assert refused.status_code == 400
    assert (refused.json()["code"], refused.json()["message"]) == (code, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"expiresIn": 0}, "body/expiresIn: Input should be greater than or equal to 1"),
        ({"expiresIn": "x"}, "body/expiresIn: Input should be a valid integer"),
        ({}, "body/expiresIn: Field required"),
    ],
)
def test_an_expiry_below_a_second_is_refused(
    body: dict[str, Any], message: str, client: httpx.Client, bucket: str
) -> None:
    put(client, bucket, "a")
    for path, more in {f"{bucket}/a": {}, bucket: {"paths": ["a"]}}.items():
        answer = client.post(f"/object/sign/{path}", json=body | more)
        assert (answer.status_code, answer.json()["code"]) == (400, "InvalidRequest")
        assert answer.json()["message"].startswith(message)
