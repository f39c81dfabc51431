"""``make serve``: the embedded stack, staying up; or the functions alone, against real services."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

from psycopg.conninfo import conninfo_to_dict

from deploy.env_file import read
from local.disk_space import check_disk_space
from local.functions import NAMES, ROOT, FunctionProcess, stage
from local.page import Page, set_up
from local.project import BUCKET, Project
from local.scratch import Scratch, Watchdog
from local.stack import Stack
from local.threads import ThreadWatch

# Where make doctor finds the stack that make serve runs.
ENVIRONMENT = ROOT / "build" / "serve.env"


def serve() -> None:
    """Run the embedded stack with the demo's bucket, connection and rules, and its page, until interrupted.

    Raises:
        local.threads.ThreadDiedError, local.functions.FunctionError: a part of the stack has ended.
    """
    with ThreadWatch() as threads, Stack.start(say=lambda line: print(line, flush=True)) as stack:
        with contextlib.closing(Project(stack)) as project:
            project.set_up()
        set_up(stack)
        with _told_to_the_doctor(stack) as doctor, contextlib.closing(Page(stack)) as page:
            print(_guide(stack, doctor, page.address), flush=True)
            _wait(threads.check, stack.check)
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
    check_disk_space(ROOT / "build")
    stage()
    running: list[FunctionProcess] = []
    with Scratch("supabase-ittybit-") as scratch:
        try:
            for name in NAMES:
                running.append(FunctionProcess(name, environment, log=scratch.path / f"{name}.log"))
            for function in running:
                function.wait_until_ready()
                print(f"{function.name:18} {function.url}", flush=True)
            print("Ctrl-C ends it.", flush=True)
            _wait(*(function.check for function in running))
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
def _told_to_the_doctor(stack: Stack) -> Iterator[str]:
    """Leave the stack's variables in a file for its owner alone, until the end; give the command that reads it.

    Of several stacks at a time, ``make doctor`` looks at the one that was first.
    """
    text = "".join(f"{name}={value}\n" for name, value in environment_of(stack).items())
    with contextlib.ExitStack() as ending:
        lock = ending.enter_context(ENVIRONMENT.with_suffix(".lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file, command = stack.directory / ENVIRONMENT.name, "make doctor ARGS='--env-file {}'"
        else:
            file, command = ENVIRONMENT, "make doctor"
            ending.callback(Watchdog('rm -f "$1"', str(file)).dismiss)
        file.unlink(missing_ok=True)
        ending.callback(file.unlink, missing_ok=True)
        file.touch(mode=0o600)
        file.write_text(text)
        yield command.format(file)


def _wait(*checks: Callable[[], None]) -> None:
    """Wait to be interrupted, or for a check to raise what has ended."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(0.5)
            for check in checks:
                check()


def _guide(stack: Stack, doctor: str, page: str) -> str:
    storage = f"{stack.supabase_url}/storage/v1/object"
    key = f"-H 'apikey: {stack.keys.secret_key}'"
    token = f"-H 'Authorization: Bearer {stack.token}' -H 'Content-Type: application/json'"
    task = (
        f'{{"bucket": "{BUCKET}", "name": "clip.mp4", "kind": "image", "options": {{"width": 320}}, '
        f'"destination": "s3://{BUCKET}/processed/by-hand.jpeg"}}'
    )
    return f"""
Open  {page}

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
     curl -f {storage}/{BUCKET}/processed/clip-720p.mp4 {key} -o clip-720p.mp4
  3. Make a task by hand:
     curl {stack.functions["push-back"].url} {token} -d '{task}'
  4. See whether all is in order, in another terminal: {doctor}

Ctrl-C ends it."""
