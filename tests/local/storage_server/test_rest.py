from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from storage3 import SyncStorageClient
from storage3.exceptions import StorageApiError

from tests.local.storage_server.conftest import SERVICE, MakeBucket, Site
from tests.waiting import until

BYTES = bytes(range(256)) * 40


def refusal(answer: httpx.Response) -> tuple[int, str, str, str]:
    """Return the HTTP status, and status, code and older name of the code in the body."""
    body = answer.json()
    return answer.status_code, body["statusCode"], body["code"], body["error"]


def put(
    client: httpx.Client,
    bucket: str,
    key: str,
    content: bytes = BYTES,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    client.post(f"/object/{bucket}/{key}", content=content, headers=headers).raise_for_status()


def test_storage3_works_with_buckets_and_objects(site: Site) -> None:
    with httpx.Client(timeout=10) as http:
        storage = SyncStorageClient(f"{site.url}/", SERVICE, http_client=http)
        options: Any = {"public": True, "file_size_limit": 1_000_000, "allowed_mime_types": ["video/*"]}
        storage.create_bucket("films", options=options)
        assert [bucket.id for bucket in storage.list_buckets()] == ["films"]
        films = storage.get_bucket("films")
        assert (films.public, films.file_size_limit, films.allowed_mime_types) == (True, 1_000_000, ["video/*"])
        files = storage.from_("films")
        uploaded: Any = {"content-type": "video/mp4", "cache-control": "60", "metadata": {"a": {"b": 1}}}
        assert files.upload("one/a b.mp4", BYTES, uploaded).full_path == "films/one/a b.mp4"
        assert files.download("one/a b.mp4") == BYTES
        info = files.info("one/a b.mp4")
        assert (info["content_type"], info["cache_control"]) == ("video/mp4", "max-age=60")
        assert (info["metadata"], info["size"], info["bucket_id"]) == ({"a": {"b": 1}}, len(BYTES), "films")
        files.copy("one/a b.mp4", "two/c.mp4")
        files.move("two/c.mp4", "three/d.mp4")
        assert [entry["name"] for entry in files.list()] == ["one", "three"]
        assert [entry["name"] for entry in files.list("three")] == ["d.mp4"]
        assert files.exists("three/d.mp4")
        files.update("three/d.mp4", b"new", uploaded)
        assert files.download("three/d.mp4") == b"new"
        signed = files.create_signed_url("three/d.mp4", 60)["signedURL"]
        assert signed is not None
        assert http.get(signed).content == b"new"
        with pytest.raises(StorageApiError):
            storage.delete_bucket("films")
        assert {row["name"] for row in files.remove(["one/a b.mp4", "three/d.mp4", "none"])} == {
            "one/a b.mp4",
            "three/d.mp4",
        }
        storage.delete_bucket("films")
    assert site.stored_files() == []


def test_json_names_its_charset_unless_it_is_a_stored_object(client: httpx.Client, bucket: str) -> None:
    named = "application/json; charset=utf-8"
    assert client.get("/bucket").headers["content-type"] == named
    assert client.get("/bucket/none").headers["content-type"] == named
    put(client, bucket, "a.json", b"{}", {"content-type": "application/json"})
    assert client.get(f"/object/{bucket}/a.json").headers["content-type"] == "application/json"


def test_info_says_how_long_the_object_may_be_cached(client: httpx.Client, bucket: str) -> None:
    put(client, bucket, "a", headers={"cache-control": "max-age=5"})
    info = client.get(f"/object/info/{bucket}/a")
    assert (info.json()["cache_control"], info.headers["cache-control"]) == ("max-age=5", "max-age=5")
    assert info.json()["etag"] == info.headers["etag"]


def test_an_object_is_read_whole_in_part_and_on_condition(client: httpx.Client, bucket: str) -> None:
    put(client, bucket, "a.mp4", headers={"content-type": "video/mp4", "cache-control": "max-age=5"})
    whole = client.get(f"/object/{bucket}/a.mp4")
    assert (whole.status_code, whole.content) == (200, BYTES)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["cache-control"] == "max-age=5"
    assert whole.headers["accept-ranges"] == "bytes"
    head = client.head(f"/object/authenticated/{bucket}/a.mp4")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BYTES)))
    for asked, expected in {"bytes=2-5": BYTES[2:6], "bytes=-3": BYTES[-3:], "bytes=10000-": BYTES[10000:]}.items():
        part = client.get(f"/object/{bucket}/a.mp4", headers={"Range": asked})
        assert (part.status_code, part.content) == (206, expected)
        assert part.headers["content-range"].endswith(f"/{len(BYTES)}")
    beyond = client.get(f"/object/{bucket}/a.mp4", headers={"Range": f"bytes={len(BYTES)}-"})
    assert refusal(beyond) == (416, "416", "InvalidRange", "invalid_range")
    unchanged = client.get(f"/object/{bucket}/a.mp4", headers={"If-None-Match": whole.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    saved = client.get(f"/object/{bucket}/a.mp4", params={"download": "my film.mp4"})
    assert saved.headers["content-disposition"].startswith("attachment; filename=my%20film.mp4;")


def test_not_found_is_http_400(client: httpx.Client, anonymous: httpx.Client, bucket: str) -> None:
    missing_key = (400, "404", "NoSuchKey", "not_found")
    missing_bucket = (400, "404", "NoSuchBucket", "Bucket not found")
    assert refusal(client.get(f"/object/{bucket}/none")) == missing_key
    assert refusal(client.get(f"/object/info/{bucket}/none")) == missing_key
    assert refusal(client.delete(f"/object/{bucket}/none")) == missing_key
    assert refusal(client.post(f"/object/sign/{bucket}/none", json={"expiresIn": 1})) == missing_key
    assert client.head(f"/object/{bucket}/none").status_code == 400
    for action in ("copy", "move"):
        places = {"bucketId": bucket, "sourceKey": "none", "destinationKey": "other"}
        assert refusal(client.post(f"/object/{action}", json=places)) == missing_key
    assert refusal(client.get("/object/no-such-bucket/none")) == missing_bucket
    assert refusal(client.post("/object/no-such-bucket/new", content=b"")) == missing_bucket
    assert refusal(client.get("/bucket/no-such-bucket")) == missing_bucket
    # A private bucket's public address does not reveal that the bucket exists.
    put(client, bucket, "a")
    assert refusal(anonymous.get(f"/object/public/{bucket}/a")) == missing_bucket
    assert refusal(anonymous.get(f"/object/{bucket}/a")) == missing_bucket


def test_everybody_may_read_a_public_bucket_and_not_write_to_it(
    client: httpx.Client, anonymous: httpx.Client, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket(public=True)
    put(client, bucket, "a")
    assert anonymous.get(f"/object/public/{bucket}/a").content == BYTES
    assert anonymous.get(f"/object/{bucket}/a").content == BYTES
    assert refusal(anonymous.post(f"/object/{bucket}/b", content=b"")) == (400, "400", "InvalidRequest", "Error")


def test_an_existing_key_needs_upsert(site: Site, client: httpx.Client, bucket: str) -> None:
    put(client, bucket, "a")
    site.forget()
    again = client.post(f"/object/{bucket}/a", content=b"new")
    assert refusal(again) == (400, "409", "KeyAlreadyExists", "Duplicate")
    assert site.fires() == []
    assert client.put(f"/object/{bucket}/a", content=b"new").status_code == 200
    assert client.get(f"/object/{bucket}/a").content == b"new"
    assert [fire["storage_operation"] for fire in site.fires()] == ["storage.object.upload_update"] * 2
    assert len(site.stored_files()) == 1


@pytest.mark.parametrize(
    "key", ["a%25b", "a%23b", "a~b", "%C3%A9", "a%0Ab", "a%5Bb", "a/%2E%2E/b", "a/%2E/b", "%2E%2E"]
)
def test_a_key_outside_the_legal_set_is_refused(key: str, client: httpx.Client, bucket: str) -> None:
    request = client.build_request("POST", f"/object/{bucket}/x", content=b"x")
    request.url = request.url.copy_with(raw_path=request.url.raw_path[:-1] + key.encode())
    assert refusal(client.send(request)) == (400, "400", "InvalidKey", "InvalidKey")


def test_the_buckets_limits_are_enforced(site: Site, client: httpx.Client, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(file_size_limit="1KB", allowed_mime_types=["video/*", "image/png"])
    too_large = client.post(f"/object/{bucket}/a", content=b"x" * 1001, headers={"content-type": "video/mp4"})
    assert refusal(too_large) == (400, "413", "EntityTooLarge", "Payload too large")
    wrong_type = client.post(f"/object/{bucket}/a", content=b"x", headers={"content-type": "image/jpeg"})
    assert refusal(wrong_type) == (400, "415", "InvalidMimeType", "invalid_mime_type")
    assert site.stored_files() == []
    put(client, bucket, "a", b"x" * 1000, headers={"content-type": "image/png"})
    put(client, bucket, "new/.emptyFolderPlaceholder", b"", headers={"content-type": "text/plain"})


def test_a_form_may_contain_the_file_and_its_metadata(site: Site, client: httpx.Client, bucket: str) -> None:
    answer = client.post(
        f"/object/{bucket}/a.mp4",
        data={"cacheControl": "60", "metadata": '{"title": "Hello"}'},
        files={"": ("a.mp4", BYTES, "video/mp4")},
    )
    assert answer.json()["Key"] == f"{bucket}/a.mp4"
    (trial, real) = site.fires()
    # The trial only knows the length of the request, which includes the form.
    assert trial["metadata"]["contentLength"] > len(BYTES)
    assert real["metadata"]["contentLength"] == len(BYTES)
    info = client.get(f"/object/info/{bucket}/a.mp4").json()
    assert (info["cache_control"], info["metadata"]) == ("max-age=60", {"title": "Hello"})


def test_a_body_of_unknown_length_is_stored(site: Site, client: httpx.Client, bucket: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (BYTES, BYTES)

    client.post(f"/object/{bucket}/a", content=pieces()).raise_for_status()
    assert client.get(f"/object/{bucket}/a").content == BYTES * 2
    assert site.fires()[0]["metadata"] == {"mimetype": "application/octet-stream"}


def test_malformed_metadata_is_ignored(client: httpx.Client, bucket: str) -> None:
    for index, value in enumerate(["!", base64.b64encode(b"[1]").decode(), base64.b64encode(b"\xff").decode()]):
        put(client, bucket, str(index), headers={"x-metadata": value})
        assert client.get(f"/object/info/{bucket}/{index}").json()["metadata"] == {}


def test_a_copy_is_an_insert_and_outlives_its_source(site: Site, client: httpx.Client, bucket: str) -> None:
    encoded = base64.b64encode(json.dumps({"k": "v"}).encode()).decode()
    put(client, bucket, "a", headers={"x-metadata": encoded, "content-type": "video/mp4"})
    site.forget()
    places = {"bucketId": bucket, "sourceKey": "a", "destinationKey": "b"}
    answer = client.post("/object/copy", json=places).json()
    assert answer["Key"] == f"{bucket}/b"
    assert [(fire["op"], fire["committed"]) for fire in site.fires()] == [("INSERT", False), ("INSERT", True)]
    assert site.fires()[0]["metadata"]["size"] == len(BYTES)
    info = client.get(f"/object/info/{bucket}/b").json()
    assert (info["metadata"], info["content_type"]) == ({"k": "v"}, "video/mp4")
    assert refusal(client.post("/object/copy", json=places))[2:] == ("KeyAlreadyExists", "Duplicate")
    client.delete(f"/object/{bucket}/a").raise_for_status()
    assert client.get(f"/object/{bucket}/b").content == BYTES


def test_a_move_onto_an_existing_key_is_refused(client: httpx.Client, bucket: str) -> None:
    put(client, bucket, "a", b"a")
    put(client, bucket, "b", b"b")
    places = {"bucketId": bucket, "sourceKey": "a", "destinationKey": "b"}
    assert refusal(client.post("/object/move", json=places))[1:] == ("409", "ResourceAlreadyExists", "Duplicate")
    assert client.get(f"/object/{bucket}/b").content == b"b"


def test_a_move_to_another_bucket_keeps_the_id(client: httpx.Client, bucket: str, make_bucket: MakeBucket) -> None:
    put(client, bucket, "a")
    before = client.get(f"/object/info/{bucket}/a").json()
    other = make_bucket()
    places = {"bucketId": bucket, "sourceKey": "a", "destinationBucket": other, "destinationKey": "a"}
    client.post("/object/move", json=places).raise_for_status()
    after = client.get(f"/object/info/{other}/a").json()
    assert after["id"] == before["id"]
    assert after["version"] != before["version"]
    assert client.get(f"/object/{other}/a").content == BYTES


def test_a_trigger_that_raises_breaks_the_upload(site: Site, client: httpx.Client, bucket: str) -> None:
    site.sql("""
        create function public.refuse() returns trigger language plpgsql as
          $$ begin if new.version <> '1' then raise exception 'no'; end if; return null; end $$;
        create trigger refuse after insert on storage.objects for each row execute function public.refuse()
    """)
    try:
        answer = client.post(f"/object/{bucket}/a", content=b"x")
    finally:
        site.sql("drop function public.refuse cascade")
    assert refusal(answer) == (500, "500", "DatabaseError", "DatabaseError")
    assert "P0001" in answer.json()["message"]
    assert site.stored_files() == []


def test_a_row_without_a_file_is_a_server_error(site: Site, client: httpx.Client, bucket: str) -> None:
    site.sql("insert into storage.objects (bucket_id, name) values (%s, 'by-hand')", bucket)
    assert client.get(f"/object/{bucket}/by-hand").status_code == 500


def test_a_reader_finishes_the_version_it_began(site: Site, client: httpx.Client, bucket: str) -> None:
    old, new = b"o" * 20_000_000, b"new"
    put(client, bucket, "a", old)
    with client.stream("GET", f"/object/{bucket}/a") as answer:
        pieces = answer.iter_bytes(1 << 16)
        begun = next(pieces)
        client.put(f"/object/{bucket}/a", content=new).raise_for_status()
        assert begun + b"".join(pieces) == old
    assert client.get(f"/object/{bucket}/a").content == new
    assert len(site.stored_files()) == 1


def test_two_uploads_of_one_new_key_both_succeed(site: Site, client: httpx.Client, bucket: str) -> None:
    def upload(content: bytes) -> int:
        def pieces() -> Iterator[bytes]:
            yield content
            # Send the rest after both trials, so that neither row is written before.
            until(lambda: len(site.noticed) >= 2)
            yield content

        return client.post(f"/object/{bucket}/a", content=pieces()).status_code

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(upload, [b"a" * 100_000, b"b" * 100_000])) == [200, 200]
    assert sorted(fire["op"] for fire in site.fires()) == ["INSERT", "INSERT", "INSERT", "UPDATE"]
    assert len(site.stored_files()) == 1


def test_connections_are_reused_and_replaced_when_the_server_ends_them(
    site: Site, client: httpx.Client, bucket: str
) -> None:
    put(client, bucket, "first")
    made = len(site.connections)
    for index in range(20):
        put(client, bucket, f"{index}")
    assert len(site.connections) == made
    site.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'supabase_storage_admin'")
    put(client, bucket, "after")
    assert len(site.connections) > made
