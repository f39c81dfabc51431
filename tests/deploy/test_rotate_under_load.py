"""rotate-secret while the database keeps calling: real functions, the real signer, the stand-in for pg_net."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from local.functions import stage
from local.pg_net import PgNetWorker
from local.postgres import installed_binaries
from local.stack import Stack
from tests.deploy.clone import Clone
from tests.deploy.clouds import GCLOUD, Cloud, Secret, Service
from tests.deploy.hosted import GOOGLE, SECRETS, SETTINGS
from tests.deploy.rolling import RollingFunction
from tests.waiting import until

NAMES = ("on-upload", "push-back")


class Calls:
    """The database's calls to the functions, signed with the secret in Vault at that moment, and sent by pg_net."""

    def __init__(self, stack: Stack, urls: list[str]) -> None:
        self._stack = stack
        self._urls = urls
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.made = 0

    def __enter__(self) -> Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(0.05):
            for url in self._urls:
                self._stack.sql("select ittybit.post_wake_up(%s)", (url,))
                self.made += 1

    def answers(self) -> dict[str, int]:
        """The number of calls for each status; those without an answer in time are ``late``."""
        statement = """
            select coalesce(status_code::text, case when timed_out then 'late' else error_msg end), count(*)
            from net._http_response
            group by 1
        """
        return dict(self._stack.sql(statement))


@pytest.fixture
def stack() -> Iterator[Stack]:
    """A project and an ittybit without background processes."""
    with Stack.start(processes=False) as stack:
        yield stack


@pytest.fixture
def functions(stack: Stack, tmp_path: Path) -> Iterator[dict[str, RollingFunction]]:
    """The two functions that the database calls."""
    stage()
    running = {name: RollingFunction(name, stack.environment, tmp_path) for name in NAMES}
    yield running
    for function in running.values():
        function.close()


def test_no_call_is_refused_while_the_secret_is_replaced(
    clone: Clone, stack: Stack, functions: dict[str, RollingFunction]
) -> None:
    old = stack.environment["FUNCTIONS_SECRET"]
    worker = PgNetWorker(stack.postgres)
    is_paused = threading.Event()

    def rolled(name: str, secrets: dict[str, str]) -> None:
        functions[name].roll(secrets)
        # Stop pg_net until the database is switched: calls signed with the old secret are then sent after the switch.
        if name == NAMES[-1] and not is_paused.is_set():
            worker.pause()
            is_paused.set()

    services = {name: Service(function.url, {}) for name, function in functions.items()}
    cloud = Cloud(secrets={"supabase-ittybit-functions-secret": Secret([old])}, services=services, rolled=rolled)
    clone.commands.add("gcloud", cloud.gcloud, accepts=GCLOUD)
    clone.give("curl")
    (clone.commands.bin / "psql").symlink_to(installed_binaries()[0] / "psql")
    addresses = {f"{name.upper().replace('-', '_')}_URL": function.url for name, function in functions.items()}
    clone.write_env(
        SETTINGS | GOOGLE | addresses | database(stack) | {"FUNCTIONS_SECRET": old, "DEPLOY_TO": "cloud-run"}
    )
    worker.start()

    said = []
    with Calls(stack, list(addresses.values())) as calls:
        until(lambda: calls.answers().get("200", 0) > 10, seconds=30)
        with clone.start("--yes", "rotate-secret", environment={"DEPLOY_PAUSE": "0.1"}) as process:
            for line in process.stderr or []:
                said.append(line)
                if "calls that were signed earlier" in line:
                    worker.resume()
        after = calls.made
        until(lambda: calls.made > after + 10, seconds=30)
    worker.resume()
    until(lambda: sum(calls.answers().values()) == calls.made, seconds=60)
    worker.stop()

    assert process.returncode == 0, "".join(said)
    answers = calls.answers()
    # On a busy machine an answer may be late: such a call is sent again, and was not refused.
    assert set(answers) <= {"200", "late"}, answers
    assert answers["200"] > 50
    new = clone.read_env()["FUNCTIONS_SECRET"]
    assert new != old
    assert stack.sql("select decrypted_secret from vault.decrypted_secrets") == [(new,)]
    assert [function.environment["FUNCTIONS_SECRET"] for function in functions.values()] == [new, new]
    assert "calls that were signed earlier" in "".join(said)
    assert not [secret for secret in (old, new, *SECRETS.values()) if secret in "".join(said)]


def database(stack: Stack) -> dict[str, str]:
    """DATABASE_URL of the project, through the server's socket."""
    socket = quote(str(conninfo_to_dict(stack.postgres.dsn("postgres"))["host"]), safe="")
    return {"DATABASE_URL": f"postgresql://postgres@/postgres?host={socket}"}
