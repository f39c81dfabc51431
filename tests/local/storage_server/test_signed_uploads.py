from __future__ import annotations

from typing import Any

import httpx
import jwt
import pytest
from storage3 import SyncStorageClient
from storage3.exceptions import StorageApiError

from tests.local.storage_server.conftest import KEYS, SERVICE, Site


def token_for(client: httpx.Client, bucket: str, key: str, **headers: str) -> str:
    answer = client.post(f"/object/upload/sign/{bucket}/{key}", headers=headers).raise_for_status()
    token: str = answer.json()["token"]
    return token


def test_storage3_uploads_with_a_signed_url(site: Site, bucket: str) -> None:
    with httpx.Client(timeout=10) as http:
        signer = SyncStorageClient(f"{site.url}/", SERVICE, http_client=http).from_(bucket)
        uploader = SyncStorageClient(f"{site.url}/", {}, http_client=http).from_(bucket)
        token = signer.create_signed_upload_url("a b/c+d.mp4")["token"]
        options: Any = {"content-type": "video/mp4", "cache-control": "60"}
        assert uploader.upload_to_signed_url("a b/c+d.mp4", token, b"film", options).path == "a b/c+d.mp4"
        info = signer.info("a b/c+d.mp4")
        assert (info["content_type"], info["cache_control"], info["size"]) == ("video/mp4", "max-age=60", 4)
        with pytest.raises(StorageApiError, match="The resource already exists"):
            uploader.upload_to_signed_url("a b/c+d.mp4", token, b"film", options)
    *trials, real = [(fire["storage_operation"], fire["committed"]) for fire in site.fires()]
    assert trials == [("storage.object.sign_upload_url", False), ("storage.object.upload_signed", False)]
    assert real == ("storage.object.upload_signed", True)


def test_a_signed_url_overwrites_only_with_upsert(client: httpx.Client, anonymous: httpx.Client, bucket: str) -> None:
    client.post(f"/object/{bucket}/a", content=b"old").raise_for_status()
    refused = client.post(f"/object/upload/sign/{bucket}/a")
    assert refused.json()["code"] == "KeyAlreadyExists"
    token = token_for(client, bucket, "a", **{"x-upsert": "true"})
    answer = anonymous.put(f"/object/upload/sign/{bucket}/a", params={"token": token}, content=b"new")
    assert answer.json() == {"Key": f"{bucket}/a"}
    assert client.get(f"/object/{bucket}/a").content == b"new"


@pytest.mark.usefixtures("own_folder")
def test_a_user_signs_where_a_policy_allows_and_owns_the_uploaded_object(
    site: Site, user: tuple[httpx.Client, str], anonymous: httpx.Client, bucket: str
) -> None:
    theirs, sub = user
    assert theirs.post(f"/object/upload/sign/{bucket}/another/a").json()["code"] == "AccessDenied"
    token = token_for(theirs, bucket, f"{sub}/a")
    anonymous.put(f"/object/upload/sign/{bucket}/{sub}/a", params={"token": token}, content=b"x").raise_for_status()
    (row,) = site.rows()
    assert (row["rec"]["owner"], row["rec"]["owner_id"]) == (sub, sub)


@pytest.mark.parametrize(
    ("claims", "secret", "message"),
    [
        ({"url": "{bucket}/a", "scope": "upload"}, KEYS.jwt_secret[::-1], "signature verification failed"),
        ({"url": "{bucket}/b", "scope": "upload"}, KEYS.jwt_secret, "Invalid signature"),
        ({"url": "{bucket}/a", "scope": "download"}, KEYS.jwt_secret, "Token is not scoped for upload"),
        ({"url": "{bucket}/a"}, KEYS.jwt_secret, "Token is not scoped for upload"),
        ({"url": "{bucket}/a", "exp": 1}, KEYS.jwt_secret, '"exp" claim timestamp check failed'),
    ],
)
def test_a_token_that_is_not_for_this_upload_is_refused(
    claims: dict[str, Any], secret: str, message: str, site: Site, anonymous: httpx.Client, bucket: str
) -> None:
    token = jwt.encode(claims | {"url": claims["url"].format(bucket=bucket)}, secret, "HS256")
    refused = anonymous.put(f"/object/upload/sign/{bucket}/a", params={"token": token}, content=b"x")
    assert (refused.status_code, refused.json()["message"]) == (400, message)
    assert site.stored_files() == []


def test_an_upload_token_cannot_read(client: httpx.Client, anonymous: httpx.Client, bucket: str) -> None:
    token = token_for(client, bucket, "a")
    refused = anonymous.get(f"/object/sign/{bucket}/a", params={"token": token})
    assert refused.json()["message"] == "Token is not scoped for download"
