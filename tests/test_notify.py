"""docs/notify.md, pasted into a project: an app hears of finished jobs, and a failed call harms no job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask, request
from standardwebhooks import Webhook, WebhookVerificationError

from local.functions import ROOT
from local.media import make_clip
from local.postgres import Postgres
from local.project import BUCKET, Project
from local.server import Server
from local.stack import Stack
from tests import documents
from tests.database.project import database_of_its_own
from tests.waiting import until

SECRET, FUNCTION, CATCH_UP, STOP = documents.blocks((ROOT / "docs" / "notify.md").read_text(), "sql")
ADDRESS = "https://app.example.com/ittybit"
READ = "select decrypted_secret from vault.decrypted_secrets where name = 'app_webhook_secret'"


class App:
    """A small server that keeps the calls that it receives, with their headers."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        app = Flask(__name__)
        app.add_url_rule("/ittybit", view_func=self._receive, methods=["POST"])
        self.server = Server(app)

    def _receive(self) -> str:
        self.calls.append((dict(request.headers), request.get_data()))
        return "thanks"


@pytest.fixture
def app() -> Iterator[App]:
    app = App()
    with app.server:
        yield app


def test_an_app_is_notified_of_each_finished_job_and_of_nothing_else(app: App, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    make_clip(clip, seconds=1, size="320x240")
    with Stack.start(encode=False) as stack, closing(Project(stack)) as project:
        project.set_up()
        project.add_rule("refused", task={"kind": "nothing", "options": {}, "destination": f"s3://{BUCKET}/none"})
        with psycopg.connect(stack.postgres.dsn("postgres"), autocommit=True) as studio:
            for block in (SECRET, FUNCTION, FUNCTION):
                studio.execute(block.replace(ADDRESS, f"{app.server.origin}/ittybit").encode())
        project.upload(BUCKET, "clips/a.mp4", clip, "video/mp4")
        ended = "select count(*) from ittybit.jobs where state in ('succeeded', 'failed')"
        until(lambda: stack.sql(ended) == [(4,)], seconds=60)
        until(lambda: len(app.calls) == 4, seconds=20)

        [(secret,)] = stack.sql(READ)
        received: dict[str, dict[str, Any]] = {}
        for headers, body in app.calls:
            message = Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})
            received[message["job"]] = message
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(body + b" ", {name.lower(): value for name, value in headers.items()})
        columns = "job", "bucket", "name", "rule", "state", "reason", "outputs"
        rows = stack.sql("select id::text, bucket_id, name, rule, state, reason, outputs from ittybit.jobs")
        assert received == {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
        assert {"succeeded", "failed"} == {message["state"] for message in received.values()}
        assert len(stack.sql(CATCH_UP)) == 4

        stack.sql(STOP)
        project.upload(BUCKET, "clips/b.mp4", clip, "video/mp4")
        until(lambda: stack.sql(ended) == [(8,)], seconds=60)
        assert len(app.calls) == 4


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (
            "select vault.update_secret(id, 'x', 'another') from vault.secrets where name = 'app_webhook_secret'",
            "no rows",
        ),
        (
            "select vault.update_secret(id, 'not a secret') from vault.secrets where name = 'app_webhook_secret'",
            "base64",
        ),
        ("alter schema net rename to gone", 'schema "net" does not exist'),
        ("alter schema vault rename to gone", "does not exist"),
        ("lock table net.http_request_queue", "lock timeout"),
    ],
)
def test_a_report_counts_even_if_the_app_cannot_be_notified(server: Postgres, broken: str, says: str) -> None:
    with database_of_its_own(server, "uploads") as project:
        for block in (SECRET, FUNCTION):
            project.developer.execute(block.encode())
        project.sql("update ittybit.settings set project = 'https://ref.supabase.co'")
        project.rule()
        project.put("a.mp4")
        [lease] = project.claim()
        project.report(lease, "started", ittybit_id="runs/1")
        check = project.next_lease()
        project.service.add_notice_handler(project.note)
        with psycopg.connect(server.dsn("supabase_admin", project.name)) as breaking:
            breaking.execute(broken.encode())
            if not broken.startswith("lock"):
                breaking.commit()
            assert "refused" not in project.report(check, "succeeded", ittybit_id="runs/1")
            breaking.rollback()
        assert project.job()["state"] == "succeeded"
        [warning] = [one for one in project.warnings if one.startswith("the app is not told of job ")]
        assert says in warning
