"""The audit of the deployed packages: ``python -m deploy.audit`` runs pip-audit over requirements.txt.

It asks PyPI's database, and OSV if PyPI does not answer. If neither can be reached, it says so and succeeds. It fails
only for a vulnerability.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from deploy.output import while_read

DEPLOYED = Path(__file__).parents[1] / "requirements.txt"
PIP_AUDIT = (str(Path(sys.executable).parent / "pip-audit"),)
DATABASES = ("pypi", "osv")
# Look up each package by its pin; resolve and install nothing.
OPTIONS = ("--require-hashes", "--disable-pip", "--progress-spinner=off", "--timeout=10", "--format=json")
SECONDS = 120


class Vulnerability(BaseModel):
    """One entry of a database."""

    id: str
    fix_versions: list[str] = []


class Dependency(BaseModel):
    """pip-audit's result for one package; ``skip_reason`` is set when the database has no answer."""

    name: str
    version: str = ""
    skip_reason: str | None = None
    vulns: list[Vulnerability] = []


class Audit(BaseModel):
    """pip-audit's output."""

    dependencies: list[Dependency]


def main(pip_audit: Sequence[str] = PIP_AUDIT) -> int:
    """Print a line for each known vulnerability and one for the outcome; return 1 if there is a vulnerability."""
    for database in DATABASES:
        packages = _audit(pip_audit, database)
        if known := [one for one in packages if one.skip_reason is None]:
            break
    else:
        print(f"audit: not done, no vulnerability database answers (tried {', '.join(DATABASES)})")
        return 0
    found = [(one, vulnerability) for one in known for vulnerability in one.vulns]
    for one, vulnerability in found:
        fixed = ", ".join(vulnerability.fix_versions) or "no version yet"
        print(f"audit: {one.name} {one.version}: {vulnerability.id}, fixed in {fixed}")
    print(f"audit: {database} knows {len(known)} of {len(packages)} packages and {len(found)} vulnerabilities in them")
    return 1 if found else 0


def _audit(pip_audit: Sequence[str], database: str) -> list[Dependency]:
    """Return pip-audit's result for each package from one database; nothing if it cannot be reached."""
    command = [*pip_audit, "--requirement", str(DEPLOYED), "--vulnerability-service", database, *OPTIONS]
    try:
        # It exits with 1 for a vulnerability and for an error of its own: only its output tells them apart.
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        output: Any = json.loads(done.stdout)
        return Audit.model_validate(output).dependencies
    except (subprocess.TimeoutExpired, json.JSONDecodeError, ValidationError):
        return []


if __name__ == "__main__":
    sys.exit(while_read(main))
