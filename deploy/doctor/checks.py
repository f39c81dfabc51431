"""The checks, in order. A check that needs what an earlier one found missing is skipped, and says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import psycopg

from deploy.database_address import REMEDY, AddressError, read
from deploy.doctor import functions, ittybit, s3, supabase
from deploy.doctor.database import CHECKS, IN_STUDIO, Database, Setup, agree
from deploy.doctor.finding import Finding, failure, ok, skipped, warning
from deploy.doctor.requests import NoAnswerError
from deploy.output import on_a_line
from shared import settings as environment_settings
from shared.errors import ServiceError
from shared.ittybit_models import Action, Connection
from shared.redaction import Redactor
from shared.settings import OUT_OF_REACH, Settings

# The variables for the functions' addresses that are not in the database.
ADDRESSES = {
    "on-upload": "ON_UPLOAD_URL",
    "push-back": "PUSH_BACK_URL",
    "create-connection": "CREATE_CONNECTION_URL",
}
_OUTSIDE = (
    "supabase key",
    "data api",
    *functions.NAMES,
    "clocks",
    "ittybit key",
    "ittybit api",
    "automations",
    "connection",
    "s3 keys",
)


def examine(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the project that the variables describe; yield each finding, without secrets."""
    redact = Redactor(_secrets(environment))
    for finding in _Examination(environment).findings():
        remedy = finding.remedy and on_a_line(redact(finding.remedy))
        yield finding.model_copy(update={"saw": on_a_line(redact(finding.saw)), "remedy": remedy})


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets in the variables, valid or not: no finding may contain one."""
    names = (
        "ITTYBIT_API_KEY",
        "SUPABASE_SECRET_KEY",
        "FUNCTIONS_TOKEN",
        "SUPABASE_S3_SECRET_ACCESS_KEY",
        "DATABASE_URL",
    )
    secrets = [environment.get(name, "").strip() for name in names]
    secrets += [secret.strip() for secret in environment.get("FUNCTIONS_SECRET", "").split(",")]
    # An address that cannot be read is never quoted.
    with contextlib.suppress(AddressError):
        secrets.append(read(environment.get("DATABASE_URL", "")).get("password", ""))
    return secrets


class _Examination:
    """One examination of one project; later checks use what earlier ones found out."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._settings: Settings | None = None
        self._setup: Setup | None = None
        self._signing: str | None = None
        self._database_ahead: float | None = None
        self._connections: list[Connection] = []

    def findings(self) -> Iterator[Finding]:
        yield self._look_at_settings()
        yield from self._look_at_database()
        if self._settings is None:
            yield from (_needs(check, "settings") for check in _OUTSIDE)
            return
        yield from self._look_at_supabase(self._settings)
        yield from self._look_at_functions(self._settings)
        yield from self._look_at_ittybit(self._settings)

    def _look_at_settings(self) -> Finding:
        remedy = "Correct it in .env; docs/environment.md describes every variable."
        try:
            self._settings = environment_settings.load(self._environment)
        except SystemExit as stopped:
            faults = [line.strip() for line in str(stopped).splitlines()[1:]]
            return failure("settings", "; ".join(faults), remedy)
        if not self._settings.functions_secret and not self._settings.functions_token:
            return failure(
                "settings", "neither FUNCTIONS_SECRET nor FUNCTIONS_TOKEN is set: every call is refused", remedy
            )
        if self._settings.is_out_of_reach:
            return warning("settings", f"complete, for {self._settings.supabase_url}", f"{OUT_OF_REACH}.")
        return ok("settings", f"complete, for {self._settings.supabase_url}")

    def _look_at_database(self) -> Iterator[Finding]:
        url = self._environment.get("DATABASE_URL", "").strip()
        if not url:
            yield warning("database", "not checked: DATABASE_URL is not set", f"Set it, or {IN_STUDIO}")
            return
        remedy = f"Check DATABASE_URL (Dashboard > Connect), or {IN_STUDIO}"
        try:
            with Database.connect(url) as database:
                yield from self._look_into(database)
        except AddressError as error:
            yield failure("database", str(error), REMEDY)
        except psycopg.Error as error:
            yield failure("database", _first_line(error), remedy)
        else:
            return
        yield from (_needs(check, "database") for check in ("migrations", *CHECKS))

    def _look_into(self, database: Database) -> Iterator[Finding]:
        self._database_ahead = database.ahead
        fault = None
        if lacking := database.lacking():
            saw = f"{database.saw}, which is not a Supabase project's: it lacks {', '.join(lacking)}"
            fault = failure("database", saw, "Set DATABASE_URL to the project's own database: Dashboard > Connect.")
        elif not database.may_look:
            saw = f"{database.saw}, which may not use schema ittybit"
            fault = failure("database", saw, "Connect as the project's postgres role.")
        if fault:
            yield fault
            yield from (_needs(check, "database") for check in ("migrations", *CHECKS))
            return
        yield ok("database", database.saw)
        migrations = _attempt("migrations", database.migrations)
        yield migrations
        try:
            self._setup = database.setup()
            findings = database.findings()
        except (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction):
            yield from (_needs(check, "migrations") for check in CHECKS)
            return
        except psycopg.Error as error:
            yield failure("database", f"ittybit.doctor() failed: {_first_line(error)}", f"Try again, or {IN_STUDIO}")
            yield from (_needs(check, "database") for check in CHECKS)
            return
        for finding in findings:
            yield self._compare(finding, database, self._settings) if self._settings else finding

    def _compare(self, finding: Finding, database: Database, settings: Settings) -> Finding:
        """Compare a finding of the database with the settings here."""
        if finding.verdict == "ok" and finding.check == "secret":
            self._signing = database.signing_secret(settings.functions_secret)
            return agree(finding, self._signing, settings.functions_secret)
        if finding.verdict == "ok" and finding.check == "addresses":
            project = self._setup and self._setup.project
            if project and project != settings.supabase_url:
                saw = f"the ledger was set up for {project}, but SUPABASE_URL is {settings.supabase_url}"
                remedy = "Set SUPABASE_URL and DATABASE_URL to one project. For a copy: ./deploy.sh database --help."
                return failure("addresses", saw, remedy)
        return finding

    def _look_at_supabase(self, settings: Settings) -> Iterator[Finding]:
        key = _attempt("supabase key", lambda: supabase.key(settings))
        yield key
        if key.verdict == "failure":
            yield _needs("data api", "supabase key")
        else:
            yield _attempt("data api", lambda: supabase.data_api(settings, self._environment))

    def _look_at_functions(self, settings: Settings) -> Iterator[Finding]:
        signing = self._signing or next(iter(settings.functions_secret), None)
        if signing is None and settings.functions_token is None:
            yield from (_needs(check, "settings") for check in (*functions.NAMES, "clocks"))
            return
        visits = {}
        for name in functions.NAMES:
            url = self._address(name)
            if url is None:
                yield skipped(name, "its address is not known", f"Deploy it, or set {ADDRESSES[name]}.")
                continue
            visits[name] = functions.visit(name, url, settings, signing)
            yield visits[name].finding
        yield functions.clocks(visits, self._database_ahead)

    def _address(self, name: str) -> str | None:
        """The function's address from the database or else the environment, as seen from here, not from a container."""
        known = self._setup and {"on-upload": self._setup.on_upload_url, "push-back": self._setup.push_back_url}.get(
            name
        )
        url = known or self._environment.get(ADDRESSES[name], "").strip()
        return url.replace("//host.docker.internal:", "//127.0.0.1:") or None

    def _look_at_ittybit(self, settings: Settings) -> Iterator[Finding]:
        key = _attempt("ittybit key", lambda: self._look_at_key(settings))
        yield key
        if key.verdict != "ok":
            yield from (
                _needs(check, "ittybit key") for check in ("ittybit api", "automations", "connection", "s3 keys")
            )
            return
        actions = self._actions(settings)
        api = _attempt("ittybit api", lambda: ittybit.api(settings, actions or {}))
        yield api
        if api.verdict == "failure":
            yield _needs("automations", "ittybit api")
        elif actions is None:
            yield skipped("automations", "without the database the rules are not known")
        else:
            yield _attempt("automations", lambda: ittybit.automations(settings, actions))

        rules = self._setup.rules if self._setup else ()
        is_needed = any(_writes(rule.action) for rule in rules) if self._setup else None
        connection = ittybit.find(settings, self._connections)
        finding = ittybit.connection(settings, connection, is_needed=is_needed)
        yield finding
        if connection is None or finding.verdict != "ok":
            yield _needs("s3 keys", "connection")
        else:
            buckets = sorted({bucket for rule in rules for bucket in rule.buckets})
            yield _attempt("s3 keys", lambda: s3.keys(settings, connection, buckets))

    def _look_at_key(self, settings: Settings) -> Finding:
        self._connections = ittybit.connections(settings)
        return ok("ittybit key", f"{settings.ittybit_api_url} accepts it")

    def _actions(self, settings: Settings) -> dict[str, Action] | None:
        """The action of each rule, or that of plain mode; None if neither is known."""
        if self._setup is not None:
            return {f"rule {rule.name}": rule.action for rule in self._setup.rules}
        automation_id = settings.ittybit_automation_id
        return {"plain mode": Action(automation_id=automation_id)} if automation_id else None


def _writes(action: Action) -> bool:
    """Whether ittybit writes the action's results into a bucket through the project's connection."""
    return action.run is not None or (action.task is not None and action.task.destination is not None)


def _needs(check: str, other: str) -> Finding:
    return skipped(check, f"needs {other!r} to be ok")


def _attempt(check: str, look: Callable[[], Finding]) -> Finding:
    """Make one check; an error becomes its finding."""
    try:
        return look()
    except ServiceError as error:
        remedy = error.remedy
        if error.status is not None and 300 <= error.status < 400:
            remedy = "It redirects, and keys are not sent to another address: set the final address."
        return failure(check, f"{error.service}: {error.message}", remedy)
    except NoAnswerError as error:
        return failure(check, str(error), "Check SUPABASE_URL.")
    except psycopg.Error as error:
        return failure(check, _first_line(error), "Try again; if that does not help, apply supabase/migrations again.")


def _first_line(error: psycopg.Error) -> str:
    """The first line of PostgreSQL's or libpq's error. It never has a password."""
    return next(iter(str(error).splitlines()), type(error).__name__)
