"""The server as one object: its HTTP application and its worker threads."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flask import Blueprint, Flask, Response, jsonify, request, send_from_directory
from werkzeug.exceptions import HTTPException

from local.ittybit_server.automations import automations
from local.ittybit_server.connections import connections
from local.ittybit_server.errors import RequestError
from local.ittybit_server.job_serialization import JobRenderer
from local.ittybit_server.jobs import jobs
from local.ittybit_server.journal import Entry
from local.ittybit_server.processing import Processing
from local.ittybit_server.records import Records
from local.ittybit_server.serialization import Renderer, Shapes
from local.ittybit_server.starting import Starting
from local.ittybit_server.tasks import tasks_and_runs

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_KINDS = {404: "not_found", 405: "method_not_allowed", 500: "internal_error"}


class Ittybit:
    """One ittybit with one project and one API key; started once and stopped once.

    Attributes:
        app: The HTTP API, for ``local.server.Server``; it answers and accepts work even before ``start``.
        api: The argument of that name.

    Args:
        api_key: The only key.
        directory: Where results (kept) and temporary files (removed) go; created if missing.
        results_origin: Origin of the results' addresses, if not the one that requests are sent to.
        workers: How many tasks run at once.
        honour_idempotency: Whether Idempotency-Key has an effect.
        encode: Whether media are processed; if not, every task's output is its source, for load tests.
        shapes: Which variants of the documents to render.
        api: The generations of the API that it speaks. Paths of the other one answer 404.
    """

    def __init__(
        self,
        *,
        api_key: str,
        directory: Path,
        results_origin: str | None = None,
        workers: int = 2,
        honour_idempotency: bool = True,
        encode: bool = True,
        shapes: Shapes | None = None,
        api: Literal["automations", "jobs", "both"] = "automations",
    ) -> None:
        self.api = api
        directory = directory.absolute()
        results = directory / "results"
        results.mkdir(parents=True, exist_ok=True)
        self._records = Records()
        self._processing = Processing(self._records, directory, workers=workers, encode=encode)
        renderer = Renderer(shapes or Shapes(), results_origin)
        self._starting = Starting(
            self._records, renderer, self._processing.submit, honour_idempotency=honour_idempotency
        )
        parts = [connections(self._records, renderer, "conn" if api == "jobs" else "con")]
        if api != "jobs":
            parts.append(tasks_and_runs(self._records, renderer, self._starting))
            parts.append(automations(self._records, renderer, self._starting))
        if api != "automations":
            parts.append(jobs(self._records, JobRenderer(renderer), self._starting))
        self.app: WSGIApplication = _application(api_key, results, parts)

    @property
    def journal(self) -> list[Entry]:
        """The accepted starts, oldest first."""
        with self._records.lock:
            return list(self._starting.journal)

    @property
    def failed(self) -> set[str]:
        """The ids of the jobs, runs and tasks that failed."""
        with self._records.lock:
            tasks = {task.id for task in self._records.tasks.values() if task.status == "failed"}
            runs = (*self._records.runs.values(), *self._records.jobs.values())
            return tasks | {run.id for run in runs if run.status == "failed"}

    def require_payment(self, required: bool) -> None:
        """Set whether every new start is refused with 402 ``payment_required``."""
        with self._records.lock:
            self._starting.payment_required = required

    def start(self) -> None:
        """Begin to work on tasks."""
        self._processing.start()

    def pause(self) -> None:
        """Cancel the tasks that wait for ``start``, and let new ones wait for it."""
        self._processing.pause()

    def stop(self) -> None:
        """Stop running work, cancel its tasks and remove temporary files; return when no thread is left."""
        self._processing.stop()


def _application(api_key: str, results: Path, parts: list[Blueprint]) -> Flask:
    """The application. Requests need this API key, except those for results, which ittybit's CDN serves publicly."""
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined] # of the default provider

    @app.before_request
    def check_key() -> None:
        if request.endpoint == "result":
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise RequestError(401, "token_missing", "Send the API key as a bearer token.")
        if not hmac.compare_digest(key.encode(), api_key.encode()):
            raise RequestError(401, "token_invalid", "The API key is not valid.")

    @app.get("/results/<path:name>")
    def result(name: str) -> Response:
        return send_from_directory(results, name)

    @app.errorhandler(RequestError)
    def refused(error: RequestError) -> tuple[Response, int]:
        return jsonify(kind=error.kind, message=error.message), error.status

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        kind = _KINDS.get(status, "request_invalid")
        return jsonify(kind=kind, message=error.description), status

    for part in parts:
        app.register_blueprint(part)
    return app
