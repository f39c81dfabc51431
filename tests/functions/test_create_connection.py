from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.functions.calling import Function
from tests.functions.project import Project

KEYS = {"access_key_id": "another-key-id", "secret_access_key": "another-secret-value", "region": "eu-central-1"}
Logged = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def none_yet(project: Project) -> Iterator[Project]:
    """The project before it has a connection; the one of the other tests is back afterwards."""
    [connection] = project.ittybit("GET", "connections")
    project.ittybit("DELETE", f"connections/{connection['id']}")
    yield project
    project.stack.ittybit_api.clear()
    for one in project.ittybit("GET", "connections"):
        project.ittybit("DELETE", f"connections/{one['id']}")
    fields = {name: value for name, value in connection.items() if name not in ("id", "object")}
    project.connection = str(project.ittybit("POST", "connections", json=fields)["id"])


def told(function: Function, body: dict[str, Any], expected: str) -> dict[str, Any]:
    """The connection in the answer, which must have this outcome and show no secret."""
    answer = function.ask(body)
    assert answer.status_code == 200, answer.text
    said = answer.get_json()
    assert said["outcome"] == expected
    assert said["connection"].keys() == {"id", "name", "endpoint", "region", "access_key_id", "is_default"}
    connection: dict[str, Any] = said["connection"]
    return connection


def test_the_project_s_keys_are_registered_once(none_yet: Project, create_connection: Function) -> None:
    stack = none_yet.stack
    made = told(create_connection, {}, "created")
    assert told(create_connection, {}, "unchanged") == made
    [kept] = none_yet.ittybit("GET", "connections")
    assert made["id"] == kept["id"]
    assert made["name"].startswith("supabase-127-0-0-1-")
    assert kept["endpoint"] == f"{stack.supabase_url}/storage/v1/s3"
    assert (kept["access_key_id"], kept["region"]) == (stack.keys.s3_access_key_id, "local")
    assert kept["secret_access_key"] == stack.keys.s3_secret_access_key
    assert (kept["kind"], kept["is_default"]) == ("s3", False)


@pytest.mark.parametrize("changed", [["access_key_id", "secret_access_key"], ["secret_access_key"], ["region"]])
def test_changed_keys_are_replaced_in_place(none_yet: Project, create_connection: Function, changed: list[str]) -> None:
    made = told(create_connection, {}, "created")
    replaced = told(create_connection, {name: KEYS[name] for name in changed}, "replaced")
    [kept] = none_yet.ittybit("GET", "connections")
    assert replaced["id"] == made["id"] == kept["id"]
    assert {name: kept[name] for name in changed} == {name: KEYS[name] for name in changed}


@pytest.mark.parametrize("status", [400, 404, 405])
def test_where_ittybit_does_not_change_keys_a_new_connection_takes_the_place(
    none_yet: Project, create_connection: Function, status: int
) -> None:
    made = told(create_connection, {}, "created")
    none_yet.stack.ittybit_api.add("PATCH", "/connections/.*", status=status)
    replaced = told(create_connection, KEYS, "replaced")
    [kept] = none_yet.ittybit("GET", "connections")
    assert replaced["id"] == kept["id"] != made["id"]
    assert kept["secret_access_key"] == KEYS["secret_access_key"]


def test_where_ittybit_ignores_the_change_a_new_connection_takes_the_place(
    none_yet: Project, create_connection: Function
) -> None:
    made = told(create_connection, {}, "created")
    none_yet.stack.ittybit_api.add("PATCH", "/connections/.*", status=200, body=made)
    replaced = told(create_connection, KEYS, "replaced")
    [kept] = none_yet.ittybit("GET", "connections")
    assert replaced["id"] == kept["id"] != made["id"]


@pytest.mark.parametrize("secret", ["", "****", "wJal…", "..."])
def test_a_secret_that_ittybit_masks_counts_as_the_same(
    none_yet: Project, create_connection: Function, secret: str
) -> None:
    made = told(create_connection, {}, "created")
    [kept] = none_yet.ittybit("GET", "connections")
    shown = {"data": [kept | {"secret_access_key": secret}]}
    none_yet.stack.ittybit_api.add("GET", "/connections", status=200, body=shown)
    assert told(create_connection, {}, "unchanged") == made


@pytest.mark.usefixtures("nobody_called")
def test_missing_keys_are_all_named(create_connection: Function) -> None:
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
def test_where_the_keys_go_is_not_for_the_caller_to_say(create_connection: Function, field: str) -> None:
    answer = create_connection.ask(KEYS | {field: "https://thief.example.com"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


def test_no_secret_is_in_an_answer_or_a_line_of_the_log(
    none_yet: Project, create_connection: Function, logged: Logged
) -> None:
    faults = none_yet.stack.ittybit_api
    answers = [create_connection.ask({}), create_connection.ask({}), create_connection.ask(KEYS)]
    secrets = (none_yet.stack.keys.s3_secret_access_key, KEYS["secret_access_key"])
    for secret, body in zip(secrets, ({}, KEYS), strict=True):
        for method in ("GET", "PATCH"):
            said = {"kind": f"no_{secret}", "message": f"secret_access_key {secret} is not one"}
            faults.add(method, "/connections.*", times=3, status=403, body=said)
            answers.append(create_connection.ask(body | {"region": "a-new-one"}))
            faults.clear()
    assert [answer.status_code for answer in answers] == [200, 200, 200, 503, 503, 503, 503]
    text = json.dumps([answer.text for answer in answers]) + json.dumps(logged())
    assert "secret_access_key *** is not one" in text
    assert not [secret for secret in secrets if secret in text]
