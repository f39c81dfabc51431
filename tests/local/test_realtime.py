"""Channels of the stand-in Realtime, message by message; tests/front_end tests them with supabase-js."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from simple_websocket import Client, ConnectionClosed

from local.gateway import ProjectKeys, create_app
from local.postgres import SUPERUSER, Postgres
from local.realtime import create_blueprint
from local.server import Server

KEYS = ProjectKeys.make()
ADA = "8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e"
POLICY = (
    "create policy own on realtime.messages for select to authenticated using (realtime.topic() = auth.uid()::text)"
)


@pytest.fixture(scope="module")
def address(postgres: Postgres) -> Iterator[str]:
    with psycopg.connect(postgres.dsn(SUPERUSER)) as connection:
        connection.execute(POLICY)
    with (
        closing(create_blueprint(postgres, KEYS)) as realtime,
        Server(create_app(KEYS, {"/realtime/v1": realtime})) as server,
    ):
        yield f"{server.origin.replace('http', 'ws')}/realtime/v1/websocket?apikey={KEYS.publishable_key}"


@pytest.fixture
def say(address: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """Send a message over one connection, if there is one to send, and return the next one received."""
    with closing(Client(f"{address}&vsn=1.0.0")) as client:

        def say(event: str = "", topic: str = "", **payload: Any) -> dict[str, Any]:
            if event:
                client.send(json.dumps({"topic": topic, "event": event, "payload": payload, "ref": "1"}))
            text = client.receive(timeout=10)
            assert text is not None
            answer: dict[str, Any] = json.loads(text)
            return answer

        yield say


def joined(answer: dict[str, Any]) -> bool:
    assert answer["event"] == "phx_reply"
    return bool(answer["payload"]["status"] == "ok")


@pytest.mark.parametrize(
    ("topic", "token", "may"),
    [
        (ADA, KEYS.jwt("authenticated", ADA), True),
        ("other", KEYS.jwt("authenticated", ADA), False),
        (ADA, KEYS.publishable_key, False),
        (ADA, None, False),
        (ADA, ProjectKeys.make().jwt("authenticated", ADA), False),
    ],
    ids=["her own", "another's", "without a session", "without a token", "another project's session"],
)
def test_policies_decide_who_may_join_a_private_channel(
    say: Callable[..., dict[str, Any]], topic: str, token: str | None, may: bool
) -> None:
    answer = say("phx_join", f"realtime:{topic}", config={"private": True}, access_token=token)
    assert joined(answer) == may
    assert may or answer["payload"]["response"]["reason"].startswith(("Unauthorized: ", "InvalidJWTToken: "))


def test_a_channel_receives_messages_until_it_is_left(
    say: Callable[..., dict[str, Any]], database: psycopg.Connection
) -> None:
    def send(topic: str, word: str, *, private: bool) -> None:
        database.execute("select realtime.send(%s, 'e', %s, %s)", [json.dumps({"word": word}), topic, private])

    token = KEYS.jwt("authenticated", ADA)
    assert joined(say("phx_join", f"realtime:{ADA}", config={"private": True}, access_token=token))
    assert joined(say("phx_join", "realtime:open", config={}))
    for topic, word, private in (
        (ADA, "public, and not heard", False),
        ("open", "private, and not heard", True),
        ("elsewhere", "not heard", False),
        (ADA, "one", True),
        ("open", "two", False),
    ):
        send(topic, word, private=private)
    heard = [say(), say()]
    assert [(message["topic"], message["payload"]["payload"]["word"]) for message in heard] == [
        (f"realtime:{ADA}", "one"),
        ("realtime:open", "two"),
    ]
    assert joined(say("phx_leave", f"realtime:{ADA}"))
    send(ADA, "not heard", private=True)
    assert joined(say("heartbeat", "phoenix"))
    send("open", "three", private=False)
    assert say()["payload"]["payload"]["word"] == "three"


def test_a_client_that_breaks_the_protocol_is_disconnected(address: str) -> None:
    client = Client(f"{address}&vsn=2.0.0")
    client.send("hello")
    with pytest.raises(ConnectionClosed):
        client.receive(timeout=10)
