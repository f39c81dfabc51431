"""docs/security.md: every row of the threat model names a test. tests/test_docs.py checks that each test exists."""

from __future__ import annotations

import re

import pytest

from local.functions import ROOT

DOCUMENT = (ROOT / "docs" / "security.md").read_text()
MODEL = DOCUMENT.partition("## What stops them, and what shows it")[2].partition("\n## ")[0]
ROWS = [line for line in MODEL.splitlines() if line.startswith("| ") and not line.endswith(" shown by |")]


def test_every_row_of_the_threat_model_names_its_test() -> None:
    assert len(ROWS) > 50
    assert [row for row in ROWS if not re.fullmatch(r"\|.+\|.+\| `tests/[\w/]+\.py::test_\w+` \|", row)] == []


@pytest.mark.parametrize(
    ("runtime", "settings"),
    [
        ("cloud-run", ["--timeout=30s", "--concurrency", "--max-instances", "--memory=512Mi"]),
        ("cloud-functions", ["--timeout=30s", "--concurrency", "--max-instances", "--memory=512Mi"]),
        ("knative", ["timeoutSeconds: 30", "containerConcurrency", "autoscaling.knative.dev/max-scale"]),
        ("container", ["--memory 512m"]),
    ],
)
def test_the_deployment_sets_what_the_document_says(runtime: str, settings: list[str]) -> None:
    # What ./deploy.sh prints in a dry run: tests/deploy/test_functions.py.
    commands = (ROOT / "tests" / "deploy" / "expected" / f"{runtime}.txt").read_text()
    assert not [one for one in settings if one not in commands or one not in DOCUMENT]
