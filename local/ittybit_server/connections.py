"""``/connections``: S3 credentials. Every answer shows the secret, as in ittybit's documents.

Undocumented, so chosen here: creating one answers 201 and does not test the credentials; names may repeat; a new
default replaces the old one; deleting one answers 200 with its id.
"""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Blueprint, Response

from local.ittybit_server.bodies import ConnectionBody, parse, read_json
from local.ittybit_server.errors import find
from local.ittybit_server.paging import page
from local.ittybit_server.records import Connection, Records, new_id
from local.ittybit_server.serialization import Renderer


def connections(records: Records, renderer: Renderer, prefix: str) -> Blueprint:
    """The routes of connections, whose ids have this prefix."""
    part = Blueprint("connections", __name__)

    @part.post("/connections")
    def create_connection() -> Response:
        fields = parse(ConnectionBody, read_json()).model_dump()
        now = _now()
        connection = Connection(new_id(prefix), now, now, {})
        with records.lock:
            records.connections[connection.id] = connection
            _change(records, connection, fields)
            return renderer.answer(renderer.connection(connection), 201)

    @part.get("/connections")
    def list_connections() -> Response:
        with records.lock:
            shown, headers = page(records.connections)
            return renderer.answer([renderer.connection(one) for one in shown], headers=headers)

    @part.get("/connections/<connection_id>")
    def get_connection(connection_id: str) -> Response:
        with records.lock:
            return renderer.answer(renderer.connection(find("connection", records.connections, connection_id)))

    @part.patch("/connections/<connection_id>")
    def change_connection(connection_id: str) -> Response:
        changes = read_json()
        with records.lock:
            connection = find("connection", records.connections, connection_id)
            fields = parse(ConnectionBody, connection.fields | changes).model_dump()
            _change(records, connection, fields)
            connection.updated_at = _now()
            return renderer.answer(renderer.connection(connection))

    @part.delete("/connections/<connection_id>")
    def delete_connection(connection_id: str) -> Response:
        with records.lock:
            connection = find("connection", records.connections, connection_id)
            del records.connections[connection.id]
            return renderer.answer({"id": connection.id, "object": "storage_connection", "deleted": True})

    return part


def _change(records: Records, connection: Connection, fields: dict[str, object]) -> None:
    """Set the connection's fields. If it is the new default, no other one stays the default."""
    if fields["is_default"]:
        for other in records.connections.values():
            other.fields["is_default"] = False
    connection.fields = fields


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
