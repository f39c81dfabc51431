"""The signature: SQL and the library that the functions verify with agree on every vector and on a real call."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.database.project import SECRET, Project
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


def test_a_signature_depends_on_secret_id_time_and_body(database: Project) -> None:
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


@pytest.mark.parametrize("by", ["an upload", "pg_cron"])
def test_the_signature_of_a_queued_call_is_valid_for_its_body(waiting: Project, by: str) -> None:
    if by == "pg_cron":
        waiting.wake()
    else:
        waiting.claim()
        waiting.put("clips/a b & c.mp4")
    [request] = rows(waiting.superuser, "select headers, body from net.http_request_queue")
    headers = request["headers"]
    assert headers.keys() == {"Content-Type", "webhook-id", "webhook-timestamp", "webhook-signature"}
    body = bytes(request["body"])
    assert Webhook(SECRET).verify(body, headers) == {"type": "jobs.due"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"due", b"Due"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(base64.b64encode(b"another").decode()).verify(body, headers)


def test_each_call_has_its_own_id(database: Project) -> None:
    database.rule()
    database.put(*(f"{number}.mp4" for number in range(150)))
    database.wake()
    assert len({message["headers"]["webhook-id"] for message in database.messages()}) == 3


def test_a_calls_timestamp_is_when_it_was_made_not_when_its_transaction_began(database: Project) -> None:
    database.rule()
    elapsed = "select floor(extract(epoch from clock_timestamp())) - floor(extract(epoch from now())) as seconds"
    with database.writing("storage.object.upload") as connection:
        until(lambda: rows(connection, elapsed)[0]["seconds"])
        put(connection, "a.mp4")
        [began] = rows(connection, "select extract(epoch from now())::float8 as at")
    [message] = database.messages()
    assert int(message["headers"]["webhook-timestamp"]) > int(began["at"])
