from __future__ import annotations

from typing import Any

import httpx
import pytest


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"public": "x"}, "400", "body/public: Input should be a valid boolean"),
        ({"file_size_limit": "20 apples"}, "400", "Invalid file size format, hint: use 20GB / 20MB / 30KB / 3B"),
        ({"id": "a/b"}, "400", "Bucket name invalid"),
    ],
)
def test_an_invalid_bucket_is_refused(body: dict[str, Any], status: str, message: str, client: httpx.Client) -> None:
    refused = client.post("/bucket", json={"name": "made"} | body)
    assert (refused.status_code, refused.json()["statusCode"]) == (400, status)
    assert refused.json()["message"].startswith(message)
    assert client.get("/bucket/made").json()["code"] == "NoSuchBucket"


def test_a_bucket_is_made_once_and_a_full_one_is_not_deleted(client: httpx.Client, bucket: str) -> None:
    again = client.post("/bucket", json={"name": bucket})
    assert (again.status_code, again.json()["code"]) == (400, "BucketAlreadyExists")
    client.post(f"/object/{bucket}/a", content=b"x").raise_for_status()
    refused = client.delete(f"/bucket/{bucket}")
    assert (refused.status_code, refused.json()["code"]) == (400, "ResourceNotEmpty")


def test_only_the_list_of_buckets_shows_their_type(client: httpx.Client, bucket: str) -> None:
    assert "type" not in client.get(f"/bucket/{bucket}").json()
    assert {each["type"] for each in client.get("/bucket").json()} == {"STANDARD"}
