"""A Supabase developer's own steps on the embedded stack: a bucket, the connection, rules, an upload."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from psycopg.types.json import Jsonb

from local.stack import Stack

BUCKET = "media"
# The actions for every video in the bucket: a task that writes its output into the bucket, a run with a step that
# uploads its output there, and a task whose output stays at ittybit: in its own automation, if ittybit has automations.
TASK = {
    "kind": "video",
    "options": {"height": 720, "format": "mp4"},
    "destination": f"s3://{BUCKET}/processed/{{dir}}{{stem}}-720p.mp4",
}
RUN = {
    "tasks": [
        {
            "kind": "image",
            "options": {"width": 640, "format": "jpeg"},
            "next": [{"kind": "upload", "options": {"url": f"s3://{BUCKET}/processed/{{dir}}{{stem}}.jpeg"}}],
        }
    ]
}
KEPT = {"kind": "audio", "options": {"format": "mp3"}}


class Project:
    """A developer's steps over HTTP and SQL, against the stack's addresses."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._http = httpx.Client(trust_env=False, timeout=60)
        self._storage = f"{stack.supabase_url}/storage/v1"
        self._key = {"apikey": stack.keys.secret_key}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def create_bucket(self, bucket: str, *, public: bool = False) -> None:
        """Make a bucket."""
        body = {"id": bucket, "name": bucket, "public": public}
        self._http.post(f"{self._storage}/bucket", json=body, headers=self._key).raise_for_status()

    def upload(
        self, bucket: str, name: str, file: Path, mimetype: str, sent: Callable[[float], object] = lambda _: None
    ) -> None:
        """Store a file; ``sent`` is called with the part that has been sent, from 0 to 1."""
        size = file.stat().st_size
        headers = {**self._key, "content-type": mimetype, "content-length": str(size), "x-upsert": "true"}
        address = f"{self._storage}/object/{bucket}/{quote(name)}"

        def chunks() -> Iterator[bytes]:
            with file.open("rb") as body:
                while chunk := body.read(1 << 16):
                    yield chunk
                    sent(body.tell() / size)

        self._http.post(address, content=chunks(), headers=headers).raise_for_status()

    def fetch(self, address: str, file: Path) -> None:
        """Fetch a result into a file: from the bucket for ``s3://bucket/key``, otherwise from ittybit."""
        headers = {}
        if address.startswith("s3://"):
            address = f"{self._storage}/object/authenticated/{quote(address.removeprefix('s3://'))}"
            headers = self._key
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._http.stream("GET", address, headers=headers) as answer, file.open("wb") as body:
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                body.write(chunk)

    def create_connection(self) -> dict[str, Any]:
        """Call create-connection as a developer does, and return its answer."""
        headers = {"authorization": f"Bearer {self._stack.token}"}
        answer = self._http.post(self._stack.functions["create-connection"].url, json={}, headers=headers)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def action(self, task: dict[str, Any]) -> dict[str, Any]:
        """The task as a rule's action: an automation made for it, or the task itself if ittybit has no automations."""
        if self._stack.ittybit.api == "jobs":
            return {"task": task}
        return {"automation_id": self.create_automation({"name": "One task", "workflow": [task]})}

    def create_automation(self, automation: dict[str, Any]) -> str:
        """Make an automation at ittybit and return its id."""
        headers = {"authorization": f"Bearer {self._stack.ittybit_key}"}
        answer = self._http.post(f"{self._stack.ittybit_url}/automations", json=automation, headers=headers)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def add_rule(
        self,
        name: str,
        *,
        automation_id: str | None = None,
        task: dict[str, Any] | None = None,
        run: dict[str, Any] | None = None,
    ) -> None:
        """Add a rule that processes every video in the bucket."""
        self._stack.sql(
            "insert into ittybit.rules (name, bucket_id, mimetype, automation_id, task, run)"
            " values (%s, %s, 'video/*', %s, %s, %s)",
            (name, BUCKET, automation_id, task and Jsonb(task), run and Jsonb(run)),
        )

    def set_up(self) -> str:
        """Do all of it once: bucket, connection, rules; return the connection's id."""
        self.create_bucket(BUCKET)
        connection = self.create_connection()["connection"]["id"]
        self.add_rule("soundtrack", **self.action(KEPT))
        self.add_rule("video-720p", task=TASK)
        self.add_rule("still", run=RUN)
        return str(connection)
