from __future__ import annotations

from typing import Any

import httpx
import pytest
from storage3 import SyncStorageClient

from tests.local.storage_server.conftest import SERVICE, MakeBucket, Site


def test_storage3_changes_and_empties_a_bucket(site: Site, client: httpx.Client, bucket: str) -> None:
    with httpx.Client(timeout=10) as http:
        storage = SyncStorageClient(f"{site.url}/", SERVICE, http_client=http)
        options: Any = {"public": True, "file_size_limit": "20MB"}
        assert storage.update_bucket(bucket, options) == {"message": "Successfully updated"}
        changed = storage.get_bucket(bucket)
        assert (changed.public, changed.file_size_limit, changed.allowed_mime_types) == (True, 20_000_000, None)
        for key in ("a", "b/c"):
            client.post(f"/object/{bucket}/{key}", content=b"x").raise_for_status()
        site.forget()
        assert storage.empty_bucket(bucket)["message"].startswith("Empty bucket has been queued.")
        assert storage.from_(bucket).list() == []
    assert [(fire["storage_operation"], fire["committed"]) for fire in site.fires()] == [("", True)] * 2
    assert site.stored_files() == []


def test_only_what_is_named_of_a_bucket_is_changed(client: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(public=True, file_size_limit=10, allowed_mime_types=["video/*"])
    client.put(f"/bucket/{bucket}", json={"allowed_mime_types": None}).raise_for_status()
    told = client.get(f"/bucket/{bucket}").json()
    assert (told["public"], told["file_size_limit"], told["allowed_mime_types"]) == (True, 10, None)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"name": "other"}, "400", "body must have required property 'public', body must have required property"),
        ({"public": "x"}, "400", "body/public must be boolean"),
        ({"allowed_mime_types": ["bad"]}, "415", "mime type bad is not supported"),
    ],
)
def test_a_change_that_cannot_be_is_refused(
    body: dict[str, Any], status: str, message: str, client: httpx.Client, bucket: str
) -> None:
    before = client.get(f"/bucket/{bucket}").json()
    refused = client.put(f"/bucket/{bucket}", json=body)
    assert (refused.status_code, refused.json()["statusCode"]) == (400, status)
    assert refused.json()["message"].startswith(message)
    assert client.get(f"/bucket/{bucket}").json() == before


def test_a_user_neither_changes_nor_empties_a_bucket(user: tuple[httpx.Client, str], bucket: str) -> None:
    theirs, _ = user
    assert theirs.put(f"/bucket/{bucket}", json={"public": True}).json()["code"] == "NoSuchBucket"
    refused = theirs.post(f"/bucket/{bucket}/empty")
    # Unlike nearly every other refusal this one has its status in HTTP too.
    assert (refused.status_code, refused.json()["message"]) == (403, "Access denied: Invalid role")


def test_a_full_bucket_is_not_deleted(client: httpx.Client, s3: Any, bucket: str) -> None:
    client.post(f"/object/{bucket}/a", content=b"x").raise_for_status()
    refused = client.delete(f"/bucket/{bucket}")
    assert (refused.status_code, refused.json()["code"]) == (400, "ResourceNotEmpty")
    with pytest.raises(s3.exceptions.ClientError) as over_s3:
        s3.delete_bucket(Bucket=bucket)
    told = over_s3.value.response
    assert (told["ResponseMetadata"]["HTTPStatusCode"], told["Code"]) == (409, "ResourceNotEmpty")


def test_s3_makes_and_deletes_a_bucket(client: httpx.Client, s3: Any) -> None:
    assert s3.create_bucket(Bucket="made-by-s3")["Location"] == "/made-by-s3"
    assert client.get("/bucket/made-by-s3").json()["public"] is False
    with pytest.raises(s3.exceptions.ClientError) as again:
        s3.create_bucket(Bucket="made-by-s3")
    assert again.value.response["Code"] == "BucketAlreadyExists"
    assert s3.delete_bucket(Bucket="made-by-s3")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert client.get("/bucket/made-by-s3").json()["code"] == "NoSuchBucket"


def test_only_the_list_of_buckets_tells_their_type(client: httpx.Client, bucket: str) -> None:
    assert "type" not in client.get(f"/bucket/{bucket}").json()
    assert {each["type"] for each in client.get("/bucket").json()} == {"STANDARD"}
