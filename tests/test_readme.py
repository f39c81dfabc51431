"""What the README says of the environment is so; its SQL, commands and links are tried in test_docs.py."""

from __future__ import annotations

import re

from local.functions import ROOT
from shared.settings import Settings
from tests import documents

# Read by the runtime and by shared/network.py, not by the settings.
OF_THE_RUNTIME = {"THREADS"}


def test_every_variable_is_documented_and_every_documented_one_is_read() -> None:
    section = documents.sections(documents.README.read_text())["Environment"]
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", section, re.MULTILINE))

    assert documented == {name.upper() for name in Settings.model_fields} | OF_THE_RUNTIME


def test_the_example_environment_names_every_setting() -> None:
    named = set(re.findall(r"^#? ?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))

    assert named == {name.upper() for name in Settings.model_fields}
