"""What the README says is so: its variables are the settings, its SQL runs, its commands exist."""

from __future__ import annotations

import re
import subprocess

import psycopg
import pytest

from local.functions import ROOT
from local.postgres import Postgres
from local.stack import migrate
from shared.settings import Settings

README = (ROOT / "README.md").read_text()
# Read by the runtime and by shared/outbound.py, not by the settings.
OF_THE_RUNTIME = {"THREADS"}


def test_every_variable_is_documented_and_every_documented_one_is_read() -> None:
    section = README.partition("## Environment")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", section, re.MULTILINE))

    assert documented == {name.upper() for name in Settings.model_fields} | OF_THE_RUNTIME


def test_the_example_environment_names_every_setting() -> None:
    named = set(re.findall(r"^#? ?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert named == {name.upper() for name in Settings.model_fields}


def test_the_sql_runs_in_the_order_given() -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4

    with Postgres.start() as postgres:
        postgres.prepare()
        migrate(postgres)
        with psycopg.connect(postgres.dsn("postgres")) as connection:
            for block in blocks:
                connection.execute(block.replace("auto_…", "auto_1"))
            assert connection.execute("select count(*) from ittybit.rules").fetchone() == (2,)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE))))
def test_the_commands_exist(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
