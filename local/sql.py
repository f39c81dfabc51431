"""``make sql``: psql, to the database of what ``make serve`` runs."""

from __future__ import annotations

import os
from typing import NoReturn

from psycopg.conninfo import conninfo_to_dict

from deploy.env_file import read
from local.postgres_binaries import installed_binaries
from local.serve import ENVIRONMENT


def run(statement: str | None) -> NoReturn:
    """Become the psql that was installed with the stack's PostgreSQL.

    Args:
        statement: what to run; without it psql reads from the terminal, or from standard input.

    Raises:
        FileNotFoundError: nothing is served.
        deploy.env_file.EnvFileError: the file that ``make serve`` left has been changed, and is malformed.
        psycopg.ProgrammingError: likewise, its DATABASE_URL is no address.
    """
    if not ENVIRONMENT.exists():
        raise FileNotFoundError("nothing is served: run `make serve` in another terminal")
    given = conninfo_to_dict(read(ENVIRONMENT).get("DATABASE_URL", ""))
    # The address has a password: it does not go where others can list it.
    address = {"PGDATABASE" if name == "dbname" else f"PG{name.upper()}": str(value) for name, value in given.items()}
    psql = str(installed_binaries()[0] / "psql")
    # What the shell says of another database is not for this one.
    others = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    os.execve(psql, [psql, *(["-c", statement] if statement else [])], others | address)  # noqa: S606
