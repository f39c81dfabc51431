"""An ittybit and what it needs: sources over http, S3 storage to write to, and a client."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import imageio_ffmpeg
from flask import Flask, abort, redirect
from werkzeug import Request, Response

from local.fault_injection import Faults
from local.ittybit_server import Ittybit
from local.server import Server
from tests.waiting import until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEY = "ittybit_test_key"
SECRET = "s3-secret-value"


@dataclass(frozen=True)
class Stored:
    """An object in the sink."""

    content: bytes
    mimetype: str | None
    authorization: str


class Sink:
    """S3 storage reduced to PUT and GET by path; it refuses the bucket ``forbidden``."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        key, content = request.path[1:], request.get_data()
        if key.startswith("forbidden/"):
            error = f"<Error><Code>AccessDenied</Code><Message>{SECRET}</Message></Error>"
            return Response(error, 403, mimetype="application/xml")
        if request.method == "PUT":
            authorization = request.headers["Authorization"]
            self.objects[key] = Stored(content, request.headers.get("Content-Type"), authorization)
            return Response(headers={"ETag": '"1"'})
        if key not in self.objects:
            return Response(status=404)
        return Response(self.objects[key].content, headers={"ETag": '"1"'})


class Stack:
    """Everything running, from construction to the end of the ``with`` block.

    Attributes:
        http: A client of the API that sends the key.
        sources: Origin of ``/files/<name>``, and of ``/moved/<name>``, which redirects there.
        source_faults: Faults in front of the sources.
        storage: The sink, at ``storage_origin``.
    """

    def __init__(self, media: Path, ittybit: Ittybit) -> None:
        self.ittybit = ittybit
        self.storage = Sink()
        self._media = media
        app = Flask(__name__)
        app.add_url_rule("/files/<name>", view_func=self._source)
        app.add_url_rule("/moved/<name>", "moved", view_func=lambda name: redirect(f"/files/{name}"))
        self.source_faults = Faults(app)
        with ExitStack() as running:
            self.sources = running.enter_context(Server(self.source_faults)).origin
            self.storage_origin = running.enter_context(Server(self.storage)).origin
            self.origin = running.enter_context(Server(ittybit.app)).origin
            headers = {"Authorization": f"Bearer {KEY}"}
            self.http = running.enter_context(httpx.Client(base_url=self.origin, headers=headers, timeout=10))
            ittybit.start()
            running.callback(ittybit.stop)
            running.callback(self.source_faults.close)
            self._running = running.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _source(self, name: str) -> bytes:
        path = self._media / name
        return path.read_bytes() if path.exists() else abort(404)

    def file(self, name: str) -> str:
        """The address of a source."""
        return f"{self.sources}/files/{name}"

    def get(self, path: str, **params: str | int) -> Any:
        """The JSON of a 200."""
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON of a 201."""
        answer = self.http.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def connect(self, **changes: object) -> str:
        """A connection to the sink; returns its id."""
        body = {
            "name": "sink",
            "kind": "s3",
            "endpoint": self.storage_origin,
            "region": "eu-west-1",
            "access_key_id": "key-id",
            "secret_access_key": SECRET,
        }
        connection_id: str = self.post("/connections", body | changes)["id"]
        return connection_id

    def ended(self, path: str) -> Any:
        """The task or run at this path, once it has ended."""
        ends = {"succeeded", "failed", "cancelled"}
        return until(lambda: (one := self.get(path))["status"] in ends and one, seconds=60)

    def task(self, kind: str, source: str, **fields: object) -> Any:
        """Create a task on a source, given by name or address; return it once it has ended."""
        url = source if "://" in source else self.file(source)
        created = self.post("/tasks", {"url": url, "kind": kind, **fields})
        return self.ended(f"/tasks/{created['id']}")

    def output(self, task: Any, tmp_path: Path) -> Path:
        """The task's result, downloaded without a key."""
        assert task["status"] == "succeeded", task["error"]
        (output,) = task["outputs"]
        path: Path = tmp_path / output["filename"]
        path.write_bytes(httpx.get(output["url"]).raise_for_status().content)
        assert path.stat().st_size == output["filesize"]
        return path


def picture(path: Path) -> dict[str, Any]:
    """What imageio-ffmpeg finds in a file: ``size``, ``duration``, ``fps``, ``codec``."""
    frames = imageio_ffmpeg.read_frames(str(path))
    try:
        found: dict[str, Any] = next(frames)
    finally:
        frames.close()
    return found


def ffmpeg(*arguments: str | Path) -> str:
    """Run ffmpeg; return what it prints."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr
