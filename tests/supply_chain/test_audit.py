from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import audit

UNKNOWN = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could not be audited: jinja2 (3.1.6)"}
CLEAN = {"name": "flask", "version": "3.1.3", "vulns": []}
BROKEN = {
    "name": "jinja2",
    "version": "3.1.6",
    "vulns": [{"id": "GHSA-0000", "fix_versions": ["3.1.7"], "aliases": []}, {"id": "GHSA-0001", "fix_versions": []}],
}


def pip_audit(folder: Path, answers: dict[str, Any]) -> list[str]:
    """Write a stand-in for pip-audit, with an answer for each database; return its command."""
    script = folder / "pip-audit.py"
    script.write_text(
        "import sys\n"
        "database = sys.argv[sys.argv.index('--vulnerability-service') + 1]\n"
        f"said = { ({name: json.dumps({'dependencies': said}) for name, said in answers.items()})!r}[database]\n"
        "print(said)\n"
        "sys.exit('vulns\": [{' in said)\n"
    )
    return [sys.executable, str(script)]


@pytest.mark.parametrize(
    ("answers", "status", "lines"),
    [
        ({"pypi": [CLEAN]}, 0, ["audit: pypi knows 1 of 1 packages and 0 vulnerabilities in them"]),
        (
            {"pypi": [CLEAN, BROKEN]},
            1,
            [
                "audit: jinja2 3.1.6: GHSA-0000, fixed in 3.1.7",
                "audit: jinja2 3.1.6: GHSA-0001, fixed in no version yet",
                "audit: pypi knows 2 of 2 packages and 2 vulnerabilities in them",
            ],
        ),
        (
            {"pypi": [UNKNOWN], "osv": [CLEAN, UNKNOWN]},
            0,
            ["audit: osv knows 1 of 2 packages and 0 vulnerabilities in them"],
        ),
        # Any other output, such as the traceback of a name that does not resolve, counts as no answer.
        ({}, 0, ["audit: not done, no vulnerability database answers (tried pypi, osv)"]),
        (
            {"pypi": [UNKNOWN], "osv": [UNKNOWN]},
            0,
            ["audit: not done, no vulnerability database answers (tried pypi, osv)"],
        ),
    ],
)
def test_the_audit_prints_what_is_known_and_fails_only_for_a_vulnerability(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: dict[str, Any], status: int, lines: list[str]
) -> None:
    assert audit.main(pip_audit(tmp_path, answers)) == status
    assert capsys.readouterr().out.splitlines() == lines
