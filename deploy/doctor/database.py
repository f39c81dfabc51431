"""The database checks: its own findings (``ittybit.doctor()``), and comparisons that need a clone of the project."""

from __future__ import annotations

import contextlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, TypeAdapter
from standardwebhooks import Webhook

from deploy.database_address import read
from deploy.doctor.finding import Finding, failure, ok, warning
from shared.ittybit_models import Action

# The checks of ittybit.doctor(), in its order.
CHECKS = (
    *("triggers", "rpcs", "addresses", "secret", "pg_net", "pg_cron", "rules", "buckets", "limits", "results"),
    *("starts", "holds", "functions", "waiting", "lost"),
)
IN_STUDIO = "run in Studio's SQL editor: select * from ittybit.doctor();"
MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"
NOT_SUPABASE = Path(__file__).parents[1] / "not_supabase.sql"
_APPLY = "Apply supabase/migrations: ./deploy.sh database."
_CONNECT_SECONDS = 10
_STATEMENT = "set local statement_timeout = '15s'; set local lock_timeout = '2s'; set transaction read only"
# What ittybit.secret_signature() signs.
_SIGNED = ("doctor", datetime.fromtimestamp(0, UTC), "the secret of ittybit.doctor()")


class Rule(BaseModel):
    """An enabled rule's action, and the existing buckets that it writes to."""

    name: str
    action: Action
    buckets: tuple[str, ...]


class Setup(BaseModel):
    """The facts of the database that the checks from outside need."""

    project: str | None
    on_upload_url: str | None
    push_back_url: str | None
    rules: tuple[Rule, ...]


class Database:
    """A connection as the project's ``postgres`` role, read only, each statement within a time limit.

    Attributes:
        ahead: seconds by which the database's clock is ahead of this machine's.
        saw: the role and the server's version.
    """

    def __init__(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self._connection = connection
        began = time.time()
        [row] = self._rows(
            "select clock_timestamp() as now, current_user as login, current_setting('server_version') as version,"
            " has_schema_privilege(to_regnamespace('ittybit'), 'usage') as may_look"
        )
        self.ahead = row["now"].timestamp() - (began + time.time()) / 2
        self.saw = f"{row['login']} on PostgreSQL {row['version']}"
        self.may_look: bool = row["may_look"] is not False

    @classmethod
    @contextlib.contextmanager
    def connect(cls, url: str) -> Iterator[Self]:
        """Connect until the end of the block.

        Raises:
            AddressError: the address cannot be read.
            psycopg.Error: the database does not answer, or refuses.
        """
        given: dict[str, Any] = read(url) | {"connect_timeout": _CONNECT_SECONDS, "application_name": "ittybit-doctor"}
        # A pooler may give each transaction another session: no prepared statements, no settings beyond a transaction.
        with psycopg.connect(autocommit=True, prepare_threshold=None, row_factory=dict_row, **given) as connection:
            yield cls(connection)

    def _rows(self, query: str) -> list[dict[str, Any]]:
        with self._connection.transaction():
            self._connection.execute(_STATEMENT)
            return self._connection.execute(query.encode()).fetchall()

    def lacking(self) -> list[str]:
        """The parts of a Supabase project that the database lacks; none if it is a Supabase project's."""
        return [str(row["lacking"]) for row in self._rows(NOT_SUPABASE.read_text())]

    def findings(self) -> list[Finding]:
        """The database's own findings."""
        return TypeAdapter(list[Finding]).validate_python(self._rows("select * from ittybit.doctor()"))

    def setup(self) -> Setup:
        """The facts that the checks from outside need."""
        [row] = self._rows(
            """
            select
              (select s.project from ittybit.settings as s) as project,
              (select f.url from ittybit.functions as f where f.name = 'on-upload') as on_upload_url,
              (select f.url from ittybit.functions as f where f.name = 'push-back') as push_back_url,
              coalesce(
                (
                  select jsonb_agg(
                    jsonb_build_object(
                      'name', r.name,
                      'action', jsonb_build_object('automation_id', r.automation_id, 'task', r.task, 'run', r.run),
                      'buckets', array(
                        select b.id from ittybit.steps(r.task, r.run) as s
                        join storage.buckets as b on b.id = substring(s.address from '^s3://([^/]+)/')
                      )
                    )
                    order by r.name
                  )
                  from ittybit.rules as r
                  where r.enabled
                ),
                '[]'
              ) as rules
            """
        )
        return Setup.model_validate(row)

    def signing_secret(self, secrets: tuple[str, ...]) -> str | None:
        """The one of these secrets that the database signs with, or None. Only a signature leaves the database."""
        [row] = self._rows("select ittybit.secret_signature() as signature")
        name, moment, text = _SIGNED
        signed = {secret: Webhook(secret).sign(name, moment, text) for secret in secrets}
        return next((one for one, its in signed.items() if hmac.compare_digest(its, row["signature"] or "")), None)

    def migrations(self) -> Finding:
        """Compare the installed functions with those that the migrations of this clone define."""
        there: dict[str, set[str]] = {}
        for row in self._rows(
            "select n.nspname || '.' || p.proname as name, p.prosrc as body"
            " from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace"
            r" where n.nspname = 'ittybit' or (n.nspname = 'public' and p.proname like 'ittybit\_%')"
        ):
            there.setdefault(row["name"], set()).add(row["body"])
        wanted = defined(MIGRATIONS)
        missing = [name for name in wanted if name not in there]
        others = [name for name, body in wanted.items() if name in there and body not in there[name]]
        if len(missing) == len(wanted):
            return failure("migrations", "this database has no ledger", _APPLY)
        if missing:
            return failure("migrations", f"missing: {_some(missing)}", _APPLY)
        if others:
            return warning("migrations", f"differ from this clone: {_some(others)}", _APPLY)
        newest = max(file.name.partition("_")[0] for file in MIGRATIONS.glob("*.sql"))
        return ok("migrations", f"all {len(wanted)} functions are those of this clone, up to {newest}")


def defined(migrations: Path) -> Mapping[str, str]:
    """The last body of each function that the migrations define, by the function's name with its schema.

    A function that is parsed when it is created (``return …``) has an empty body, as in ``pg_proc.prosrc``.
    """
    bodies = {}
    for file in sorted(migrations.glob("*.sql")):
        for definition in file.read_text().split("create or replace function ")[1:]:
            name = definition.partition("(")[0]
            body = re.search(r"\bas \$\$(.*?)\$\$;", definition, re.DOTALL)
            bodies[name] = body[1] if body else ""
    return bodies


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def agree(secret: Finding, signing: str | None, secrets: tuple[str, ...]) -> Finding:
    """Check whether the secret in Vault is the functions' secret too."""
    if signing is None:
        remedy = (
            "Put it there with ./deploy.sh database, or set FUNCTIONS_SECRET to what the functions were deployed with."
        )
        return failure("secret", "the secret in Vault is not the FUNCTIONS_SECRET set here", remedy)
    more = f"; it has {len(secrets)}: finish the rotation with ./deploy.sh rotate-secret" if len(secrets) > 1 else ""
    return ok("secret", f"{secret.saw}, and it is FUNCTIONS_SECRET{more}")
