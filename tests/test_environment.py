"""docs/environment.md and .env.example name exactly the variables that are read."""

from __future__ import annotations

import re

from local.functions import ROOT
from shared.settings import Settings
from tests import documents

# Read by the runtime, not by the settings.
OF_THE_RUNTIME = {"THREADS"}
# Tests shorten deploy.sh's pauses with the first. The second is make's, the third curl's.
NO_SETTINGS = {"DEPLOY_PAUSE", "VENV", "NO_PROXY"}
SETTINGS = {name.upper() for name in Settings.model_fields}
SECTIONS = documents.sections((ROOT / "docs" / "environment.md").read_text())
EXAMPLE = (ROOT / ".env.example").read_text()


def documented(table: str) -> set[str]:
    """The variables in a table's first column."""
    rows = re.findall(r"^\| (`[A-Z0-9_`, ]+`) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"[A-Z0-9_]+", row)}


def named(example: str) -> set[str]:
    return set(re.findall(r"^#? ?([A-Z0-9_]+)=", example, re.MULTILINE))


def test_every_variable_is_documented_and_every_documented_one_is_read() -> None:
    assert documented(SECTIONS["The functions"]) == SETTINGS | OF_THE_RUNTIME


def test_the_example_environment_names_every_setting() -> None:
    assert named(EXAMPLE.partition("# ----")[0]) == SETTINGS


def test_every_variable_of_deploy_sh_is_documented_and_every_documented_one_is_read() -> None:
    scripts = "".join(path.read_text() for path in (ROOT / "deploy").rglob("*.sh"))
    read = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*):-", scripts))
    for words in re.findall(r"\b(?:value|check_settings) ([A-Z][A-Z0-9_ ]+)", scripts):
        read |= set(words.split())
    read = {name for name in read if not name.startswith("PG")} - SETTINGS - OF_THE_RUNTIME - NO_SETTINGS

    assert read == documented(SECTIONS["deploy.sh"])
    assert read == named(EXAMPLE.split("# ----")[1]) - OF_THE_RUNTIME


def test_what_make_serve_reads_is_documented() -> None:
    read = set(re.findall(r'os\.environ\.get\("([A-Z_]+)"', (ROOT / "local" / "serve.py").read_text()))
    assert read == documented(SECTIONS["make serve"]) == named(EXAMPLE.split("# ----")[2])
