"""``python -m deploy.doctor``: prints the findings; ends with 0, 1 or 2 by the worst of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.doctor.checks import examine
from deploy.doctor.finding import Finding, exit_status
from deploy.env_file import EnvFileError, read
from deploy.output import coloured, while_read

_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red", "skipped": "dim"}


def main(arguments: list[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Check the project; return the exit status: 0 when all is ok, 1 with a warning, 2 with a failure."""
    parser = argparse.ArgumentParser(
        prog="deploy.sh doctor",
        description="Check the project from outside and in its database, and print each problem with its remedy.",
        epilog="Reads the functions' variables (.env), DATABASE_URL for the database checks, SUPABASE_PUBLISHABLE_KEY,"
        " and for addresses that the database lacks ON_UPLOAD_URL, PUSH_BACK_URL, CREATE_CONNECTION_URL. Exits with 0"
        " when all is ok, 1 with a warning, 2 with a failure.",
    )
    parser.add_argument("--json", action="store_true", help="a list of {check, verdict, saw, remedy}")
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="read the variables from this file only")
    options = parser.parse_args(arguments)
    if options.env_file is not None:
        if not options.env_file.is_file():
            print(
                f"There is no {options.env_file}: `make serve` writes build/serve.env while it runs.", file=sys.stderr
            )
            return 2
        try:
            environment = read(options.env_file)
        except EnvFileError as error:
            print(error, file=sys.stderr)
            return 2

    if options.json:
        findings = list(examine(environment))
        print(json.dumps([finding.model_dump() for finding in findings], indent=2, ensure_ascii=False))
    else:
        findings = list(_printed(examine(environment)))
    return exit_status(findings)


def _printed(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Print each finding as it comes, and the count at the end."""
    counts = dict.fromkeys(_COLOURS, 0)
    for finding in findings:
        counts[finding.verdict] += 1
        verdict = coloured(f"{finding.verdict:8}", _COLOURS[finding.verdict], sys.stdout)
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        print(f"{verdict}  {finding.check:18}  {finding.saw}{remedy}", flush=True)
        yield finding
    print(f"{sum(counts.values())} checks: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    sys.exit(while_read(main))
