from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.local.storage_server.conftest import KEY_ID, SECRET, MakeBucket, Site, s3_client

BYTES = bytes(range(256)) * 40
KEY = "s3/A z!'()*-._&$@=;:+,?/e.mp4"


def status(error: pytest.ExceptionInfo[ClientError]) -> int:
    code: int = error.value.response["ResponseMetadata"]["HTTPStatusCode"]
    return code


def test_an_object_is_put_read_described_and_deleted(s3: Any, bucket: str) -> None:
    place = {"Bucket": bucket, "Key": KEY}
    put = s3.put_object(**place, Body=BYTES, ContentType="video/mp4", CacheControl="max-age=9", Metadata={"K": "v"})
    got = s3.get_object(**place)
    assert got["Body"].read() == BYTES
    assert (got["ETag"], got["ContentType"], got["CacheControl"]) == (put["ETag"], "video/mp4", "max-age=9")
    assert got["Metadata"] == {"k": "v"}
    head = s3.head_object(**place)
    assert (head["ContentLength"], head["Metadata"], "AcceptRanges" in head) == (len(BYTES), {"k": "v"}, False)
    part = s3.get_object(**place, Range="bytes=3-6")
    assert (part["Body"].read(), part["ContentRange"]) == (BYTES[3:7], f"bytes 3-6/{len(BYTES)}")
    # Conditions on writes are ignored.
    assert s3.put_object(**place, Body=b"", IfNoneMatch="*")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert s3.delete_object(**place)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.delete_object(**place)["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_buckets_are_listed_and_described(s3: Any, bucket: str) -> None:
    assert bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "local"


def test_unknown_buckets_and_keys_are_a_404_with_a_namespaced_error(site: Site, s3: Any, bucket: str) -> None:
    for call, arguments, code in (
        (s3.get_object, {"Bucket": bucket, "Key": "none"}, "NoSuchKey"),
        (s3.put_object, {"Bucket": "none", "Key": "a", "Body": b""}, "NoSuchBucket"),
        (s3.list_objects_v2, {"Bucket": "none"}, "NoSuchBucket"),
        (s3.delete_object, {"Bucket": "none", "Key": "a"}, "NoSuchBucket"),
    ):
        with pytest.raises(ClientError) as refused:
            call(**arguments)
        assert status(refused) == 404
        # With the namespace, botocore finds the code in another place than usual.
        assert refused.value.response["Code"] == code
    with pytest.raises(ClientError) as missing:
        s3.head_object(Bucket=bucket, Key="none")
    assert status(missing) == 404
    raw = httpx.get(f"{site.url}/s3/{bucket}/none")
    assert (raw.status_code, raw.headers["content-type"]) == (403, "application/xml; charset=utf-8")
    assert '<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Resource>' in raw.text


@pytest.mark.parametrize(
    ("pair", "code"),
    [({"secret": SECRET[::-1]}, "SignatureDoesNotMatch"), ({"key_id": "another"}, "AccessDenied")],
)
def test_another_key_pair_is_refused(pair: dict[str, str], code: str, site: Site, bucket: str) -> None:
    stranger = s3_client(site, **pair)
    with pytest.raises(ClientError) as refused:
        stranger.put_object(Bucket=bucket, Key="a", Body=b"x")
    assert (status(refused), refused.value.response["Code"]) == (403, code)
    stranger.close()
    assert site.stored_files() == []


def test_a_key_is_added_and_revoked_while_the_server_runs(site: Site, bucket: str) -> None:
    client = s3_client(site, key_id="a-new-one", secret="its-own")
    with pytest.raises(ClientError) as unknown:
        client.list_objects_v2(Bucket=bucket)
    assert unknown.value.response["Message"] == "Invalid Access Key"
    site.s3.keys["a-new-one"] = "its-own"
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    del site.s3.keys["a-new-one"]
    with pytest.raises(ClientError):
        client.list_objects_v2(Bucket=bucket)
    client.close()


def test_a_project_may_have_s3_disabled(site: Site, s3: Any, bucket: str, client: httpx.Client) -> None:
    site.s3.enabled = False
    answer = client.get(f"/s3/{bucket}")
    with pytest.raises(ClientError) as refused:
        s3.list_objects_v2(Bucket=bucket)
    site.s3.enabled = True
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == answer.status_code == 403
    assert answer.json()["code"] == "FeatureNotEnabled"
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("region", ["auto", "us-east-1", "local"])
def test_generic_regions_are_accepted_unless_the_projects_own_is_enforced(region: str, site: Site, bucket: str) -> None:
    client = s3_client(site, region=region)
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    site.s3.region, site.s3.enforce_region = "elsewhere", True
    with pytest.raises(ClientError) as refused:
        client.list_objects_v2(Bucket=bucket)
    site.s3.region, site.s3.enforce_region = "local", False
    client.close()
    assert (refused.value.response["Code"], refused.value.response["Message"]) == ("AccessDenied", "Invalid Region")


def test_another_region_is_refused_like_another_secret(site: Site, bucket: str) -> None:
    client = s3_client(site, region="eu-west-1")
    with pytest.raises(ClientError) as refused:
        client.list_objects_v2(Bucket=bucket)
    client.close()
    assert (status(refused), refused.value.response["Code"]) == (403, "SignatureDoesNotMatch")


def test_a_request_changed_after_signing_is_refused(site: Site, bucket: str) -> None:
    request = AWSRequest("PUT", f"{site.url}/s3/{bucket}/a", headers={"x-amz-meta-k": "v"}, data=b"x")
    S3SigV4Auth(Credentials(KEY_ID, SECRET), "s3", "local").add_auth(request)
    changed = dict(request.headers) | {"x-amz-meta-k": "w"}
    assert httpx.put(f"{site.url}/s3/{bucket}/a", content=b"x", headers=changed).status_code == 403
    assert httpx.put(f"{site.url}/s3/{bucket}/b", content=b"x", headers=dict(request.headers)).status_code == 403
    assert httpx.put(f"{site.url}/s3/{bucket}/a", content=b"x", headers=dict(request.headers)).status_code == 200


def test_a_chunked_body_is_refused(site: Site, bucket: str) -> None:
    url = f"{site.url}/s3/{bucket}/a"
    request = AWSRequest("PUT", url, headers={"content-encoding": "aws-chunked"}, data=b"x")
    request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    request.url = url.replace("http:", "https:")  # botocore signs every payload over http
    S3SigV4Auth(Credentials(KEY_ID, SECRET), "s3", "local").add_auth(request)
    assert request.headers["X-Amz-Content-SHA256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    refused = httpx.put(url, content=b"1\r\nx\r\n0\r\n\r\n", headers=dict(request.headers))
    assert (refused.status_code, "NotImplemented" in refused.text, site.stored_files()) == (501, True, [])


def test_many_objects_are_listed_in_pages(s3: Any, bucket: str) -> None:
    names = ["a b/1", "a b/2", "a+b/3", "top", "Z"]
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=b"x")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [each["Key"] for page in pages for each in page["Contents"]] == sorted(names)
    level = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [each["Prefix"] for each in level["CommonPrefixes"]] == ["a b/", "a+b/"]
    assert [each["Key"] for each in level["Contents"]] == ["Z", "top"]
    assert level["KeyCount"] == 4
    below = s3.list_objects_v2(Bucket=bucket, Prefix="a b/", StartAfter="a b/1")
    assert [(each["Key"], each["Size"]) for each in below["Contents"]] == [("a b/2", 1)]
    levels = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}
    )
    found = [each["Prefix"] for page in levels for each in page.get("CommonPrefixes", ())]
    assert found == ["a b/", "a+b/"]


def test_an_object_is_copied(site: Site, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key=KEY, Body=BYTES, Metadata={"k": "v"})
    site.forget()
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": KEY})
    assert s3.get_object(Bucket=bucket, Key="copy")["Metadata"] == {"k": "v"}
    assert {fire["storage_operation"] for fire in site.fires()} == {"storage.s3.object.copy"}


def test_an_empty_key_that_ends_in_a_slash_is_a_folder(site: Site, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="folder/")
    assert site.fires()[-1]["name"] == "folder/.emptyFolderPlaceholder"


def test_a_large_file_arrives_in_parts(site: Site, s3: Any, bucket: str, tmp_path: Path) -> None:
    content = BYTES * 1100
    source = tmp_path / "large.mp4"
    source.write_bytes(content)
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    s3.upload_file(str(source), bucket, "large.mp4", Config=parts, ExtraArgs={"ContentType": "video/mp4"})
    fires = site.fires()
    assert len(fires) == 3 + 3
    assert [(fire["op"], fire["storage_operation"]) for fire in fires if fire["committed"]] == [
        ("INSERT", "storage.s3.upload.complete_multipart")
    ]
    assert all(fire["metadata"] == {"mimetype": "video/mp4"} for fire in fires if not fire["committed"])
    received = io.BytesIO()
    s3.download_fileobj(bucket, "large.mp4", received)
    assert received.getvalue() == content
    assert len(site.stored_files()) == 1


def test_a_multipart_upload_must_exist_and_have_its_parts(s3: Any, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(file_size_limit=10)
    place = {"Bucket": bucket, "Key": "a"}
    upload = {"UploadId": s3.create_multipart_upload(**place)["UploadId"]}
    named = {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": "0" * 32}]}}
    with pytest.raises(ClientError) as missing:
        s3.complete_multipart_upload(**place, **upload, **named)
    assert (status(missing), missing.value.response["Code"]) == (400, "MissingPart")
    with pytest.raises(ClientError) as large:
        s3.upload_part(**place, **upload, PartNumber=1, Body=b"x" * 11)
    assert (status(large), large.value.response["Code"]) == (413, "EntityTooLarge")
    for wrong in ({**place, "Key": "b", **upload}, {**place, "UploadId": "../.."}):
        with pytest.raises(ClientError) as unknown:
            s3.upload_part(**wrong, PartNumber=1, Body=b"x")
        assert (status(unknown), unknown.value.response["Code"]) == (404, "NoSuchUpload")
    s3.abort_multipart_upload(**place, **upload)


def test_keys_are_safe_on_disk(site: Site, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="/etc//" + "x" * 300, Body=b"x")
    assert len(site.stored_files()) == 1
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="a/../../b", Body=b"x")
    assert (status(refused), refused.value.response["Code"]) == (400, "InvalidKey")
