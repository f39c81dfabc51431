"""The signature: SQL and the library that the functions verify with agree on every vector and on a real call."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.database.project import SECRET, TASK, Project
from tests.database.rows import put, rows
from tests.waiting import until

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "signatures.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_sql_signs_as_the_vector_says(database: Project, vector: dict[str, Any]) -> None:
    signature = database.value(
        "select ittybit.sign(%s, %s, %s, %s)", vector["secret"], vector["id"], vector["timestamp"], vector["body"]
    )
    assert signature == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_the_library_signs_as_the_vector_says(vector: dict[str, Any]) -> None:
    moment = datetime.fromtimestamp(vector["timestamp"], UTC)
    assert Webhook(vector["secret"]).sign(vector["id"], moment, vector["body"]) == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["about"])
def test_the_library_accepts_what_sql_signs_now(database: Project, vector: dict[str, Any]) -> None:
    stamp = int(datetime.now(UTC).timestamp())
    signature = database.value(
        "select ittybit.sign(%s, %s, %s, %s)", vector["secret"], vector["id"], stamp, vector["body"]
    )
    headers = {"webhook-id": vector["id"], "webhook-timestamp": str(stamp), "webhook-signature": signature}
    body = vector["body"].encode()
    Webhook(vector["secret"]).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(vector["secret"]).verify(body + b" ", headers, json_parse=False)


def test_a_signature_is_of_everything_that_is_signed(database: Project) -> None:
    signed = {
        database.value("select ittybit.sign(%s, %s, %s, %s)", *parts)
        for parts in (
            (SECRET, "id", 1, "body"),
            ("whsec_b3RoZXI=", "id", 1, "body"),
            (SECRET, "other", 1, "body"),
            (SECRET, "id", 2, "body"),
            (SECRET, "id", 1, "body "),
        )
    }
    assert len(signed) == 5


@pytest.mark.parametrize("task", [None, TASK], ids=["by the trigger", "by the sender"])
def test_a_queued_call_verifies_over_the_bytes_that_leave(database: Project, task: dict[str, Any] | None) -> None:
    if task:
        database.rule(task=task)
    else:
        database.rule()
    database.settings(nudge=task is None)
    database.put("clips/a b & c.mp4")
    assert database.send() == (0 if task is None else 1)
    [request] = rows(database.superuser, "select headers, body from net.http_request_queue")
    job = database.job()
    headers = request["headers"]
    assert headers.keys() == {"Content-Type", "webhook-id", "webhook-timestamp", "webhook-signature"}
    assert headers["webhook-id"] == f"job_{job['id']}_1"
    body = bytes(request["body"])
    assert Webhook(SECRET).verify(body, headers) == {"job": str(job["id"]), "attempt": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"1", b"2"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(base64.b64encode(b"another").decode()).verify(body, headers)


def test_a_call_is_stamped_when_it_is_made_and_not_when_its_transaction_began(database: Project) -> None:
    database.rule()
    elapsed = "select floor(extract(epoch from clock_timestamp())) - floor(extract(epoch from now())) as seconds"
    with database.writing("storage.object.upload") as connection:
        until(lambda: rows(connection, elapsed)[0]["seconds"])
        put(connection, "a.mp4")
        [began] = rows(connection, "select extract(epoch from now())::float8 as at")
    [message] = database.messages()
    assert int(message["headers"]["webhook-timestamp"]) > int(began["at"])
