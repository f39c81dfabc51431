from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from local.functions import NAMES, FunctionError, FunctionProcess, stage
from tests.functions.calling import JSON, WAKE_UP, sign
from tests.functions.project import Job, Project
from tests.waiting import until

LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def processes(running: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FunctionProcess]]:
    """The staged functions, each in a process of its own."""
    stage()
    folder = tmp_path_factory.mktemp("logs")
    started = {name: FunctionProcess(name, running.stack.environment, log=folder / f"{name}.log") for name in NAMES}
    try:
        for process in started.values():
            process.wait_until_ready()
        yield started
    finally:
        for process in started.values():
            process.stop()


@pytest.fixture
def on_upload(processes: dict[str, FunctionProcess]) -> FunctionProcess:
    return processes["on-upload"]


@pytest.fixture
def person(project: Project) -> Iterator[httpx.Client]:
    """A client with the token."""
    headers = {"Authorization": f"Bearer {project.stack.token}", **JSON}
    with httpx.Client(trust_env=False, timeout=20, headers=headers) as client:
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_each_staged_function_answers(processes: dict[str, FunctionProcess], name: str, person: httpx.Client) -> None:
    process = processes[name]
    assert person.get(process.url).status_code == 405
    assert person.post(process.url, content=b"[]").status_code == 422
    answer = httpx.post(process.url, content=b"{}", headers=JSON, trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


def test_a_staged_folder_starts_from_another_directory(running: Project, tmp_path: Path) -> None:
    stage()
    process = FunctionProcess("push-back", running.stack.environment, log=tmp_path / "log")
    process.stop()
    process._folder = tmp_path
    process.restart()
    try:
        process.wait_until_ready()
        assert httpx.post(process.url, content=b"{}", headers=JSON, trust_env=False).status_code == 401
    finally:
        process.stop()


def test_a_body_without_a_length_is_read_up_to_64_kib_and_no_further(
    on_upload: FunctionProcess, person: httpx.Client
) -> None:
    def body(size: int) -> Iterator[bytes]:
        yield b"[]"
        yield b" " * (size - 2)

    assert person.post(on_upload.url, content=body(LIMIT)).status_code == 422
    assert person.post(on_upload.url, content=body(LIMIT + 1)).status_code == 413


def test_a_signed_body_that_comes_in_pieces_is_read_to_its_end(on_upload: FunctionProcess, project: Project) -> None:
    body = json.dumps(["a" * 60000]).encode()
    signed = {**sign(project.stack.environment["FUNCTIONS_SECRET"], body), **JSON, "Content-Length": str(len(body))}
    head = "POST / HTTP/1.1\r\nHost: x\r\n" + "".join(f"{name}: {value}\r\n" for name, value in signed.items()) + "\r\n"
    address = urlsplit(on_upload.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (head.encode() + body[:10], body[10:20000], body[20000:]):
            connection.sendall(piece)
        assert connection.recv(1000).startswith(b"HTTP/1.1 422 ")


def test_a_wake_up_starts_the_due_job(on_upload: FunctionProcess, project: Project) -> None:
    job = Job.of_automation(project, "process/a job.mp4")
    body = json.dumps(WAKE_UP).encode()
    headers = sign(project.stack.environment["FUNCTIONS_SECRET"], body) | JSON
    answer = httpx.post(on_upload.url, content=body, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()) == (200, {"claimed": 1, "started": 1})
    assert job.start.idempotency_key == job.mark
    lines = [json.loads(line) for line in on_upload.log.read_text().splitlines() if line.startswith("{")]
    assert lines[-1]["id"] == answer.headers["X-Correlation-Id"]
    assert (lines[-1]["message"], lines[-1]["started"]) == ("on_upload 200", 1)


def test_many_concurrent_requests_are_all_answered(
    on_upload: FunctionProcess, project: Project, person: httpx.Client
) -> None:
    project.upload("private", "process/many.mp4")
    body = {"bucket": "private", "name": "process/many.mp4", "automation_id": project.automation}
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: person.post(on_upload.url, json=body), range(32)))
    assert [answer.status_code for answer in answers] == [202] * 32
    runs = {answer.json()["run"]["id"] for answer in answers}
    assert runs == {entry.id for entry in project.starts("process/many.mp4")}
    assert len(runs) == 32


@pytest.mark.parametrize("name", NAMES)
def test_a_function_without_its_settings_does_not_start_and_says_why(
    processes: dict[str, FunctionProcess], name: str, tmp_path: Path
) -> None:
    assert processes  # staged
    process = FunctionProcess(name, {"FUNCTIONS_TOKEN": "short-token"}, log=tmp_path / "log")
    with pytest.raises(FunctionError) as caught:
        process.wait_until_ready()
    said = str(caught.value)
    assert "The functions cannot start:" in said
    assert all(f"{variable} is missing" in said for variable in ("ITTYBIT_API_KEY", "SUPABASE_URL"))
    assert "FUNCTIONS_TOKEN string should have at least 16 characters" in said
    assert "short-token" not in said
    assert process._process.returncode == 1


def test_current_calls_are_answered_before_the_process_ends(
    processes: dict[str, FunctionProcess], project: Project, person: httpx.Client, tmp_path: Path
) -> None:
    assert processes  # staged
    project.upload("private", "process/last.mp4")
    process = FunctionProcess("on-upload", project.stack.environment, log=tmp_path / "log")
    process.wait_until_ready()
    slow = project.stack.supabase.add("POST", "/storage/v1/object/sign/.*", hang=1)
    body = {"bucket": "private", "name": "process/last.mp4", "automation_id": project.automation}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(person.post, process.url, json=body)
        until(lambda: slow.seen)
        process.stop()
        assert answer.result().status_code == 202
    assert process._process.returncode == 0
    with pytest.raises(httpx.ConnectError):
        person.get(process.url)
