"""Known vulnerabilities of what is deployed: ``python -m deploy.audit``, by pip-audit over requirements.txt.

The database is PyPI's own, and OSV where that one does not answer. Neither can be reached from everywhere: then it says
so and fails nothing. A vulnerability fails it.
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
# Ask for each package by its pin; resolve and install nothing.
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
    """Print what is known, one line for each vulnerability and one of the outcome; return 1 if there is any."""
    for database in DATABASES:
        asked = _ask(pip_audit, database)
        if known := [one for one in asked if one.skip_reason is None]:
            break
    else:
        print(f"audit: not done, no database of vulnerabilities answers from here (tried {', '.join(DATABASES)})")
        return 0
    found = [(one, vulnerability) for one in known for vulnerability in one.vulns]
    for one, vulnerability in found:
        mended = ", ".join(vulnerability.fix_versions) or "no version yet"
        print(f"audit: {one.name} {one.version}: {vulnerability.id}, mended in {mended}")
    print(f"audit: {database} knows {len(known)} of {len(asked)} packages, and of {len(found)} vulnerabilities in them")
    return 1 if found else 0


def _ask(pip_audit: Sequence[str], database: str) -> list[Dependency]:
    """One database's vulnerabilities; none when it cannot be reached."""
    command = [*pip_audit, "--requirement", str(DEPLOYED), "--vulnerability-service", database, *OPTIONS]
    try:
        # Its exit status is 1 for a vulnerability and for a fault of its own: what it printed tells them apart.
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        said: Any = json.loads(done.stdout)
        return Audit.model_validate(said).dependencies
    except (subprocess.TimeoutExpired, json.JSONDecodeError, ValidationError):
        return []


if __name__ == "__main__":
    sys.exit(while_read(main))
