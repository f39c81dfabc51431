from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from tests.local.storage_server.conftest import KEYS, SERVICE, MakeBucket, Site
from tests.waiting import until

BYTES = bytes(range(256)) * 40
TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = TUS | {"Content-Type": "application/offset+octet-stream"}


def uploader(site: Site, headers: dict[str, str], bucket: str, key: str, **options: Any) -> Any:
    """A real client's uploader of ``BYTES``."""
    fields = {"bucketName": bucket, "objectName": key, "contentType": "video/mp4", "cacheControl": "3600"}
    client = TusClient(f"{site.url}/upload/resumable", headers)
    return client.uploader(file_stream=io.BytesIO(BYTES), metadata=fields | options, chunk_size=4096)


def metadata(**fields: str) -> dict[str, str]:
    pairs = (f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items())
    return {"Upload-Metadata": ",".join(pairs)}


def create(client: httpx.Client, bucket: str, key: str, length: int, **headers: str) -> str:
    """Create an upload and return its address."""
    fields = metadata(bucketName=bucket, objectName=key)
    asked = TUS | fields | {"Upload-Length": str(length)} | headers
    answer = client.post("/upload/resumable", headers=asked)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(client: httpx.Client, address: str, offset: int, content: Any, **headers: str) -> httpx.Response:
    return client.patch(address, headers=CHUNK | {"Upload-Offset": str(offset)} | headers, content=content)


def offset(client: httpx.Client, address: str) -> int:
    return int(client.head(address, headers=TUS).raise_for_status().headers["upload-offset"])


def test_tuspy_uploads_in_chunks(site: Site, client: httpx.Client, bucket: str) -> None:
    uploader(site, SERVICE, bucket, "a b/c.mp4", metadata=json.dumps({"k": "v"})).upload()
    assert client.get(f"/object/{bucket}/a b/c.mp4").content == BYTES
    info = client.get(f"/object/info/{bucket}/a b/c.mp4").json()
    assert (info["content_type"], info["cache_control"], info["metadata"]) == ("video/mp4", "max-age=3600", {"k": "v"})
    # One trial at the creation and one for each of three chunks. The last chunk writes the row.
    assert [(fire["op"], fire["committed"]) for fire in site.fires()] == [*[("INSERT", False)] * 4, ("INSERT", True)]
    assert len(site.stored_files()) == 1


def test_tuspy_resumes_where_it_was_interrupted(site: Site, client: httpx.Client, bucket: str) -> None:
    first = uploader(site, SERVICE, bucket, "a")
    first.upload_chunk()
    assert client.get(f"/object/{bucket}/a").json()["code"] == "NoSuchKey"
    second = TusClient(first.client.url, SERVICE).uploader(file_stream=io.BytesIO(BYTES), url=first.url)
    assert second.offset == 4096
    second.upload()
    assert client.get(f"/object/{bucket}/a").content == BYTES


def test_received_bytes_stay_when_the_client_disconnects(client: httpx.Client, bucket: str) -> None:
    address = create(client, bucket, "a", len(BYTES))

    def broken() -> Iterator[bytes]:
        yield BYTES[:1000]
        until(lambda: offset(client, address) == 1000)
        raise ConnectionError

    with pytest.raises(ConnectionError), httpx.Client(headers=SERVICE, timeout=10) as other:
        patch(other, address, 0, broken(), **{"Content-Length": str(len(BYTES))})
    assert patch(client, address, 1000, BYTES[1000:]).headers["tus-complete"] == "1"
    assert client.get(f"/object/{bucket}/a").content == BYTES
    # The client may have missed the last answer, and ask.
    assert offset(client, address) == len(BYTES)


def test_the_newest_of_two_requests_takes_over(client: httpx.Client, bucket: str) -> None:
    address = create(client, bucket, "a", 4)

    def slow() -> Iterator[bytes]:
        yield b"ab"
        until(lambda: offset(client, address) == 2)
        assert patch(client, address, 2, b"c").status_code == 204
        yield b"x"

    with ThreadPoolExecutor(1) as pool, httpx.Client(headers=SERVICE, timeout=10) as other:
        refused = pool.submit(patch, other, address, 0, slow(), **{"Content-Length": "3"}).result()
    assert (refused.status_code, refused.text) == (400, "Request aborted due to lock acquired")
    patch(client, address, 3, b"d").raise_for_status()
    assert client.get(f"/object/{bucket}/a").content == b"abcd"


def test_creation_may_send_the_first_bytes_or_all(site: Site, client: httpx.Client, bucket: str) -> None:
    def carry(key: str, length: int, content: bytes) -> httpx.Response:
        asked = CHUNK | metadata(bucketName=bucket, objectName=key) | {"Upload-Length": str(length)}
        return client.post("/upload/resumable", headers=asked, content=content)

    part, whole, empty = carry("part", 5, b"123"), carry("whole", 3, b"123"), carry("empty", 0, b"")
    assert [(each.status_code, each.headers.get("tus-complete")) for each in (part, whole, empty)] == [
        (201, None),
        (201, "1"),
        (201, "1"),
    ]
    assert offset(client, part.headers["location"]) == 3
    assert client.get(f"/object/{bucket}/whole").content == b"123"
    assert carry("more", 2, b"123").status_code == 413
    assert client.delete(part.headers["location"], headers=TUS).status_code == 204
    assert len(site.stored_files()) == 2


def test_a_terminated_upload_is_gone(site: Site, client: httpx.Client, bucket: str) -> None:
    address = create(client, bucket, "a", 5)
    assert client.delete(address, headers=TUS).status_code == 204
    for answer in (client.head(address, headers=TUS), patch(client, address, 0, b"x")):
        assert answer.status_code == 404
    assert site.stored_files() == []


def test_a_finished_upload_is_not_terminated(client: httpx.Client, bucket: str) -> None:
    address = create(client, bucket, "a", 0)
    refused = client.delete(address, headers=TUS | {"x-upsert": "true"})
    assert (refused.status_code, refused.text) == (400, "Cannot terminate an already completed upload")
    assert client.get(f"/object/{bucket}/a").status_code == 200


def test_every_request_of_an_overwrite_needs_the_upsert_header(site: Site, client: httpx.Client, bucket: str) -> None:
    client.post(f"/object/{bucket}/a", content=b"old").raise_for_status()
    before = client.get(f"/object/info/{bucket}/a").json()
    address = create(client, bucket, "a", 3, **{"x-upsert": "true"})
    assert patch(client, address, 0, b"new").status_code == 409
    site.forget()
    patch(client, address, 0, b"new", **{"x-upsert": "true"}).raise_for_status()
    assert [fire["op"] for fire in site.fires() if fire["committed"]] == ["UPDATE"]
    after = client.get(f"/object/info/{bucket}/a").json()
    assert (after["id"], client.get(f"/object/{bucket}/a").content) == (before["id"], b"new")
    assert len(site.stored_files()) == 1


def test_a_trigger_that_raises_ends_the_upload(site: Site, client: httpx.Client, bucket: str) -> None:
    site.sql("""
        create function public.refuse() returns trigger language plpgsql as
          $$ begin if new.version <> '1' then raise exception 'no'; end if; return null; end $$;
        create trigger refuse after insert on storage.objects for each row execute function public.refuse()
    """)
    try:
        address = create(client, bucket, "a", 1)
        assert patch(client, address, 0, b"x").status_code == 500
    finally:
        site.sql("drop function public.refuse cascade")
    assert client.head(address, headers=TUS).status_code == 410
    assert site.stored_files() == []


@pytest.mark.usefixtures("own_folder")
def test_a_user_uploads_where_a_policy_allows(site: Site, user: tuple[httpx.Client, str], bucket: str) -> None:
    _, sub = user
    theirs = {"Authorization": f"Bearer {KEYS.jwt('authenticated', sub)}"}
    uploader(site, theirs, bucket, f"{sub}/a").upload()
    assert {(fire["role"], fire["committed"]) for fire in site.fires()} == {
        ("authenticated", False),
        ("service_role", True),
    }
    (row,) = site.rows()
    assert (row["rec"]["owner"], row["rec"]["owner_id"]) == (sub, sub)
    with pytest.raises(TusCommunicationError) as refused:
        uploader(site, theirs, bucket, "another/a").upload()
    assert refused.value.status_code == 403
    assert refused.value.response_content == b"new row violates row-level security policy"


@pytest.mark.parametrize("token", [None, "garbage"])
def test_a_missing_or_invalid_token_is_refused_in_json(token: str | None, anonymous: httpx.Client) -> None:
    headers = TUS if token is None else TUS | {"Authorization": f"Bearer {token}"}
    refused = anonymous.post("/upload/resumable", headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (400, "Invalid Compact JWS")


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Tus-Resumable": ""}, 412, "Tus-Resumable Required\n"),
        ({"Tus-Resumable": "2.0.0"}, 400, "Invalid tus-resumable\n"),
        ({"Upload-Length": "-1"}, 400, "Invalid upload-length\n"),
        ({"Upload-Length": "1001"}, 413, "Maximum size exceeded\n"),
        ({"Upload-Metadata": "a b c"}, 400, "Invalid upload-metadata\n"),
        ({"Upload-Defer-Length": "1"}, 400, "Upload-Length or Upload-Defer-Length header required\n"),
        (metadata(bucketName="none", objectName="a"), 404, "Bucket not found"),
        (metadata(bucketName="", objectName="a"), 400, "Bucket name invalid"),
        (metadata(bucketName="videos", objectName="é"), 400, "Invalid key: é"),
        (
            metadata(bucketName="videos", objectName="a", contentType="image/png"),
            415,
            "mime type image/png is not supported",
        ),
    ],
)
def test_an_invalid_upload_is_not_created(
    headers: dict[str, str], status: int, text: str, site: Site, client: httpx.Client, make_bucket: MakeBucket
) -> None:
    make_bucket("videos", file_size_limit=1000, allowed_mime_types=["video/*"])
    fields = TUS | metadata(bucketName="videos", objectName="a") | {"Upload-Length": "5"} | headers
    refused = client.post("/upload/resumable", headers=fields)
    assert (refused.status_code, refused.text) == (status, text)
    assert site.stored_files() == []


@pytest.mark.parametrize(
    ("headers", "content", "status", "text"),
    [
        ({"Upload-Offset": "1"}, b"x", 409, "Upload-Offset conflict\n"),
        ({"Upload-Offset": "x"}, b"x", 400, "Invalid upload-offset\n"),
        ({"Upload-Offset": "0"}, b"123456", 413, "upload's size exceeded\n"),
        ({"Upload-Offset": "0", "Content-Type": "text/plain"}, b"x", 400, "Invalid content-type\n"),
        ({}, b"x", 403, "Upload-Offset header required\n"),
    ],
)
def test_an_invalid_chunk_changes_nothing(
    headers: dict[str, str], content: bytes, status: int, text: str, client: httpx.Client, bucket: str
) -> None:
    address = create(client, bucket, "a", 5)
    refused = client.patch(address, headers=CHUNK | headers, content=content)
    assert (refused.status_code, refused.text) == (status, text)
    assert offset(client, address) == 0
    client.delete(address, headers=TUS).raise_for_status()


def test_an_unknown_upload_is_not_found(client: httpx.Client, bucket: str) -> None:
    unknown = base64.urlsafe_b64encode(f"{bucket}/a/10ace93f-3225-4186-a13d-c947ca68590b".encode()).decode()
    for address in (unknown, "abc"):
        assert patch(client, f"/upload/resumable/{address}", 0, b"x").status_code == 404
