"""Searches every place in which a run could have left a secret, and counts the texts of each place."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psutil
from psycopg.sql import SQL, Identifier

from local.stack import Stack
from tests.database.rows import Connection, rows

# So many characters identify a secret. Each part of this length is searched for, so half a secret is found too.
WINDOW = 12
# The token of a signed address, a JWT for an object's path: whoever has it may fetch the object.
SIGNED = re.compile(r"(?i)(?:token|signature)(?:=|%3d)[\"']?(?:ey|[0-9a-f]{20})")
ALLOWED = {"vault.secrets", "vault.decrypted_secrets"}


class Places:
    """The number of texts that were searched, and the findings, by place."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.found: dict[str, set[str]] = defaultdict(set)
        self._windows = {window: name for name, secret in secrets.items() for window in _windows(secret)}
        self._any = re.compile("|".join(map(re.escape, self._windows)))

    def look(self, place: str, texts: Iterable[str]) -> None:
        """Search the texts of one place."""
        for text in texts:
            self.counts[place] += 1
            self.found[place] |= {self._windows[match] for match in self._any.findall(text)}
            if SIGNED.search(text):
                self.found[place].add("a signed address")

    @property
    def findings(self) -> dict[str, set[str]]:
        """What was found, and where."""
        return {place: names for place, names in self.found.items() if names}


def secrets_of(stack: Stack) -> dict[str, str]:
    """The secrets to search for, by name, without the prefix that all secrets of a kind have."""
    environment, keys = stack.environment, stack.keys
    return {
        "ittybit's key": environment["ITTYBIT_API_KEY"].removeprefix("ittybit_local_"),
        "Supabase's secret key": environment["SUPABASE_SECRET_KEY"].removeprefix("sb_secret_"),
        "the signing secret": environment["FUNCTIONS_SECRET"].removeprefix("whsec_"),
        "the token": environment["FUNCTIONS_TOKEN"],
        "the S3 secret": environment["SUPABASE_S3_SECRET_ACCESS_KEY"],
        "the JWT secret": keys.jwt_secret,
        "the service_role key": keys.service_role_jwt.rpartition(".")[2],
    }


def _windows(secret: str) -> Iterator[str]:
    """Every part of a secret of this length: as it is, in JSON and in an address."""
    for form in {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}:
        for start in range(len(form) - WINDOW + 1):
            yield form[start : start + WINDOW]


def tables(connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """Every table and view of the project with its rows as text; and the server's code, statements and settings."""
    found = rows(
        connection,
        "select n.nspname as schema, c.relname as name"
        " from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p', 'v', 'm') and n.nspname not in ('pg_catalog', 'information_schema')"
        " and n.nspname not like 'pg_t%' order by 1, 2",
    )
    for table in found:
        statement = SQL("select t::text as row from {} as t").format(Identifier(table["schema"], table["name"]))
        yield f"{table['schema']}.{table['name']}", [row["row"] for row in connection.execute(statement).fetchall()]
    for what, query in {
        "functions' code": "select prosrc as row from pg_proc where pronamespace <> 'pg_catalog'::regnamespace",
        "triggers": "select pg_get_triggerdef(oid) as row from pg_trigger",
        "comments": "select description as row from pg_description where classoid <> 0 and objoid >= 16384",
        "statements": "select query as row from pg_stat_activity where query <> ''",
        "the doctor": "select d::text as row from ittybit.doctor() as d",
        "settings": "select coalesce(setting, '') as row from pg_settings",
    }.items():
        yield what, [row["row"] or "" for row in rows(connection, query)]


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder: its path, and its name and text. Files that are deleted meanwhile are left out."""
    for root, _, names in os.walk(folder):
        for path in (path for name in names if (path := Path(root, name)).is_file()):
            with contextlib.suppress(FileNotFoundError):
                yield path, f"{path.name}\n{path.read_bytes().decode('utf-8', 'replace')}"


def processes(stack: Stack) -> Iterator[tuple[str, str]]:
    """The command line of every process, this one too, and the environment of all but the functions."""
    holders = {function._process.pid for function in stack.functions.values()}
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            yield "command lines", " ".join(process.cmdline())
            if not holders & {process.pid, process.ppid()}:
                yield "environments", json.dumps(process.environ())
        except psutil.Error:  # it has ended, or belongs to another user
            continue
