from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from local.storage_server import S3Access
from tests.functions.calling import Function
from tests.functions.project import Project

KEYS = {"access_key_id": "another-key-id", "secret_access_key": "another-secret-value", "region": "us-east-1"}
S3 = "/storage/v1/s3/"
Logged = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def none_yet(project: Project) -> Iterator[Project]:
    """The project without a connection; that of the other tests is restored afterwards."""
    [connection] = project.ittybit("GET", "connections")
    project.ittybit("DELETE", f"connections/{connection['id']}")
    yield project
    project.stack.ittybit_api.clear()
    for one in project.ittybit("GET", "connections"):
        project.ittybit("DELETE", f"connections/{one['id']}")
    fields = {name: value for name, value in connection.items() if name not in ("id", "object")}
    project.connection = str(project.ittybit("POST", "connections", json=fields)["id"])


@pytest.fixture(autouse=True)
def access(project: Project) -> Iterator[S3Access]:
    """The project's S3 keys and settings, with a second pair of keys; they are restored afterwards."""
    access = project.stack.s3
    before = replace(access, keys=dict(access.keys))
    access.keys[KEYS["access_key_id"]] = KEYS["secret_access_key"]
    yield access
    access.keys, access.enabled, access.enforce_region = before.keys, before.enabled, before.enforce_region


def registered(function: Function, body: dict[str, Any], expected: str) -> dict[str, Any]:
    """Call the function and return the connection in its answer, which must have this outcome and no secret."""
    answer = function.ask(body)
    assert answer.status_code == 200, answer.text
    said = answer.get_json()
    assert said["outcome"] == expected
    assert said["connection"].keys() == {"id", "name", "endpoint", "region", "access_key_id", "is_default"}
    connection: dict[str, Any] = said["connection"]
    return connection


@pytest.mark.parametrize("bucket", ["my videos", "o'brien", ".."])
def test_a_bucket_that_s3_cannot_name_is_refused_before_any_call(
    none_yet: Project, create_connection: Function, bucket: str
) -> None:
    answer = create_connection.ask({"buckets": ["media", bucket]})
    assert answer.status_code == 422
    [fault] = answer.get_json()["errors"]
    assert (fault["field"], "cannot name bucket" in fault["message"]) == ("buckets.1", True)
    assert none_yet.ittybit("GET", "connections") == []


def test_the_project_s_keys_are_registered_once(none_yet: Project, create_connection: Function) -> None:
    stack = none_yet.stack
    made = registered(create_connection, {}, "created")
    assert registered(create_connection, {}, "unchanged") == made
    [kept] = none_yet.ittybit("GET", "connections")
    assert made["id"] == kept["id"]
    assert made["name"].startswith("supabase-127-0-0-1-")
    assert kept["endpoint"] == f"{stack.supabase_url}/storage/v1/s3"
    assert (kept["access_key_id"], kept["region"]) == (stack.keys.s3_access_key_id, "local")
    assert kept["secret_access_key"] == stack.keys.s3_secret_access_key
    assert (kept["kind"], kept["is_default"]) == ("s3", False)


@pytest.mark.parametrize("changed", [["access_key_id", "secret_access_key"], ["secret_access_key"], ["region"]])
def test_changed_keys_are_replaced_in_place(
    none_yet: Project, create_connection: Function, access: S3Access, changed: list[str]
) -> None:
    made = registered(create_connection, {}, "created")
    if "access_key_id" not in changed and "secret_access_key" in changed:
        access.keys[none_yet.stack.keys.s3_access_key_id] = KEYS["secret_access_key"]
    replaced = registered(create_connection, {name: KEYS[name] for name in changed}, "replaced")
    [kept] = none_yet.ittybit("GET", "connections")
    assert replaced["id"] == made["id"] == kept["id"]
    assert {name: kept[name] for name in changed} == {name: KEYS[name] for name in changed}


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_new_connection_replaces_the_old_one_when_ittybit_refuses_the_change(
    none_yet: Project, create_connection: Function, status: int
) -> None:
    made = registered(create_connection, {}, "created")
    none_yet.stack.ittybit_api.add("PATCH", "/connections/.*", status=status)
    replaced = registered(create_connection, KEYS, "replaced")
    [kept] = none_yet.ittybit("GET", "connections")
    assert replaced["id"] == kept["id"] != made["id"]
    assert kept["secret_access_key"] == KEYS["secret_access_key"]


def test_a_new_connection_replaces_the_old_one_when_ittybit_ignores_the_change(
    none_yet: Project, create_connection: Function
) -> None:
    made = registered(create_connection, {}, "created")
    none_yet.stack.ittybit_api.add("PATCH", "/connections/.*", status=200, body=made)
    replaced = registered(create_connection, KEYS, "replaced")
    [kept] = none_yet.ittybit("GET", "connections")
    assert replaced["id"] == kept["id"] != made["id"]


@pytest.mark.parametrize("secret", ["", "****", "wJal…", "..."])
def test_a_secret_that_ittybit_masks_counts_as_unchanged(
    none_yet: Project, create_connection: Function, secret: str
) -> None:
    made = registered(create_connection, {}, "created")
    [kept] = none_yet.ittybit("GET", "connections")
    shown = {"data": [kept | {"secret_access_key": secret}]}
    none_yet.stack.ittybit_api.add("GET", "/connections", status=200, body=shown)
    assert registered(create_connection, {}, "unchanged") == made


@pytest.mark.usefixtures("nobody_called")
def test_every_missing_key_is_named(create_connection: Function) -> None:
    names = ("SUPABASE_S3_ACCESS_KEY_ID", "SUPABASE_S3_SECRET_ACCESS_KEY", "SUPABASE_S3_REGION")
    bare = Function.make("create-connection", create_connection.environment, **dict.fromkeys(names))
    answer = bare.ask({"region": "local"})
    assert answer.status_code == 422
    fault = answer.get_json()
    assert [error["field"] for error in fault["errors"]] == ["access_key_id", "secret_access_key"]
    assert all(name in fault["detail"] for name in names[:2])
    assert names[2] not in fault["detail"]


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize("field", ["endpoint", "name", "kind"])
def test_the_caller_cannot_choose_where_the_keys_are_sent(create_connection: Function, field: str) -> None:
    answer = create_connection.ask(KEYS | {field: "https://thief.example.com"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


def test_no_secret_is_in_an_answer_or_a_line_of_the_log(
    none_yet: Project, create_connection: Function, access: S3Access, logged: Logged
) -> None:
    faults = none_yet.stack.ittybit_api
    answers = [create_connection.ask({}), create_connection.ask({}), create_connection.ask(KEYS)]
    access.keys[none_yet.stack.keys.s3_access_key_id] = KEYS["secret_access_key"]
    answers.append(create_connection.ask({}))
    access.keys[none_yet.stack.keys.s3_access_key_id] = none_yet.stack.keys.s3_secret_access_key
    secrets = (none_yet.stack.keys.s3_secret_access_key, KEYS["secret_access_key"])
    for secret, body in zip(secrets, ({}, KEYS), strict=True):
        for method in ("GET", "PATCH"):
            said = {"kind": f"no_{secret}", "message": f"secret_access_key {secret} is not one"}
            faults.add(method, "/connections.*", times=3, status=403, body=said)
            answers.append(create_connection.ask(body | {"region": "auto"}))
            faults.clear()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 503, 503, 503, 503]
    text = json.dumps([answer.text for answer in answers]) + json.dumps(logged())
    assert "secret_access_key *** is not one" in text
    assert not [secret for secret in secrets if secret in text]


def test_the_probe_leaves_no_object_and_starts_nothing(none_yet: Project, create_connection: Function) -> None:
    stack = none_yet.stack
    tasks = [
        Jsonb({"kind": "video", "options": {}, "destination": f"s3://private/processed/{rule}/{{name}}"})
        for rule in ("all", "probes")
    ]
    stack.sql(
        "insert into ittybit.rules (name, bucket_id, path, accept_s3, task) values"
        " ('all', 'private', '**', true, %s), ('probes', 'private', '.ittybit/**', true, %s)",
        tasks,
    )
    stack.supabase.requests = []
    registered(create_connection, {"buckets": ["private", "open", "private"]}, "created")

    asked = [(one.method, one.path.replace("/probe-", " ").split(" ")[0]) for one in stack.supabase.requests]
    for bucket in ("private", "open"):
        of_bucket = [(method, path) for method, path in asked if path.startswith(S3 + bucket)]
        probe = f"{S3}{bucket}/.ittybit"
        assert of_bucket == [("GET", S3 + bucket), ("PUT", probe), ("GET", probe), ("DELETE", probe)]
    assert stack.sql("select count(*) from storage.objects where name like '.ittybit/%%'") == [(0,)]
    assert stack.sql("select * from ittybit.jobs") == []
    assert stack.sql("select count(*) from net.http_request_queue") == [(0,)]


def test_without_buckets_only_a_listing_is_tried(none_yet: Project, create_connection: Function) -> None:
    none_yet.stack.supabase.requests = []
    registered(create_connection, {}, "created")
    [asked] = none_yet.stack.supabase.requests
    assert (asked.method, asked.path.startswith(f"{S3}probe-")) == ("GET", True)


@pytest.mark.usefixtures("none_yet")
def test_without_buckets_in_the_request_those_of_the_environment_are_tried(create_connection: Function) -> None:
    function = Function.make("create-connection", create_connection.environment, DESTINATION_BUCKETS="open,gone")
    answer = function.ask({})
    assert answer.status_code == 422
    assert answer.get_json()["detail"] == "buckets (DESTINATION_BUCKETS): the project has no bucket 'gone'."
    registered(function, {"buckets": ["open"]}, "created")
    registered(function, {"buckets": []}, "unchanged")


def test_every_faulty_bucket_is_named(none_yet: Project, create_connection: Function) -> None:
    none_yet.storage("POST", "bucket", json={"id": "pdf", "name": "pdf", "allowed_mime_types": ["application/pdf"]})
    answer = create_connection.ask({"buckets": ["gone", "open", "pdf"]})
    none_yet.storage("DELETE", "bucket/pdf")
    assert answer.status_code == 422
    assert answer.get_json()["errors"] == [
        {"field": "buckets", "message": "the project has no bucket 'gone'."},
        {
            "field": "buckets",
            "message": "bucket 'pdf' takes none of video/mp4, image/jpeg, audio/mpeg. Widen its allowed MIME types.",
        },
    ]
    assert none_yet.ittybit("GET", "connections") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"access_key_id": "revoked"}, "access_key_id"),
        ({"secret_access_key": "mistyped"}, "secret_access_key"),
        ({"region": "elsewhere"}, "region"),
        ({"buckets": ["gone"]}, "buckets"),
    ],
)
def test_keys_that_do_not_work_are_not_registered(
    none_yet: Project, create_connection: Function, access: S3Access, body: dict[str, Any], field: str
) -> None:
    access.enforce_region = True
    calls = none_yet.stack.ittybit_api.add(None, ".*", times=99, hang=0)
    answer = create_connection.ask(body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]
    variable = "DESTINATION_BUCKETS" if field == "buckets" else f"SUPABASE_S3_{field.upper()}"
    assert answer.get_json()["detail"].startswith(f"{field} ({variable}): ")
    assert "mistyped" not in answer.text
    assert calls.seen == 0


@pytest.mark.usefixtures("none_yet")
def test_a_secret_that_s3_echoes_is_redacted(create_connection: Function, project: Project) -> None:
    project.stack.supabase.add("GET", f"{S3}.*", status=403, body={"code": "mistyped_by_hand"})
    answer = create_connection.ask({"secret_access_key": "mistyped_by_hand"})
    assert answer.status_code == 422
    [error] = answer.get_json()["errors"]
    assert error == {"field": "access_key_id", "message": "S3 refuses the probe: HTTP 403 ***."}
    assert "mistyped_by_hand" not in answer.text


@pytest.mark.usefixtures("none_yet")
def test_the_keys_of_an_existing_connection_are_tried_too(create_connection: Function, access: S3Access) -> None:
    registered(create_connection, {}, "created")
    access.enabled = False
    answer = create_connection.ask({})
    assert answer.status_code == 422
    assert answer.get_json()["detail"] == (
        "endpoint (SUPABASE_S3_ENDPOINT): S3 is not enabled for the project. Switch it on in Dashboard > Storage > S3."
    )


def test_a_temporary_failure_of_s3_gets_503_with_retry_after(none_yet: Project, create_connection: Function) -> None:
    none_yet.stack.supabase.add("PUT", f"{S3}.*", status=503, body={})
    answer = create_connection.ask({"buckets": ["open"]})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "15")
    assert answer.get_json()["detail"] == (
        "s3: S3 did not answer as it should in bucket 'open': HTTP 503. "
        "Try again later; if that does not help, check SUPABASE_S3_ENDPOINT."
    )
    assert none_yet.ittybit("GET", "connections") == []


@pytest.mark.usefixtures("nobody_called")
@pytest.mark.parametrize("buckets", [["a/b"], [".."], ["a%"], ["b"] * 21, "open", [1]])
def test_malformed_buckets_are_refused(create_connection: Function, buckets: Any) -> None:
    answer = create_connection.ask({"buckets": buckets})
    assert answer.status_code == 422
    assert {error["field"].partition(".")[0] for error in answer.get_json()["errors"]} == {"buckets"}
