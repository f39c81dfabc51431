"""The page of the embedded stack: ``examples/web`` unchanged, for one made-up user, and a few calls for the developer.

The calls that only a developer may make are under ``/developer``: rules, pause, explain, doctor. They require a token,
generated for this run, that is only in the printed address. Nothing of this module is ever deployed.
"""

from __future__ import annotations

import hmac
import secrets
import uuid
from typing import Any, Final

import psycopg
from flask import Flask, Response, jsonify, request, send_from_directory
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, ValidationError

from local.functions import ROOT, free_port
from local.postgres import SUPERUSER
from local.project import BUCKET
from local.server import Server
from local.stack import Stack

FOLDER: Final = ROOT / "examples" / "web"
# Its port, if it is free.
PORT: Final = 8190
_SHARE: Final = ROOT / "deploy" / "share_status.sql"
_PICTURE: Final = {
    "kind": "image",
    "options": {"width": 480, "format": "webp"},
    "destination": f"s3://{BUCKET}/processed/{{dir}}{{stem}}-480.webp",
}

_RULES: Final = """
select
  r.name, r.enabled, r.path, r.mimetype,
  coalesce(r.task ->> 'kind', 'automation ' || r.automation_id, 'run') as kind,
  (select string_agg(s.address, ', ') from ittybit.steps(r.task, r.run) as s) as destination
from ittybit.rules as r
order by r.name
"""
_ADD: Final = "insert into ittybit.rules (name, bucket_id, path, mimetype, task) values (%s, %s, %s, %s, %s)"
# While the rule exists: why each upload would not be processed (null if it would be), and where its result would go.
_TRIAL: Final = """
select
  o.name,
  case
    when not e.matches or j.skipped is not null then e.because
    when j.misplaced is not null then 'its result has no place'
  end as why_not,
  (
    select string_agg(s.address, ', ') from ittybit.steps(j.action -> 'task', j.action -> 'run') as s
  ) as destination
from storage.objects as o
join ittybit.rules as r on r.name = %s
cross join lateral ittybit.explain(o.bucket_id, o.name) as e
cross join lateral (select ittybit.fill_action(r, to_jsonb(o)) as action) as filled
cross join lateral (
  select
    filled.action,
    ittybit.reason_to_skip(to_jsonb(o)) as skipped,
    ittybit.reason_against_action(filled.action, to_jsonb(o)) as misplaced
) as j
where o.bucket_id = r.bucket_id and e.rule = r.name and coalesce(j.skipped, '') not like 'output%%'
order by 2 nulls first, o.created_at desc
limit 50
"""


class Rule(BaseModel):
    """A rule as the page's form sends it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    path: str = "**"
    mimetype: str | None = None
    kind: str
    options: dict[str, Any] = {}
    destination: str | None = None


class Switch(BaseModel):
    """Whether a rule is on."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool


class Page:
    """The page's server, from construction until ``close``.

    Attributes:
        origin: its scheme, host and port.
        address: the address to open: the origin, with the developer's token in the fragment, which no server sees.
        user: the made-up user's id.
    """

    def __init__(self, stack: Stack) -> None:
        self.user = str(uuid.uuid4())
        token = secrets.token_urlsafe(24)
        project = {
            "url": stack.supabase_url,
            "publishable_key": stack.keys.publishable_key,
            "bucket": BUCKET,
            "access_token": stack.keys.jwt("authenticated", self.user),
        }
        app = Flask("page", static_folder=None)
        self._server = Server(app, port=free_port(wanted=PORT))
        self.origin = self._server.origin
        self.address = f"{self.origin}/#developer={token}"
        _guard(app, self.origin, [stack.supabase_url, stack.ittybit_url])
        _serve_files(app, project)
        _serve_developer(app, stack, token)

    def close(self) -> None:
        """Stop listening."""
        self._server.close()


def set_up(stack: Stack) -> None:
    """Set up a project for the page: policies, the shared status, and a rule for pictures besides the demo's rules."""
    # A hosted project lets `postgres` make policies on storage.objects; plain PostgreSQL requires the table's owner.
    with psycopg.connect(stack.postgres.dsn(SUPERUSER)) as connection:
        connection.execute((FOLDER / "policies.sql").read_bytes())
    with psycopg.connect(stack.postgres.dsn("postgres")) as connection:
        connection.execute(_SHARE.read_bytes())
        connection.execute(_ADD, ["picture", BUCKET, "**", "image/*", Jsonb(_PICTURE)])


def _guard(app: Flask, origin: str, others: list[str]) -> None:
    """Answer under this address only, and let the page load only its own files and those of the services."""
    host = origin.removeprefix("http://")
    sources = " ".join(others)
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {sources};"
        f" img-src 'self' {sources}; media-src {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.before_request
    def refuse_other_names() -> tuple[str, int] | None:
        # Another site's name may resolve to this machine (DNS rebinding), and its page would read this page's data.
        return None if request.host == host else ("This is not that host.", 421)

    @app.after_request
    def protect(answer: Response) -> Response:
        answer.headers["Content-Security-Policy"] = policy
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["Cache-Control"] = "no-store"
        return answer


def _serve_files(app: Flask, project: dict[str, str]) -> None:
    @app.get("/")
    def index() -> Response:
        return send_from_directory(FOLDER, "index.html")

    @app.get("/<file>")
    def file(file: str) -> Response:
        return send_from_directory(FOLDER, file)

    @app.get("/project.json")
    def settings() -> Response:
        return jsonify(project)


def _serve_developer(app: Flask, stack: Stack, token: str) -> None:
    @app.before_request
    def authenticate() -> tuple[Response, int] | None:
        shown = request.headers.get("authorization", "")
        if request.path.startswith("/developer/") and not hmac.compare_digest(
            shown.encode(), f"Bearer {token}".encode()
        ):
            return jsonify(message="Open the address that make serve printed."), 401
        return None

    @app.errorhandler(psycopg.Error)
    def refuse(error: psycopg.Error) -> tuple[Response, int]:
        return jsonify(message=" ".join(filter(None, [error.diag.message_primary, error.diag.message_hint]))), 422

    @app.errorhandler(ValidationError)
    def misread(error: ValidationError) -> tuple[Response, int]:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return jsonify(message="; ".join(faults)), 422

    def ask(statement: str, *parameters: object) -> list[dict[str, Any]]:
        with psycopg.connect(stack.postgres.dsn("postgres"), row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def row(rule: Rule) -> list[object]:
        task = rule.model_dump(include={"kind", "options", "destination"}, exclude_none=True)
        return [rule.name, BUCKET, rule.path, rule.mimetype, Jsonb(task)]

    @app.get("/developer/rules")
    def rules() -> Response:
        [status] = ask("select s.value from ittybit.status as s where s.what = 'starting'")
        [paused] = ask("select s.paused or s.tripped_at is not null as paused from ittybit.settings as s")
        return jsonify(rules=ask(_RULES), starting=status["value"], **paused)

    @app.post("/developer/rules")
    def add() -> Response:
        ask(_ADD, *row(Rule.model_validate_json(request.get_data())))
        return jsonify({})

    @app.patch("/developer/rules/<name>")
    def switch(name: str) -> Response:
        enabled = Switch.model_validate_json(request.get_data()).enabled
        ask("update ittybit.rules as r set enabled = %s where r.name = %s", enabled, name)
        return jsonify({})

    @app.post("/developer/trial")
    def try_out() -> Response:
        rule = Rule.model_validate_json(request.get_data())
        with psycopg.connect(stack.postgres.dsn("postgres"), row_factory=dict_row) as connection:
            connection.execute(_ADD, row(rule))
            files = connection.execute(_TRIAL, [rule.name]).fetchall()
            connection.rollback()
        return jsonify(files=files)

    @app.post("/developer/<any(pause, resume):what>")
    def steer(what: str) -> Response:
        ask(f"select ittybit.{what}()")
        return jsonify({})

    @app.get("/developer/explain")
    def explain() -> Response:
        columns = "e.rule, e.matches, e.because, e.state, e.reason, e.error"
        return jsonify(rules=ask(f"select {columns} from ittybit.explain(%s, %s) as e", BUCKET, request.args["name"]))  # noqa: S608

    @app.get("/developer/doctor")
    def doctor() -> Response:
        return jsonify(lines=ask('select d."check", d.verdict, d.saw, d.remedy from ittybit.doctor() as d'))
