"""``make serve``: the embedded stack, staying up; or the functions alone, against real services."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path

from dotenv import dotenv_values

from local.functions import NAMES, FunctionProcess, stage
from local.project import BUCKET, Project
from local.stack import Stack


def serve() -> None:
    """Run the embedded stack with the demo's bucket, connection and rules, until interrupted."""
    with Stack.start(say=lambda line: print(line, flush=True)) as stack:
        project = Project(stack)
        project.set_up()
        project.close()
        print(_guide(stack), flush=True)
        _wait()
    print("\nStopped.")


def serve_functions(env: Path) -> None:
    """Run the functions against the services that an env file names, until interrupted.

    Raises:
        FileNotFoundError: there is no such file.
        local.functions.FunctionError: its settings are not complete; the message names what is missing.
    """
    if not env.is_file():
        raise FileNotFoundError(f"there is no {env}: copy .env.example and fill it in")
    environment = {key: value for key, value in dotenv_values(env).items() if value}
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

Ctrl-C ends it."""
