"""Repeats what was recorded from storage-api v1.70.6: answers, trigger calls and rows must be the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.local.storage_server.conftest import MakeBucket, Site

PAYLOADS = Path(__file__).parents[2] / "payloads"
BUCKET = "uploads"
VARYING = {
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "etag": re.compile(r'"[0-9a-f]{32}"'),
    "time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+00:00)"),
}


def recording(name: str) -> dict[str, Any]:
    """The recording of one scenario: its request and answer if it used REST, trigger calls, committed rows."""
    loaded = json.loads((PAYLOADS / f"{name}.json").read_text())
    result = loaded["client_result"]
    return {
        "request": result.get("request") if isinstance(result, dict) else None,
        "answer": {key: result.get(key) for key in ("status", "body")} if isinstance(result, dict) else None,
        "fires": loaded["trigger_fires_including_rolled_back"],
        "rows": [{key: row[key] for key in row if key not in ("n", "at")} for row in loaded["committed_row_events"]],
    }


def labelled(value: Any, seen: dict[Any, str] | None = None) -> Any:
    """Replace ids, versions, tags and transactions by labels that say in which order they first occur.

    All times get the same label, because their order varies by milliseconds.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Mapping):
        return {
            key: seen.setdefault(("txid", value[key]), f"txid {len(seen)}")
            if key == "txid"
            else labelled(value[key], seen)
            for key in sorted(value)
        }
    if isinstance(value, list):
        return [labelled(item, seen) for item in value]
    for kind, pattern in VARYING.items():
        if isinstance(value, str) and pattern.fullmatch(value):
            return kind if kind == "time" else seen.setdefault(value, f"{kind} {len(seen)}")
    return value


def body(size: int) -> bytes:
    return (b"%d " % size * size)[:size]


def recorded_size(events: Mapping[str, Any]) -> int:
    return int(events["fires"][-1]["metadata"]["contentLength"])


def put(client: httpx.Client, key: str, size: int) -> None:
    headers = {"content-type": "video/mp4", "cache-control": "max-age=3600"}
    client.post(f"/object/{BUCKET}/{key}", content=body(size), headers=headers).raise_for_status()


def send(client: httpx.Client, expected: Mapping[str, Any], **content: Any) -> dict[str, Any]:
    asked = expected["request"]
    answer = client.request(asked["method"], asked["path"], headers=asked["headers"], **content)
    return {"status": answer.status_code, "body": answer.json()}


def seen_by_triggers(site: Site) -> dict[str, Any]:
    return {"fires": site.fires(), "rows": site.rows()}


def compare(site: Site, expected: Mapping[str, Any]) -> None:
    recorded = {"fires": expected["fires"], "rows": expected["rows"]}
    assert labelled(seen_by_triggers(site)) == labelled(recorded)


def nothing(_: httpx.Client) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "prepare"),
    [
        ("rest_upload_new", nothing),
        ("rest_upload_user_metadata", nothing),
        ("rest_zero_bytes", nothing),
        ("rest_emptyfolder", nothing),
        ("rest_upload_existing_upsert", lambda client: put(client, "clips/rest-new.mp4", 300_000)),
    ],
)
def test_an_upload_writes_the_recorded_rows(
    name: str,
    prepare: Callable[[httpx.Client], None],
    site: Site,
    client: httpx.Client,
    make_bucket: MakeBucket,
) -> None:
    make_bucket(BUCKET)
    prepare(client)
    site.forget()
    expected = recording(name)
    answer = send(client, expected, content=body(recorded_size(expected)))
    assert labelled(answer) == labelled(expected["answer"])
    compare(site, expected)


def test_a_move_changes_the_recorded_row(site: Site, client: httpx.Client, make_bucket: MakeBucket) -> None:
    make_bucket(BUCKET)
    put(client, "clips/copied.mp4", 300_000)
    site.forget()
    expected = recording("rest_move")
    places = {"bucketId": BUCKET, "sourceKey": "clips/copied.mp4", "destinationKey": "clips/moved.mp4"}
    assert send(client, expected, json=places) == expected["answer"]
    compare(site, expected)


def test_a_delete_removes_the_recorded_row(site: Site, client: httpx.Client, make_bucket: MakeBucket) -> None:
    make_bucket(BUCKET)
    put(client, "clips/moved.mp4", 300_000)
    site.forget()
    expected = recording("rest_delete")
    assert send(client, expected) == expected["answer"]
    compare(site, expected)


def test_a_resumable_upload_writes_the_recorded_rows(site: Site, client: httpx.Client, make_bucket: MakeBucket) -> None:
    make_bucket(BUCKET)
    expected, left, address = recording("tus_new"), body(7 << 20), "/upload/resumable"
    for step in json.loads((PAYLOADS / "tus_new.json").read_text())["client_result"]["steps"]:
        asked, recorded = step["request"], step["headers"]
        chunk, left = (left[: 6 << 20], left[6 << 20 :]) if asked["method"] == "PATCH" else (b"", left)
        answer = client.request(asked["method"], address, headers=asked["headers"], content=chunk)
        address = answer.headers.get("location", address)
        assert (answer.status_code, answer.text) == (step["status"], step["body"])
        assert {name: answer.headers[name] for name in recorded if name != "location"} == {
            name: value for name, value in recorded.items() if name != "location"
        }
        assert len(site.rows()) == step.get("rows_after_this_chunk", 0)
    compare(site, expected)


def test_s3_writes_the_recorded_rows(site: Site, s3: Any, make_bucket: MakeBucket) -> None:
    make_bucket(BUCKET)
    first, second = recording("s3_put_new"), recording("s3_put_overwrite")
    common = {"Bucket": BUCKET, "Key": "s3/put.mp4", "ContentType": "video/mp4"}
    s3.put_object(**common, Body=body(recorded_size(first)), Metadata={"src": "boto"})
    compare(site, first)
    site.forget()
    s3.put_object(**common, Body=body(recorded_size(second)))
    compare(site, second)


def test_an_aborted_multipart_upload_only_makes_trials(site: Site, s3: Any, make_bucket: MakeBucket) -> None:
    make_bucket(BUCKET)
    place = {"Bucket": BUCKET, "Key": "s3/aborted.mp4"}
    upload_id = s3.create_multipart_upload(**place, ContentType="video/mp4")["UploadId"]
    s3.upload_part(**place, UploadId=upload_id, PartNumber=1, Body=b"part")
    s3.abort_multipart_upload(**place, UploadId=upload_id)
    compare(site, recording("s3_multipart_aborted"))
    assert site.stored_files() == []
