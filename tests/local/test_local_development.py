"""Runs the commands of docs/local-development.md in order, with the embedded stack as `supabase start`'s project."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import local.postgres
import local.stack
from deploy.env_file import read
from local.functions import ROOT, FunctionError, free_port
from local.media import make_clip
from local.project import BUCKET, Project
from local.serve import serve_beside
from local.stack import REGION, Stack
from tests import documents
from tests.deploy.clone import Clone
from tests.waiting import until

SECTIONS = documents.sections((ROOT / "docs" / "local-development.md").read_text())
# Names the values as the CLI does (`CustomName` in its internal/status/status.go).
SUPABASE = """#!/bin/bash
declare -A values=(
  [api.url]='{url}' [auth.secret_key]='{secret_key}' [db.url]='{database}' [storage.s3_region]='{region}'
  [storage.s3_access_key_id]='{s3_access_key_id}' [storage.s3_secret_access_key]='{s3_secret_access_key}'
)
for word in "$@"; do
  name="${{word%%=*}}"
  if [[ "$word" == *=* ]]; then echo "${{word#*=}}=\\"${{values[$name]?}}\\""; fi
done
"""
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A clone in which `make` has installed everything, on a machine without a psql of its own."""
    clone = Clone(tmp_path)
    for part in ("local", "examples"):
        shutil.copytree(ROOT / part, clone.root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("requirements-local.txt", "requirements-dev.txt"):
        shutil.copy2(ROOT / part, clone.root / part)
    for stamp in ("local", "installed"):
        (clone.root / ".venv" / stamp).touch()
    (clone.root / ".venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    clone.give("cksum", "cmp", "curl")
    yield clone
    clone.commands.close()


@contextlib.contextmanager
def serving(clone: Clone, command: str) -> Iterator[list[str]]:
    """Run `make serve` until the end of the block; yield the lines that it prints until it is up."""
    # A shell's background job ignores SIGINT. The tests' processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = clone.root.parent / "served"
    environment = clone._environment({"FUNCTIONS_HOST": "127.0.0.1"})
    with log.open("w") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=clone.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: "Ctrl-C ends it." in log.read_text() or process.poll() is not None, seconds=60)
        assert process.poll() is None, log.read_text()
        yield log.read_text().splitlines()
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def execute(clone: Clone, block: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=clone.root,
        env=clone._environment({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ended(env: Path) -> bool:
    with psycopg.connect(read(env)["DATABASE_URL"]) as connection:
        open_jobs = (
            "select count(*) filter (where state in ('queued', 'started')) = 0 and count(*) > 0 from ittybit.jobs"
        )
        return connection.execute(open_jobs).fetchone() == (True,)


def test_the_embedded_stack(clone: Clone) -> None:
    serve, add, upload, explain = documents.blocks(SECTIONS["The embedded stack, with rules of your own"], "sh")
    make_clip(clone.root / "clip.mp4", seconds=1, size="320x180")
    env = clone.root / "build" / "serve.env"
    with serving(clone, serve) as output:
        printed = [line.strip() for line in output if "./deploy.sh" in line]
        assert printed == [line.replace("\\\n  ", "") for line in (add.strip(), explain.splitlines()[0])]
        assert execute(clone, add) == "added\n"
        execute(clone, upload)
        until(lambda: ended(env), seconds=60)
        explained = execute(clone, explain)
        assert "results: s3://media/processed/clip-small.jpeg" in explained
        assert " small      | succeeded | {s3://media/processed/clip-small.jpeg}" in explained
    assert not env.exists()
    nothing = subprocess.run(
        ["make", "sql"], cwd=clone.root, env=clone._environment({}), capture_output=True, check=False
    )
    assert b"nothing is served: run `make serve` in another terminal" in nothing.stderr
    assert "make serve, in another terminal" in clone.deploy("--env", "local", "rule", "list").stderr


@pytest.fixture
def supabase(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A project without ittybit, with its database at a port, and a `supabase` command that shows its values."""
    monkeypatch.setattr(local.stack, "migrate", lambda _: None)
    port = free_port()
    settings = local.postgres._SETTINGS | {"listen_addresses": "127.0.0.1", "port": str(port)}
    monkeypatch.setattr(local.postgres, "_SETTINGS", settings)
    monkeypatch.setattr(local.postgres, "_PORT", port)
    with Stack.start(processes=False) as stack:
        stack._start_workers()
        command = clone.commands.bin / "supabase"
        command.write_text(
            SUPABASE.format(
                url=stack.supabase_url,
                region=REGION,
                database=f"postgresql://postgres:postgres@127.0.0.1:{port}/postgres",
                **vars(stack.keys),
            )
        )
        command.chmod(0o755)
        yield stack


def test_beside_the_supabase_cli(clone: Clone, supabase: Stack, tmp_path: Path) -> None:
    start, status, serve, database, add, explain = documents.blocks(SECTIONS["Beside the Supabase CLI"], "sh")
    clip = tmp_path / "clip.mp4"
    make_clip(clip, seconds=1, size="320x180")
    execute(clone, start)
    execute(clone, status)
    env = clone.env_file("cli")
    theirs = read(env)
    project = Project(supabase)
    with contextlib.closing(project), serving(clone, serve) as output:
        assert any(line.startswith("connection         con_") for line in output), output
        assert [line.strip() for line in output if "./deploy.sh" in line] == [
            line.replace("\\\n  ", "").strip() for line in (database, add, explain)
        ]
        ours = read(env)
        assert theirs.items() <= ours.items()
        assert env.stat().st_mode & 0o777 == 0o600
        execute(clone, database)
        assert supabase.sql("select name, url from ittybit.functions order by name") == [
            ("on-upload", ours["ON_UPLOAD_URL"]),
            ("push-back", ours["PUSH_BACK_URL"]),
        ]
        project.create_bucket(BUCKET)
        execute(clone, add)
        project.upload(BUCKET, "clip.mp4", clip, "video/mp4")
        until(lambda: ended(env), seconds=60)
        assert "results: s3://media/processed/clip-small.jpeg" in execute(clone, explain)
        project.fetch("s3://media/processed/clip-small.jpeg", tmp_path / "small.jpeg")
        assert (tmp_path / "small.jpeg").read_bytes()[:3] == b"\xff\xd8\xff"

        # The second time all addresses are the same, so the database needs no change.
    with contextlib.closing(Project(supabase)) as project, serving(clone, serve):
        assert read(env) == ours
        project.upload(BUCKET, "again.mp4", clip, "video/mp4")
        until(lambda: ended(env), seconds=60)
        assert "succeeded" in execute(clone, explain.replace("clip.mp4", "again.mp4"))


@pytest.mark.parametrize("url", ["https://abcdefgh.supabase.co", "", "http://192.168.1.2:54321", "http://["])
def test_a_project_of_another_machine_is_refused(tmp_path: Path, url: str) -> None:
    env = tmp_path / ".env"
    env.write_text(f"SUPABASE_URL={url}\n")
    with pytest.raises(
        FunctionError, match=f"^ITTYBIT=local needs a project on this machine, but SUPABASE_URL in {env}"
    ):
        serve_beside(env)
    assert env.read_text() == f"SUPABASE_URL={url}\n"


@pytest.mark.parametrize("host", ["8.8.8.8", "http://host.docker.internal", "a b", "1.2.3"])
def test_an_invalid_functions_host_is_refused(tmp_path: Path, host: str) -> None:
    env = tmp_path / ".env"
    env.write_text(f"SUPABASE_URL=http://127.0.0.1:54321\nFUNCTIONS_HOST={host}\n")
    with pytest.raises(FunctionError, match=r"^FUNCTIONS_HOST must be a name or IPv4 address of this machine, "):
        serve_beside(env)
