"""``make serve``: the embedded stack, staying up; or the functions alone, against real services."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from psycopg.conninfo import conninfo_to_dict

from deploy.env_file import read
from local.functions import NAMES, ROOT, FunctionProcess, stage
from local.project import BUCKET, Project
from local.stack import Stack

# Where make doctor finds the stack that make serve runs.
ENVIRONMENT = ROOT / "build" / "serve.env"


def serve() -> None:
    """Run the embedded stack with the demo's bucket, connection and rules, until interrupted."""
    with Stack.start(say=lambda line: print(line, flush=True)) as stack:
        project = Project(stack)
        project.set_up()
        project.close()
        with _told_to_the_doctor(stack):
            print(_guide(stack), flush=True)
            _wait()
    print("\nStopped.")


def serve_functions(env: Path) -> None:
    """Run the functions against the services that an env file names, until interrupted.

    Raises:
        FileNotFoundError: there is no such file.
        deploy.env_file.EnvFileError: one of its lines is malformed.
        local.functions.FunctionError: its settings are not complete; the message names what is missing.
    """
    if not env.is_file():
        raise FileNotFoundError(f"there is no {env}: copy .env.example and fill it in")
    environment = read(env)
    stage()
    running: list[FunctionProcess] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in NAMES:
                running.append(FunctionProcess(name, environment, log=Path(folder) / f"{name}.log"))
            for function in running:
                function.wait_until_ready()
                print(f"{function.name:18} {function.url}", flush=True)
            print("Ctrl-C ends it.", flush=True)
            _wait()
        finally:
            for function in running:
                function.stop()


def environment_of(stack: Stack) -> dict[str, str]:
    """Return what a developer has of such a project: the functions' variables, the database, and where things are."""
    socket = urlencode({"host": conninfo_to_dict(stack.postgres.dsn("postgres"))["host"]})
    return {
        **stack.environment,
        "DATABASE_URL": f"postgresql://postgres@/postgres?{socket}",
        "SUPABASE_PUBLISHABLE_KEY": stack.keys.publishable_key,
        **{f"{name.replace('-', '_').upper()}_URL": function.url for name, function in stack.functions.items()},
    }


@contextlib.contextmanager
def _told_to_the_doctor(stack: Stack) -> Iterator[None]:
    """Leave the stack's variables, for its owner alone, where ``make doctor`` looks for them, until the end."""
    text = "".join(f"{name}={value}\n" for name, value in environment_of(stack).items())
    ENVIRONMENT.unlink(missing_ok=True)
    ENVIRONMENT.touch(mode=0o600)
    ENVIRONMENT.write_text(text)
    try:
        yield
    finally:
        # Another one may have been started since.
        if ENVIRONMENT.is_file() and ENVIRONMENT.read_text() == text:
            ENVIRONMENT.unlink()


def _wait() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def _guide(stack: Stack) -> str:
    storage = f"{stack.supabase_url}/storage/v1/object"
    key = f"-H 'apikey: {stack.keys.secret_key}'"
    token = f"-H 'Authorization: Bearer {stack.token}' -H 'Content-Type: application/json'"
    task = (
        f'{{"bucket": "{BUCKET}", "name": "clip.mp4", "kind": "image", "options": {{"width": 320}}, '
        f'"destination": "s3://{BUCKET}/processed/by-hand.jpeg"}}'
    )
    return f"""
Keys (made up, for this run only)
  SUPABASE_SECRET_KEY            {stack.keys.secret_key}
  SUPABASE_S3_ACCESS_KEY_ID      {stack.keys.s3_access_key_id}
  SUPABASE_S3_SECRET_ACCESS_KEY  {stack.keys.s3_secret_access_key}
  S3 endpoint, region            {stack.supabase_url}/storage/v1/s3, {stack.environment["SUPABASE_S3_REGION"]}
  ITTYBIT_API_KEY                {stack.ittybit_key}
  FUNCTIONS_TOKEN                {stack.token}
  PostgreSQL                     psql "{stack.postgres.dsn("postgres")}"

Try
  1. Upload a video of yours; the rules of bucket {BUCKET!r} do the rest (table ittybit.jobs tells):
     curl -X POST {storage}/{BUCKET}/clip.mp4 {key} -H 'Content-Type: video/mp4' --data-binary @clip.mp4
  2. Fetch what came back:
     curl {storage}/{BUCKET}/processed/clip-720p.mp4 {key} -o clip-720p.mp4
  3. Make a task by hand:
     curl {stack.functions["push-back"].url} {token} -d '{task}'
  4. See whether all is in order, in another terminal: make doctor

Ctrl-C ends it."""
