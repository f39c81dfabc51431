"""Fixtures of the functions' tests: one embedded stack without processes, and the functions made in this process."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

from local.stack import Stack
from shared import ittybit_requests
from shared.ittybit import GENERATIONS, Generation
from shared.ittybit_models import Action
from tests.functions.calling import NAMES, Function
from tests.functions.ittybit_alone import Alone, alone
from tests.functions.project import Job, Project
from tests.functions.scripted import Scripted

SORTS = ("automation", "task", "run")
# Variations of a task: in *automations* the run; in *jobs*, where every sort is one job, the automation and the run.
VARIATIONS = {("automations", "run"), ("jobs", "automation"), ("jobs", "run")}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each generation of ittybit's API that its mark names, or with the first one."""
    if "generation" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("generations")
    names = mark.args if mark else GENERATIONS[:1]
    if "sort" not in metafunc.fixturenames:
        metafunc.parametrize("generation", names, indirect=True, scope="session")
        return
    both = [
        pytest.param(name, sort, marks=[pytest.mark.variation] * ((name, sort) in VARIATIONS))
        for name in names
        for sort in SORTS
    ]
    metafunc.parametrize(("generation", "sort"), both, indirect=True, scope="session")


@pytest.fixture(scope="session")
def generation(request: pytest.FixtureRequest) -> Generation:
    """The generation of the API that ittybit speaks."""
    spoken: Generation = request.param
    return spoken


@pytest.fixture(scope="session")
def projects() -> Iterator[Callable[[Generation], Project]]:
    """Return a function that gives the project whose ittybit speaks a generation.

    That ittybit ignores Idempotency-Key: every start counts. Each project is started once in a session.
    """
    with ExitStack() as started:

        @cache
        def start(generation: Generation) -> Project:
            stack = Stack.start(processes=False, encode=False, honour_idempotency=False, api=generation)
            project = Project(started.enter_context(stack))
            started.callback(project.close)
            return project

        yield start


@pytest.fixture(scope="session")
def running(projects: Callable[[Generation], Project], generation: Generation) -> Project:
    """The project of this generation, as the previous test left it."""
    return projects(generation)


@pytest.fixture
def project(running: Project) -> Iterator[Project]:
    """The project with an empty ledger and no faults.

    Its ittybit does not work on what is started until a test waits for it. So no job is checked that a test did not
    make due: a stored result makes its job due.
    """
    running.stack.ittybit.pause()
    running.clear()
    yield running
    running.clear()


@pytest.fixture
def stack(project: Project) -> Stack:
    """The stack that the project runs on."""
    return project.stack


@pytest.fixture
def on_upload(stack: Stack) -> Function:
    return Function.make("on-upload", stack.environment)


@pytest.fixture
def push_back(stack: Stack) -> Function:
    return Function.make("push-back", stack.environment)


@pytest.fixture
def create_connection(stack: Stack) -> Function:
    return Function.make("create-connection", stack.environment)


@pytest.fixture(params=NAMES)
def function(request: pytest.FixtureRequest, stack: Stack) -> Function:
    """Each of the three functions."""
    return Function.make(request.param, stack.environment)


@pytest.fixture(scope="session")
def sort(request: pytest.FixtureRequest) -> str:
    """Each sort of action that a rule can have."""
    return str(request.param)


@pytest.fixture
def worker(sort: str, stack: Stack) -> Function:
    """The function that does this sort of action: on-upload or push-back."""
    return Function.make("on-upload" if sort == "automation" else "push-back", stack.environment)


@pytest.fixture
def start(sort: str, generation: Generation) -> str:
    """The path of the worker's start at ittybit."""
    if generation == "jobs":
        return "/jobs"
    return {"automation": r"/automations/[^/]+/run", "task": "/tasks", "run": "/runs"}[sort]


@pytest.fixture
def job(sort: str, project: Project, request: pytest.FixtureRequest) -> Job:
    """A job of that sort, of an object of its own."""
    make = {"automation": Job.of_automation, "task": Job.of_task, "run": Job.of_run}[sort]
    return make(project, re.sub(r"[^a-z0-9]+", "-", request.node.name) + "/a clip+1.mp4")


@pytest.fixture
def nobody_called(project: Project) -> Iterator[None]:
    """Fail the test if a function sends a request. Each such request is refused."""
    project.wait_for_ittybit()
    watches, started = project.watch(), len(project.stack.ittybit.journal)
    yield
    assert [watch.seen for watch in watches] == [0, 0]
    assert len(project.stack.ittybit.journal) == started


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that gives the log's lines since its last call; each must be JSON."""
    return lambda: [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.fixture(scope="session")
def running_alone(tmp_path_factory: pytest.TempPathFactory, generation: Generation) -> Iterator[Alone]:
    with alone(tmp_path_factory.mktemp("ittybit"), generation) as one:
        yield one


@pytest.fixture
def ittybit(running_alone: Alone) -> Iterator[Alone]:
    """An ittybit without a project, and without faults."""
    yield running_alone
    running_alone.faults.clear()


@pytest.fixture
def action(ittybit: Alone) -> Action:
    """An action to start."""
    return ittybit.action("video")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """Scripted services, and a client that repeats a request without waiting."""
    app = Scripted()
    with app.transport() as transport:
        # As many transports as a drain may use at once.
        monkeypatch.setattr("shared.transport._idle", [transport] * 100)
        monkeypatch.setattr("shared.http.time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None))
        monkeypatch.setattr(ittybit_requests, "PAGE", 2)
        yield app
