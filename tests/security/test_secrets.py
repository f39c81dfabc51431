"""Run everything once, with and without failures, and then search every place for the secrets."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from local.functions import ROOT, FunctionError, FunctionProcess, stage
from local.page import Page, set_up
from local.project import BUCKET, Project
from local.stack import Stack
from shared.ittybit import Ittybit
from tests.database.rows import Connection
from tests.functions.calling import JSON, Function, sign
from tests.security.searching import ALLOWED, Places, files, processes, secrets_of, tables
from tests.waiting import until

# Keep every call that pg_net is given: it deletes a call once it has made it.
KEEP_CALLS = """
create table public.calls (call text);
create function public.keep_call() returns trigger language plpgsql as
  $$ begin insert into public.calls values (new::text || convert_from(new.body, 'UTF8')); return null; end $$;
create trigger keep after insert on net.http_request_queue for each row execute function public.keep_call();
"""
# The job's error had a secret in it.
STARRED = "error ->> 'message' like '%%***%%'"
TASK = {"kind": "video", "options": {"height": 240}, "destination": f"s3://{BUCKET}/processed/{{name}}"}
# The places where a run leaves something. The others may be empty.
FILLED = {
    "answers",
    "command lines",
    "environments",
    "functions' code",
    "functions' output",
    "files of the stack",
    "staged files",
    "the doctor",
    "the server's log",
    "an unexpected error",
    "comments",
    "statements",
    "settings",
    "triggers",
    "cron.job",
    "cron.job_run_details",
    "ittybit.jobs",
    "ittybit.outputs",
    "ittybit.rules",
    "ittybit.settings",
    "ittybit.shared_files",
    "ittybit.starts",
    "ittybit.status",
    "net._http_response",
    "public.calls",
    "realtime.messages",
    "storage.buckets",
    "storage.objects",
}


@dataclass
class Run:
    """A stack on which everything happens, and what is kept of it for the search.

    Attributes:
        other: an S3 secret in a person's request.
        developer: the page's token for the developer.
        echo: a service's error with every secret. A cut to 500 characters halves one of them.
    """

    stack: Stack
    home: Path
    other: str = field(default_factory=lambda: secrets.token_hex(32))
    answers: list[str] = field(default_factory=list)
    fault: list[str] = field(default_factory=list)
    developer: str = ""

    def __post_init__(self) -> None:
        self.http = httpx.Client(trust_env=False, timeout=20)
        self.project = Project(self.stack)
        self.bearer = {"Authorization": f"Bearer {self.stack.token}", **JSON}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.project.close()

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets to search for, by name."""
        return {
            **secrets_of(self.stack),
            "the other S3 secret": self.other,
            "the developer's token": self.developer,
        }

    @property
    def echo(self) -> dict[str, str]:
        place = f"{self.stack.supabase_url}/storage/v1/object/sign/{BUCKET}/a.mp4"
        values = [*self.stack.environment.values(), self.other, f"{place}?token=eyJhbGciOiJIUzI1NiJ9.e30.{'s' * 43}"]
        message = f"{'.' * 460}{values[0]} {' '.join(values)} {json.dumps(values)}"
        # With the fields of ittybit's, the ledger's and Storage's errors.
        return {"kind": f"bad_{values[0]}", "code": f"bad_{values[0]}", "statusCode": "500", "message": message}

    def ask(self, name: str, body: Any, *, url: str = "", **headers: str) -> httpx.Response:
        """Call a function as a person does, at its own address or another, and keep the answer."""
        url = url or self.stack.functions[name].url
        return self.kept(self.http.post(url, json=body, headers=self.bearer | headers))

    def kept(self, answer: httpx.Response) -> httpx.Response:
        """Keep an answer."""
        self.answers.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer

    @contextmanager
    def failing(self, service: str, method: str, path: str, **fault: Any) -> Iterator[None]:
        """Let a service fail meanwhile."""
        faults = self.stack.ittybit_api if service == "ittybit" else self.stack.supabase
        made = faults.add(method, path, times=10**6, **fault)
        yield
        assert made.seen > 0, path
        faults.clear()

    def upload(self, name: str) -> None:
        clip = self.home / "clip"
        clip.write_bytes(secrets.token_bytes(200))
        self.project.upload(BUCKET, name, clip, "video/mp4")

    def jobs(self, name: str, where: str) -> bool:
        """Whether both jobs of an object meet a condition."""
        [(count,)] = self.stack.sql(f"select count(*) from ittybit.jobs where name = '{name}' and ({where})")  # noqa: S608
        return bool(count == 2)

    def uploaded(self, name: str, where: str) -> None:
        """Upload an object, and wait until its jobs meet a condition."""
        self.upload(name)
        until(lambda: self.jobs(name, where), seconds=30)

    def due_until(self, name: str, where: str) -> None:
        """Make all jobs due, again and again, until an object's jobs meet a condition."""

        def look() -> bool:
            self.stack.sql("update ittybit.jobs set due_at = now() where due_at is not null and claimed_at is null")
            self.stack.sql("select ittybit.wake_functions()")
            return self.jobs(name, where)

        until(look, seconds=30, every=0.7)


def happen(run: Run) -> None:
    """Let everything happen."""
    register(run)
    automation = run.project.create_automation({"name": "Copy", "workflow": [{"kind": "video"}]})
    run.project.add_rule("automation", automation_id=automation)
    run.project.add_rule("task", task=TASK)
    run.upload("well.mp4")
    run.due_until("well.mp4", "state = 'succeeded'")
    fail(run)
    people(run, automation)
    together(run, automation)
    page(run)
    exception(run)
    malformed_start(run)


def register(run: Run) -> None:
    """create-connection: refused with an echo, created, unchanged, with bad keys, changed and made anew."""
    run.project.create_bucket(BUCKET)
    with run.failing("ittybit", "GET", "/connections", status=403, body=run.echo):
        assert run.ask("create-connection", {}).status_code == 503
    assert run.ask("create-connection", {}).json()["outcome"] == "created"
    assert run.ask("create-connection", {}).json()["outcome"] == "unchanged"
    # ittybit returns the secret to a caller with its key.
    listed = run.http.get(
        f"{run.stack.ittybit_url}/connections", headers={"authorization": f"Bearer {run.stack.ittybit_key}"}
    )
    assert run.stack.keys.s3_secret_access_key in listed.text
    assert run.ask("create-connection", {"secret_access_key": run.other}).status_code == 422
    with run.failing("supabase", "GET", "/storage/v1/s3/.*", status=500, body=run.echo):
        assert run.ask("create-connection", {"secret_access_key": run.other}).status_code == 503
    changed = {"is_default": True}
    with run.failing("ittybit", "PATCH", "/connections/.*", status=500, body=run.echo):
        assert run.ask("create-connection", changed).status_code == 503
    with run.failing("ittybit", "PATCH", "/connections/.*", status=405, body=run.echo):
        assert run.ask("create-connection", changed).json()["outcome"] == "replaced"
    assert run.ask("create-connection", {"is_default": False}).json()["outcome"] == "replaced"


def fail(run: Run) -> None:
    """Let each step of jobs fail, with an echo of all secrets in each service's error."""
    start = r"/tasks|/automations/[^/]+/run"
    with run.failing("ittybit", "POST", start, status=400, body=run.echo):
        run.uploaded("refused.mp4", f"state = 'failed' and {STARRED}")
    with run.failing("ittybit", "POST", start, status=401, body=run.echo):
        run.uploaded("held.mp4", f"error ->> 'status' = '401' and {STARRED}")
    run.stack.sql("delete from ittybit.holds")
    with run.failing("ittybit", "POST", start, status=500, body=run.echo):
        run.uploaded("doubt.mp4", f"error ->> 'status' = '500' and in_doubt_since is not null and {STARRED}")
    with run.failing("ittybit", "GET", "/tasks", status=502, body=run.echo):
        run.due_until("doubt.mp4", f"error ->> 'status' = '502' and {STARRED}")
    with run.failing("supabase", "POST", "/storage/v1/object/sign/.*", status=500, body=run.echo):
        run.uploaded("unsigned.mp4", f"error ->> 'service' = 'storage' and {STARRED}")
    # The first claim succeeds, so that there is something to report.
    with run.failing("supabase", "POST", "/rest/v1/rpc/.*", at=range(1, 10**6), status=400, body=run.echo):
        run.upload("unreported.mp4")
        until(lambda: answered(run, "ledger: "), seconds=30)
    with run.failing("supabase", "POST", "/rest/v1/rpc/.*", status=401, body=run.echo):
        run.upload("unclaimed.mp4")
        until(lambda: answered(run, "does not accept the key"), seconds=30)
    ended = {"id": "x", "status": "failed", "error": run.echo}
    with run.failing("ittybit", "GET", "/(runs|tasks)/.*", status=200, body=ended):
        run.uploaded("ended.mp4", "state in ('started', 'failed')")
        run.due_until("ended.mp4", f"state = 'failed' and {STARRED}")


def answered(run: Run, words: str) -> bool:
    """Whether pg_net has received these words."""
    return bool(run.stack.sql("select 1 from net._http_response where content like '%%' || %s || '%%'", [words]))


def people(run: Run, automation: str) -> None:
    """Call functions as people do: with good requests, bad ones, and without authentication."""
    on_upload = {"bucket": BUCKET, "name": "well.mp4", "automation_id": automation}
    push_back = {"bucket": BUCKET, "name": "well.mp4", "kind": "video", "destination": f"s3://{BUCKET}/processed/p.mp4"}
    for name, body in (("on-upload", on_upload), ("push-back", push_back)):
        assert run.ask(name, body).status_code == 202
        for status in (400, 401, 403, 404, 500):
            with run.failing("ittybit", "POST", ".*", status=status, body=run.echo):
                run.ask(name, body)
        with run.failing("supabase", "POST", "/storage/.*", status=403, body=run.echo):
            assert run.ask(name, body).status_code == 503
        with run.failing("ittybit", "POST", ".*", drop="after"):
            assert run.ask(name, body).status_code == 503
        wrongs: list[Any] = [body | {"name": "../x"}, body | {"more": 1}, [], {"type": "jobs"}]
        for refused in wrongs:
            assert run.ask(name, refused).status_code == 422
        for wrong in (run.stack.environment["FUNCTIONS_SECRET"], "x" * 5000):
            assert run.ask(name, body, Authorization=f"Bearer {wrong}").status_code == 401
        raw = json.dumps(body).encode()
        signed = sign(run.stack.environment["FUNCTIONS_SECRET"], raw, at=0)
        answer = run.http.post(run.stack.functions[name].url, content=raw, headers=signed | JSON)
        run.answers.append(answer.text)
        assert answer.status_code == 401


def together(run: Run, automation: str) -> None:
    """Serve all functions from one process, which has every key, and send it good and bad requests."""
    stage("together")
    process = FunctionProcess("together", run.stack.environment, log=run.stack.directory / "together.log")
    try:
        process.wait_until_ready()
        file = {"bucket": BUCKET, "name": "well.mp4"}
        for name, body, method in (
            ("on-upload", file | {"automation_id": automation}, "POST"),
            ("push-back", file | {"kind": "video", "destination": f"s3://{BUCKET}/processed/t.mp4"}, "POST"),
            ("create-connection", {}, "GET"),
        ):
            url = f"{process.url}/{name}"
            assert run.ask(name, body, url=url).is_success
            with run.failing("ittybit", method, ".*", status=403, body=run.echo):
                assert run.ask(name, body, url=url).status_code == 503
            assert run.ask(name, run.echo, url=url).status_code == 422
        assert run.ask("elsewhere", run.echo, url=f"{process.url}/elsewhere").status_code == 404
    finally:
        process.stop()


def page(run: Run) -> None:
    """Let a user's file fail, and read that in the page, in the shared status and in the broadcast."""
    set_up(run.stack)
    with closing(Page(run.stack)) as page:
        run.developer = page.address.partition("=")[2]
        project = run.kept(run.http.get(f"{page.origin}/project.json")).json()
        user = {"apikey": project["publishable_key"], "Authorization": f"Bearer {project['access_token']}"}
        name = f"{page.user}/mine.mp4"
        with run.failing("ittybit", "POST", r"/tasks|/automations/[^/]+/run", status=400, body=run.echo):
            stored = run.http.post(
                f"{run.stack.supabase_url}/storage/v1/object/{BUCKET}/{name}",
                content=secrets.token_bytes(200),
                headers=user | {"content-type": "video/mp4"},
            )
            assert run.kept(stored).status_code == 200
            until(lambda: run.jobs(name, f"state = 'failed' and {STARRED}"), seconds=30)
        shared = run.kept(run.http.get(f"{run.stack.supabase_url}/rest/v1/ittybit_files", headers=user))
        assert shared.text.count("could not be processed") == 2
        assert run.stack.sql("select 1 from realtime.messages where payload ->> 'state' = 'failed'")
        developer = {"Authorization": f"Bearer {run.developer}"}
        for path in ("rules", "doctor", f"explain?name={name}"):
            assert run.kept(run.http.get(f"{page.origin}/developer/{path}", headers=developer)).status_code == 200
        assert "***" in run.answers[-1]
        assert run.kept(run.http.get(f"{page.origin}/developer/rules", headers=user)).status_code == 401


def exception(run: Run) -> None:
    """Raise an unexpected exception that has every secret in its message."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile("w+") as output:
        patch.setattr("sys.stdout", output)
        patch.setattr(Ittybit, "__init__", lambda *_: (_ for _ in ()).throw(LookupError(json.dumps(run.echo))))
        function = Function.make("on-upload", run.stack.environment)
        answer = function.ask({"bucket": BUCKET, "name": "well.mp4", "automation_id": "auto_1"})
        assert answer.status_code == 500
        output.seek(0)
        run.fault += [answer.text, output.read()]
        assert "LookupError" in run.fault[-1]


def malformed_start(run: Run) -> None:
    """Start a function with malformed keys."""
    keys = {name: value + " é" for name, value in run.stack.environment.items() if "URL" not in name}
    process = FunctionProcess("on-upload", keys, log=run.stack.directory / "malformed.log")
    with pytest.raises(FunctionError) as caught:
        process.wait_until_ready()
    run.fault.append(str(caught.value))


def search(run: Run, connection: Connection) -> Places:
    """Search every place."""
    places = Places(run.secrets)
    places.look("answers", run.answers)
    places.look("an unexpected error", run.fault)
    for name, texts in tables(connection):
        if name not in ALLOWED:
            places.look(name, texts)
    for path, text in files(run.home):
        places.look("functions' output" if path.suffix == ".log" else "files of the stack", text.splitlines())
    for _, text in files(ROOT / "build"):
        places.look("staged files", [text])
    places.look("the server's log", [run.stack.postgres._log.read_text(errors="replace")])
    for what, text in processes(run.stack):
        places.look(what, [text])
    return places


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The run, after everything has happened, with the stack still running."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        # The search finds what programs write to their default folders.
        patch.setattr(tempfile, "tempdir", str(home))
        patch.setitem(os.environ, "TMPDIR", str(home))
        patch.setitem(os.environ, "HOME", str(home))
        with Stack.start(encode=False, honour_idempotency=False) as stack:
            stack.sql("update ittybit.settings set output_prefixes = '{processed/}'")
            with Run(stack, home) as one:
                with superuser(one) as connection:
                    connection.execute(KEEP_CALLS.encode())
                happen(one)
                until(lambda: stack.sql("select 1 from cron.job_run_details"))
                yield one


@contextmanager
def superuser(run: Run) -> Iterator[Connection]:
    """Give a connection that sees everything."""
    with psycopg.connect(run.stack.postgres.dsn("supabase_admin"), autocommit=True, row_factory=dict_row) as connection:
        yield connection


def test_no_secret_is_anywhere_but_in_the_places_that_need_it(run: Run) -> None:
    with superuser(run) as connection:
        places = search(run, connection)
        assert places.findings == {}
        assert not {place for place in FILLED if not places.counts[place]}
        assert sum(places.counts.values()) > 1000
        # The search can find them: they are in the vault.
        vault = [text for name, texts in tables(connection) if name in ALLOWED for text in texts]
        assert any(run.secrets["the signing secret"] in text for text in vault)
    assert sum("***" in answer for answer in run.answers) >= 10


@pytest.mark.parametrize(
    "place",
    [
        "public.planted",
        "answers",
        *(pytest.param(place, marks=pytest.mark.variation) for place in ("files of the stack", "functions' output")),
    ],
)
def test_the_search_finds_planted_secrets(run: Run, place: str) -> None:
    secret = run.secrets["the S3 secret"][5:25]
    with superuser(run) as connection:
        try:
            match place:
                case "public.planted":
                    connection.execute("create table public.planted as select %s::text as note", [secret])
                case "files of the stack":
                    (run.stack.directory / "planted").write_text(secret)
                case "functions' output":
                    (run.stack.directory / "planted.log").write_text(f'{{"at": "?token=eyJ{secret}"}}')
                case _:
                    run.answers.append(secret)
            assert set(search(run, connection).findings) >= {place}
        finally:
            connection.execute("drop table if exists public.planted")
            for file in run.stack.directory.glob("planted*"):
                file.unlink()
            run.answers = [answer for answer in run.answers if answer != secret]
