"""docs/security.md: every row of the threat model names a test. tests/test_docs.py sees that each of them exists."""

from __future__ import annotations

import re

import pytest

from local.functions import ROOT

DOCUMENT = (ROOT / "docs" / "security.md").read_text()
MODEL = DOCUMENT.partition("## What stops them, and what shows it")[2].partition("\n## ")[0]
ROWS = [line for line in MODEL.splitlines() if line.startswith("| ") and not line.endswith(" shown by |")]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_names_the_test_that_shows_it(row: str) -> None:
    assert re.fullmatch(r"\|.+\|.+\| `tests/[\w/]+\.py::test_\w+` \|", row)


def test_there_is_a_model() -> None:
    assert len(ROWS) > 50


@pytest.mark.parametrize(
    ("runtime", "settings"),
    [
        ("cloud_run", ["--timeout=30s", "--concurrency", "--max-instances", "--memory=512Mi"]),
        ("cloud_functions", ["--timeout=30s", "--concurrency", "--max-instances", "--memory=512Mi"]),
        ("knative", ["timeoutSeconds: 30", "containerConcurrency", "autoscaling.knative.dev/max-scale"]),
        ("container", ["--memory 512m"]),
    ],
)
def test_what_is_said_to_be_set_by_the_deployment_is(runtime: str, settings: list[str]) -> None:
    script = (ROOT / "deploy" / "runtimes" / f"{runtime}.sh").read_text()
    assert not [one for one in settings if one not in script or one not in DOCUMENT]
