"""``make serve``: runs the embedded stack, or for another project the functions, with or without the stand-in ittybit.

``make sql`` opens psql on the stack's database.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import urlencode, urlsplit

import httpx
from psycopg.conninfo import conninfo_to_dict

from deploy.env_file import keep, read
from local.disk_space import check_disk_space
from local.functions import EVERYWHERE, NAMES, ROOT, FunctionError, FunctionProcess, free_port, stage
from local.ittybit_server import Ittybit
from local.page import Page, set_up
from local.postgres import installed_binaries
from local.project import BUCKET, Project
from local.scratch import Scratch, Watchdog
from local.server import Server
from local.stack import Stack
from local.threads import ThreadWatch
from shared.settings import is_local

# The running stack's variables, for make doctor, make sql and ./deploy.sh --env local.
ENVIRONMENT = ROOT / "build" / "serve.env"
# A container's name for the machine that it runs on. Docker Desktop knows it, and the Supabase CLI adds it on Linux.
_HOST = "host.docker.internal"


def serve(api: str = "automations") -> None:
    """Run the embedded stack with the demo's bucket, connection and rules, and its page, until interrupted.

    Args:
        api: the generation of its API that the stand-in ittybit speaks.

    Raises:
        local.threads.ThreadDiedError, local.functions.FunctionError: a part of the stack has ended.
    """
    with ThreadWatch() as threads, Stack.start(say=lambda line: print(line, flush=True), api=api) as stack:
        with contextlib.closing(Project(stack)) as project:
            project.set_up()
        set_up(stack)
        with _left(environment_of(stack), stack.directory) as file, contextlib.closing(Page(stack)) as page:
            print(_guide(stack, file, page.address), flush=True)
            _wait(threads.check, stack.check)
    print("\nStopped.")


def serve_functions(env: Path) -> None:
    """Run the functions against the services that an env file names, until interrupted.

    Raises:
        FileNotFoundError: there is no such file.
        deploy.env_file.EnvFileError: one of its lines is malformed.
        local.functions.FunctionError: its settings are not complete; the message names what is missing.
    """
    environment = _settings(env)
    check_disk_space(ROOT / "build")
    stage()
    with Scratch("supabase-ittybit-") as scratch, _running(environment, scratch.path) as functions:
        print("Ctrl-C ends it.", flush=True)
        _wait(*(function.check for function in functions.values()))


def serve_beside(env: Path, api: Literal["automations", "jobs"] = "automations") -> None:
    """Run the functions and the stand-in ittybit beside a project of this machine, until interrupted.

    The env file names the project, such as one that ``supabase start`` runs. This writes what the file lacks into it:
    generated keys, and the addresses. Ports stay the same from one run to the next, so the database is set up once.

    Args:
        env: the env file.
        api: the generation of its API that the stand-in ittybit speaks, where the file does not say ``jobs`` itself.

    Raises:
        FileNotFoundError: there is no such file.
        deploy.env_file.EnvFileError: one of its lines is malformed.
        local.functions.FunctionError: the project is on another machine, or settings are missing; the message says why.
    """
    environment = _settings(env)
    if not is_local(_place(environment.get("SUPABASE_URL", ""))[0] or "."):
        raise FunctionError(f"ITTYBIT=local needs a project on this machine, but SUPABASE_URL in {env} names none")
    called = environment.get("FUNCTIONS_HOST") or os.environ.get("FUNCTIONS_HOST") or _HOST
    host = _where_to_listen(called)
    check_disk_space(ROOT / "build")
    stage()
    with contextlib.ExitStack() as ending:
        threads, scratch = ending.enter_context(ThreadWatch()), ending.enter_context(Scratch("supabase-ittybit-"))
        variables = _made_up() | environment
        ittybit = Ittybit(
            api_key=variables["ITTYBIT_API_KEY"],
            directory=scratch.path / "ittybit",
            api="jobs" if variables.get("ITTYBIT_API") == "jobs" else api,
        )
        server = ending.enter_context(
            Server(ittybit.app, port=free_port(wanted=_place(variables.get("ITTYBIT_API_URL"))[1]))
        )
        ittybit.start()
        ending.callback(ittybit.stop)
        variables["ITTYBIT_API_URL"] = server.origin
        print(f"{'ittybit':18} {server.origin}", flush=True)
        functions = ending.enter_context(_running(variables, scratch.path, host))
        for name, function in functions.items():
            # Only people call create-connection, from this machine.
            url = function.url if name == "create-connection" else f"http://{called}:{_place(function.url)[1]}"
            variables[_variable(name)] = url
        for name, value in variables.items():
            if environment.get(name) != value:
                keep(env, name, value)
        print(f"{'connection':18} {_connect(functions['create-connection'].url, variables)}")
        with _left(variables, scratch.path) as file:
            print(_guide_beside(env, file, called), flush=True)
            _wait(threads.check, *(function.check for function in functions.values()))


def run_psql(statement: str | None) -> NoReturn:
    """Replace this process by the psql that was installed with the stack's PostgreSQL.

    Args:
        statement: what to run; without it psql reads from the terminal, or from standard input.

    Raises:
        FileNotFoundError: nothing is served.
        deploy.env_file.EnvFileError: the file that ``make serve`` left has been changed, and is malformed.
        psycopg.ProgrammingError: the file has been changed, and its DATABASE_URL is no address.
    """
    if not ENVIRONMENT.exists():
        raise FileNotFoundError("nothing is served: run `make serve` in another terminal")
    given = conninfo_to_dict(read(ENVIRONMENT).get("DATABASE_URL", ""))
    # The address has a password, so it is not an argument: other users can list those.
    address = {"PGDATABASE" if name == "dbname" else f"PG{name.upper()}": str(value) for name, value in given.items()}
    psql = str(installed_binaries()[0] / "psql")
    # Leave out the shell's own variables: they may name another database.
    others = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    os.execve(psql, [psql, *(["-c", statement] if statement else [])], others | address)  # noqa: S606


def _settings(env: Path) -> dict[str, str]:
    if not env.is_file():
        raise FileNotFoundError(f"there is no {env}: copy .env.example and fill it in")
    return read(env)


@contextlib.contextmanager
def _running(
    environment: Mapping[str, str], logs: Path, host: str = "127.0.0.1"
) -> Iterator[dict[str, FunctionProcess]]:
    """Run the functions, each at its former port if that is free, until the end of the block."""
    functions: dict[str, FunctionProcess] = {}
    try:
        for name in NAMES:
            _, port = _place(environment.get(_variable(name)))
            functions[name] = FunctionProcess(name, environment, log=logs / f"{name}.log", host=host, port=port)
        for function in functions.values():
            function.wait_until_ready()
            print(f"{function.name:18} {function.url}", flush=True)
        yield functions
    finally:
        for function in functions.values():
            function.stop()


def _made_up() -> dict[str, str]:
    """Generate the keys that a file may lack: the functions', as deploy/settings.sh does, and the stand-in's."""
    return {
        "ITTYBIT_API_KEY": f"ittybit_local_{secrets.token_urlsafe(24)}",
        "FUNCTIONS_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "FUNCTIONS_TOKEN": secrets.token_urlsafe(32),
    }


def _where_to_listen(called: str) -> str:
    """The address to listen at so that containers reach this machine by that name or address.

    Raises:
        local.functions.FunctionError: it is no name, or an address that this machine does not have.
    """
    if re.fullmatch(r"[0-9.]+", called):
        host = called
    else:
        # Docker Desktop connects to 127.0.0.1, Docker Engine on Linux to the address of its bridge.
        host = "127.0.0.1" if sys.platform == "darwin" or called == "localhost" else EVERYWHERE
    with contextlib.suppress(OSError):
        free_port(host)
        if re.fullmatch(r"[A-Za-z0-9.-]+", called):
            return host
    raise FunctionError(f"FUNCTIONS_HOST must be a name or IPv4 address of this machine, and {called!r} is not")


def _connect(create_connection: str, environment: Mapping[str, str]) -> str:
    """Have the project's S3 keys registered at the stand-in, which keeps none from one run to the next."""
    headers = {"authorization": f"Bearer {environment['FUNCTIONS_TOKEN']}"}
    answer = httpx.post(create_connection, json={}, headers=headers, trust_env=False, timeout=60)
    if answer.is_success:
        return str(answer.json()["connection"]["id"])
    return f"none, so no result can be written back: {answer.json()['detail']}"


def _variable(function: str) -> str:
    return f"{function.replace('-', '_').upper()}_URL"


def _place(url: str | None) -> tuple[str, int]:
    """The host and port of an address; empty and 0 if it is no address."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url or "")
        return parts.hostname or "", parts.port or 0
    return "", 0


def environment_of(stack: Stack) -> dict[str, str]:
    """Return the stack's variables: the functions' settings and addresses, DATABASE_URL, the publishable key."""
    socket = urlencode({"host": conninfo_to_dict(stack.postgres.dsn("postgres"))["host"]})
    return {
        **stack.environment,
        "DATABASE_URL": f"postgresql://postgres@/postgres?{socket}",
        "SUPABASE_PUBLISHABLE_KEY": stack.keys.publishable_key,
        **{_variable(name): function.url for name, function in stack.functions.items()},
    }


@contextlib.contextmanager
def _left(environment: Mapping[str, str], directory: Path) -> Iterator[Path]:
    """Keep the variables in a file that only its owner can read, until the end of the block; give the file.

    If several ``make serve`` run, the first has the file that the other commands read, and each further one its own.
    """
    with contextlib.ExitStack() as ending:
        lock = ending.enter_context(ENVIRONMENT.with_suffix(".lock").open("w"))
        file = ENVIRONMENT
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file = directory / ENVIRONMENT.name
        else:
            ending.callback(Watchdog('rm -f "$1"', str(file)).dismiss)
        file.unlink(missing_ok=True)
        ending.callback(file.unlink, missing_ok=True)
        file.touch(mode=0o600)
        # Quoted, because a value may contain spaces and #.
        text = (re.sub(r"[\\']", r"\\\g<0>", value) for value in environment.values())
        file.write_text("".join(f"{name}='{value}'\n" for name, value in zip(environment, text, strict=True)))
        yield file


def _wait(*checks: Callable[[], None]) -> None:
    """Wait for an interrupt, or until a check raises the error of a part that has ended."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(0.5)
            for check in checks:
                check()


def _commands(option: str, bucket: str) -> str:
    """The commands that add a rule and show what happened to an object."""
    task = f"""--task image --options '{{"width": 320}}' --destination 's3://{bucket}/processed/{{dir}}{{stem}}-small.jpeg'"""
    return f"""\
     ./deploy.sh {option}rule add small --bucket {bucket} --type 'video/*' {task}
     ./deploy.sh {option}rule explain {bucket} clip.mp4"""


def _looks(file: Path) -> str:
    if file != ENVIRONMENT:
        return f"make doctor ARGS='--env-file {file}' (--env local and make sql use the first `make serve`)"
    return "make doctor"


def _guide_beside(env: Path, file: Path, called: str) -> str:
    named = re.fullmatch(r"\.env(?:\.([a-z][a-z0-9-]{0,20}))?", env.name) if env.resolve().parent == ROOT else None
    option = (f"--env {named[1]} " if named[1] else "") if named else "--env local "
    return f"""
{env} has the functions' addresses as the project's containers reach them: at {called} (FUNCTIONS_HOST).

Go on in another terminal
  1. Set up the database; again only when an address has changed:
     ./deploy.sh {option}database
  2. Add a rule, upload a clip.mp4 to its bucket (here 'media'), and see what happened to it:
{_commands(option, BUCKET)}
  3. Check the setup: {_looks(file)}

Ctrl-C ends it."""


def _guide(stack: Stack, file: Path, page: str) -> str:
    storage = f"{stack.supabase_url}/storage/v1/object"
    key = f"-H 'apikey: {stack.keys.secret_key}'"
    token = f"-H 'Authorization: Bearer {stack.token}' -H 'Content-Type: application/json'"
    task = (
        f'{{"bucket": "{BUCKET}", "name": "clip.mp4", "kind": "image", "options": {{"width": 320}}, '
        f'"destination": "s3://{BUCKET}/processed/by-hand.jpeg"}}'
    )
    return f"""
Open  {page}

Keys (generated, for this run only)
  SUPABASE_SECRET_KEY            {stack.keys.secret_key}
  SUPABASE_S3_ACCESS_KEY_ID      {stack.keys.s3_access_key_id}
  SUPABASE_S3_SECRET_ACCESS_KEY  {stack.keys.s3_secret_access_key}
  S3 endpoint, region            {stack.supabase_url}/storage/v1/s3, {stack.environment["SUPABASE_S3_REGION"]}
  ITTYBIT_API_KEY                {stack.ittybit_key}
  FUNCTIONS_TOKEN                {stack.token}
  PostgreSQL                     make sql, or psql "{stack.postgres.dsn("postgres")}"

Try
  1. Upload a video of yours; the rules of bucket {BUCKET!r} process it (see the table ittybit.jobs):
     curl -X POST {storage}/{BUCKET}/clip.mp4 {key} -H 'Content-Type: video/mp4' --data-binary @clip.mp4
  2. Fetch a result:
     curl -f {storage}/{BUCKET}/processed/clip-720p.mp4 {key} -o clip-720p.mp4
  3. Make a task by hand:
     curl {stack.functions["push-back"].url} {token} -d '{task}'
  4. Add a rule of your own, in another terminal, and see what happened to the next upload:
{_commands("--env local ", BUCKET)}
  5. Check the setup: {_looks(file)}

Ctrl-C ends it."""
