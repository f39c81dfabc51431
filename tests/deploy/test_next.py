"""./deploy.sh without a verb, in a terminal: the state and the next step."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable

import pytest

from tests.database.project import ON_UPLOAD
from tests.deploy.clone import Clone
from tests.deploy.developer import Developer
from tests.deploy.hosted import SETTINGS

REQUIRED = {name: SETTINGS[name] for name in ("ITTYBIT_API_KEY", "SUPABASE_URL", "SUPABASE_SECRET_KEY")}


def alone(clone: Clone, *options: str) -> list[str]:
    """What it prints to a terminal: the state, and the next step."""
    ours, its = pty.openpty()
    command = [str(clone.root / "deploy.sh"), *options]
    environment = clone._environment({})
    done = subprocess.run(
        command,
        env=environment,
        cwd=clone.home,
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(its)
    # The output is short enough for the terminal's buffer.
    said = os.read(ours, 65536).decode() if done.returncode == 0 else ""
    os.close(ours)
    assert done.returncode == 0, done.stderr
    state, after, verbs = said.splitlines()
    assert verbs == "All verbs: ./deploy.sh --help"
    return [state, after.removeprefix("Next: ")]


def test_without_a_terminal_the_usage_is_printed(clone: Clone) -> None:
    result = clone.deploy()
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ./deploy.sh")


def test_without_settings_the_next_step_is_the_env_file(clone: Clone) -> None:
    state, after = alone(clone, "--env", "staging")
    assert (state, after[:32]) == ("there is no .env.staging", "cp .env.example .env.staging; ch")
    assert alone(clone, "--env", "local") == ["there is no build/serve.env", "make serve, in another terminal"]
    clone.env_file().write_text((clone.root / ".env.example").read_text())
    assert alone(clone) == [
        ".env is not filled in",
        "set ITTYBIT_API_KEY, SUPABASE_URL, SUPABASE_SECRET_KEY there; docs/getting-started.md says where to find each",
    ]


@pytest.mark.parametrize(
    ("also", "said"),
    [
        ({}, "./deploy.sh functions --to RUNTIME;"),
        ({"DEPLOY_TO": "cloud-run"}, "./deploy.sh functions"),
        ({"DEPLOY_TO": "process"}, "start what './deploy.sh functions' prints"),
        ({"ON_UPLOAD_URL": ON_UPLOAD}, "set it there (Dashboard > Connect); then ./deploy.sh database"),
    ],
)
def test_the_next_step_before_there_is_a_database(clone: Clone, also: dict[str, str], said: str) -> None:
    clone.write_env(REQUIRED | also)
    assert alone(clone)[1].startswith(said)
    assert clone.commands.calls() == []


OTHERS: list[tuple[str, Callable[[Developer], object]]] = [
    (
        "the database side is set up for https://another.supabase.co, and .env is for https://ref.supabase.co",
        lambda developer: developer.project.settings(project="https://another.supabase.co"),
    ),
    (
        "the database side is incomplete, or of another version than this folder",
        lambda developer: developer.project.settings(migrations="older"),
    ),
    (
        "the database calls other addresses than those in .env",
        lambda developer: developer.project.sql("update ittybit.functions set url = 'https://x.test'"),
    ),
]


def test_the_next_steps_from_the_database_until_all_is_set_up(developer: Developer) -> None:
    clone = developer.clone
    clone.write_env(REQUIRED | developer.env)
    assert alone(clone) == ["the database side is not installed", "./deploy.sh database"]
    developer.deploy("database")
    assert alone(clone)[0] == "there is no rule, so no upload is processed"
    developer.add_bucket("media")
    developer.deploy("rule", "add", "all", "--bucket", "media", "--automation", "auto_1")
    assert alone(clone)[0] == "all is set up"
    for said, change in OTHERS:
        change(developer)
        assert alone(clone) == [said, "./deploy.sh database"]
        if not said.startswith("the database side is set up"):
            developer.deploy("database")
        else:
            developer.deploy("--yes", "database", "--adopt", "move")
        assert alone(clone)[0] == "all is set up"
