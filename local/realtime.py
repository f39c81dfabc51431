"""Realtime's broadcasts from the database: users join channels over ``/realtime/v1/websocket`` and receive messages.

Follows supabase/realtime in the protocol (Phoenix channels, versions 1.0.0 and 2.0.0) and in its check of who may join
a private channel: it writes a message as the service, reads it as the user, and rolls back. Leaves out: presence,
postgres_changes, messages from clients, limits, tokens that expire later, and the binary frames of most 2.0.0 messages.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import psycopg
from flask import Blueprint, Response, g, request
from psycopg.rows import dict_row
from simple_websocket import ConnectionClosed, Server

from local.gateway import ProjectKeys
from local.json_web_tokens import InvalidToken
from local.postgres import SUPERUSER, Postgres

_WRITE = "insert into realtime.messages (topic, extension, private) values (%s, 'broadcast', true) returning id"
_BECOME = """
select set_config('role', %s, true), set_config('request.jwt.claims', %s, true), set_config('realtime.topic', %s, true)
"""
_READ = "select topic, event, payload, private from realtime.messages where id = %s"


@dataclass(frozen=True)
class _Channel:
    """One client's membership of one channel."""

    client: _Client
    name: str
    is_private: bool
    join_ref: str | None


class Realtime(Blueprint):
    """The route, and the thread that listens to the database until ``close``."""

    def __init__(self, postgres: Postgres, keys: ProjectKeys) -> None:
        super().__init__("realtime", __name__)
        self._postgres = postgres
        self._keys = keys
        self._channels: set[_Channel] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="realtime", daemon=True)
        self._listener.start()

    def close(self) -> None:
        """Stop listening, and end the connections."""
        self._closed.set()
        self._listener.join()
        with self._lock:
            clients = {channel.client for channel in self._channels}
        for client in clients:
            client.close()

    def join(self, client: _Client, topic: str, payload: dict[str, Any], join_ref: str | None) -> _Channel | str:
        """Let the client join a channel; return its membership, or why it is refused."""
        name = topic.removeprefix("realtime:")
        is_private = bool(payload.get("config", {}).get("private"))
        claims = client.claims
        token = payload.get("access_token")
        if token and token != client.apikey:
            try:
                claims = self._keys.claims(token)
            except InvalidToken as error:
                return f"InvalidJWTToken: {error}"
        if is_private and not self._may_read(claims, name):
            return f"Unauthorized: You do not have permissions to read from this Channel topic: {name}"
        channel = _Channel(client, name, is_private, join_ref)
        with self._lock:
            self._channels.add(channel)
        return channel

    def leave(self, channel: _Channel) -> None:
        """End the membership."""
        with self._lock:
            self._channels.discard(channel)

    def _may_read(self, claims: dict[str, Any], name: str) -> bool:
        try:
            with psycopg.connect(self._postgres.dsn(SUPERUSER)) as connection:
                written = connection.execute(_WRITE, [name]).fetchone()
                connection.execute(_BECOME, [claims["role"], json.dumps(claims), name])
                may = connection.execute(_READ, written).fetchone() is not None
                connection.rollback()
        except psycopg.Error:
            return False
        return may

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                with psycopg.connect(
                    self._postgres.dsn(SUPERUSER), autocommit=True, row_factory=dict_row
                ) as connection:
                    connection.execute("listen realtime_messages")
                    while not self._closed.is_set():
                        for notice in list(connection.notifies(timeout=0.5, stop_after=1)):
                            self._deliver(connection.execute(_READ, [notice.payload]).fetchone())
            except psycopg.OperationalError:
                # The server is gone; another one may come.
                self._closed.wait(0.5)

    def _deliver(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        with self._lock:
            receivers = [
                channel
                for channel in self._channels
                if (channel.name, channel.is_private) == (message["topic"], message["private"])
            ]
        payload = {"type": "broadcast", "event": message["event"], "payload": message["payload"]}
        for channel in receivers:
            channel.client.send(None, None, f"realtime:{channel.name}", "broadcast", payload)


class _Client:
    """One connection."""

    def __init__(self, socket: Server, apikey: str, claims: dict[str, Any], *, as_arrays: bool) -> None:
        self.apikey = apikey
        self.claims = claims
        self._socket = socket
        self._as_arrays = as_arrays
        self._sending = threading.Lock()

    def send(self, join_ref: str | None, ref: str | None, topic: str, event: str, payload: object) -> None:
        """Send one message, unless the client has gone."""
        if self._as_arrays:
            text = json.dumps([join_ref, ref, topic, event, payload])
        else:
            text = json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref})
        try:
            with self._sending:
                self._socket.send(text)
        except (ConnectionClosed, OSError):
            return

    def close(self) -> None:
        """End the connection."""
        try:
            self._socket.close()
        except (ConnectionClosed, OSError):
            return

    def serve(self, realtime: Realtime) -> None:
        """Answer until the client goes."""
        channels: dict[str, _Channel] = {}
        try:
            while True:
                self._answer(realtime, channels, self._socket.receive())
        except (ConnectionClosed, ValueError, KeyError, TypeError):
            # The client has gone, or does not speak the protocol.
            self.close()
        finally:
            for channel in channels.values():
                realtime.leave(channel)

    def _answer(self, realtime: Realtime, channels: dict[str, _Channel], text: str) -> None:
        message = json.loads(text)
        names = ("join_ref", "ref", "topic", "event", "payload")
        fields = dict(zip(names, message, strict=True)) if self._as_arrays else message
        topic, event, join_ref = fields["topic"], fields["event"], fields.get("join_ref")
        status = "ok"
        response: dict[str, object] = {}
        if event == "phx_join":
            joined = realtime.join(self, topic, fields["payload"], join_ref)
            if isinstance(joined, str):
                status, response = "error", {"reason": joined}
            else:
                channels[topic] = joined
                response = {"postgres_changes": []}
        elif event == "phx_leave" and topic in channels:
            realtime.leave(channels.pop(topic))
        elif event == "access_token":
            # A newer token: nothing to do, since no token's expiry is checked after the join.
            return
        self.send(join_ref, fields["ref"], topic, "phx_reply", {"status": status, "response": response})


class _Nothing(Response):
    """The answer to a request whose connection has been a WebSocket and is over."""

    def __call__(self, *_: object) -> Any:
        """Let the server drop the connection."""
        raise ConnectionResetError


def create_blueprint(postgres: Postgres, keys: ProjectKeys) -> Realtime:
    """Return the route, to be mounted at ``/realtime/v1``; the gateway has checked the key in the address."""
    blueprint = Realtime(postgres, keys)

    @blueprint.get("/websocket", websocket=True)
    def websocket() -> Response:
        socket = Server.accept(request.environ)
        claims = {"role": g.role, "sub": g.sub}
        as_arrays = request.args.get("vsn") == "2.0.0"
        _Client(socket, request.args.get("apikey", ""), claims, as_arrays=as_arrays).serve(blueprint)
        return _Nothing()

    return blueprint
