"""For any name of an object, its address leads to that object, and its job is started or skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from shared import objects
from shared.errors import Skipped
from shared.http import Deadline
from shared.settings import load
from tests.functions import openapi_check
from tests.functions.calling import NOWHERE, WAKE_UP, Function
from tests.functions.project import Job, Project
from tests.functions.scripted import ORIGIN, Answer, Scripted
from tests.inputs import nasty, storable

NAMES = nasty()
STORAGE = "/storage/v1/object"


@given(bucket=NAMES, name=NAMES)
@example(bucket="private", name="../public/a")
@example(bucket="..", name="a")
def test_an_address_points_to_its_object_for_every_bucket_and_name(scripted: Scripted, bucket: str, name: str) -> None:
    scripted.script(storage=[Answer([{"signedURL": "/object/sign/x?token=t"}])])
    settings = load(NOWHERE | {"SUPABASE_URL": ORIGIN})
    for kind in ("public", "sign"):
        with suppress(Skipped):
            if kind == "public":
                address = objects.public_address(ORIGIN, bucket, name, "a.1")
            else:
                address = objects.signed_address(settings, bucket, name, "a.1", Deadline(5))
                [(_, path, asked)] = scripted.requests
                assert path == f"{STORAGE}/sign/{bucket}"
                assert json.loads(asked)["paths"] == [name]
            # As a client that fetches it reads it.
            read = httpx.URL(address)
            assert (read.scheme, read.host, read.fragment) == ("http", "scripted", "")
            assert unquote(read.raw_path.partition(b"?")[0].decode()) == f"{STORAGE}/{kind}/{bucket}/{name}"
            assert parse_qsl(read.query.decode())[-1] == ("job", "a.1")


def test_a_name_that_cannot_be_addressed_is_left_out_of_the_signing_call(scripted: Scripted) -> None:
    scripted.script(storage=[Answer([{"signedURL": "/object/sign/x?token=t"}])])
    names = [("a", "b.mp4"), ("a", "../b.mp4"), ("a", "b.mp4"), ("..", "c.mp4")]
    sources = objects.Sources(load(NOWHERE | {"SUPABASE_URL": ORIGIN}), names, Deadline(5))
    assert sources.address("a", "b.mp4", "a.1").endswith("/a/b.mp4?token=t&job=a.1")
    for bucket, name in (names[1], names[3]):
        with pytest.raises(Skipped, match="part"):
            sources.address(bucket, name, "a.1")
    assert [json.loads(asked)["paths"] for _, _, asked in scripted.requests] == [["b.mp4"]]


@given(key=NAMES, bucket=NAMES)
def test_an_accepted_destination_is_one_key_without_empty_or_dot_parts(key: str, bucket: str) -> None:
    with suppress(ValueError):
        destination = objects.check_destination(f"s3://{bucket}/{key}")
        read = "/".join(objects.split_destination(destination))
        assert read == f"{bucket}/{key}"
        assert not {"", ".", ".."} & set(read.removesuffix("/").split("/"))


@pytest.fixture
def storing(project: Project) -> Iterator[psycopg.Connection]:
    """A connection as the storage server; its objects are deleted afterwards."""
    with psycopg.connect(project.stack.postgres.dsn("supabase_storage_admin"), autocommit=True) as connection:
        connection.execute("set storage.allow_delete_query = 'true'")
        yield connection
        connection.execute("delete from storage.objects where metadata ->> 'eTag' = 'any'")


@pytest.fixture
def workers(project: Project) -> dict[str, Function]:
    """Both workers, each with a rule for the bucket ``private``."""
    Job.of_automation(project, "any/first.mp4")
    Job.of_task(project, "any/first.mp4")
    return {name: Function.make(name, project.stack.environment) for name in ("on-upload", "push-back")}


@settings(max_examples=20)
@given(name=storable().filter(bool), owner=storable(), metadata=st.dictionaries(st.text("ab"), storable(), max_size=2))
def test_a_job_of_any_object_is_started_or_skipped(
    project: Project,
    storing: psycopg.Connection,
    workers: dict[str, Function],
    name: str,
    owner: str,
    metadata: dict[str, Any],
) -> None:
    stored = {"size": 5, "mimetype": "video/mp4", **metadata, "eTag": "any"}
    storing.execute("delete from storage.objects where metadata ->> 'eTag' = 'any'")
    for table in ("jobs", "outputs", "starts"):  # without starts, no ceiling is reached
        project.stack.sql(f"delete from ittybit.{table}")  # noqa: S608 - constants
    storing.execute(
        "insert into storage.objects (bucket_id, name, version, owner_id, metadata)"
        " values ('private', %s, 'v1', %s, %s)"
        " on conflict (bucket_id, name) do update set version = 'v2'",
        [name, owner, Jsonb(stored)],
    )
    jobs = project.stack.sql("select id, function from ittybit.jobs where name = %s and state = 'queued'", (name,))
    [(is_passed_over,)] = project.stack.sql(
        "select ittybit.reason_to_skip(to_jsonb(o)) is not null from storage.objects as o where o.name = %s", (name,)
    )
    assert bool(jobs) != is_passed_over
    for one, function in jobs:
        answer = workers[function].tell(WAKE_UP)
        openapi_check.check(function, answer)
        # Not "retry": all services work.
        assert answer.get_json() in ({"claimed": 1, "started": 1}, {"claimed": 1, "skipped": 1})
        job = Job(project, str(one), name)
        assert (job["attempt"], job["claimed_at"]) == (1, None)
