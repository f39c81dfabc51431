"""The faults that a project can have, and what the doctor must say of each."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from unittest.mock import patch

from shared import __version__
from tests.deploy.examined import Examined

Changes = Mapping[str, str] | None
# What a check must say: its verdict, a part of what it saw and a part of the remedy.
Said = tuple[str, str, str]
OTHER_SECRET = "whsec_" + base64.b64encode(b"a secret that nobody else knows.").decode()


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        make: makes the fault and removes it again; gives the doctor's variables that it changes.
        expected: the checks that find it; a check's name has _ for a space or hyphen.
        skips: the checks that cannot be made because of it.
    """

    name: str
    make: Callable[[Examined], AbstractContextManager[Changes]]
    expected: Mapping[str, Said]
    skips: frozenset[str]


FAULTS: list[Fault] = []


def fault(skips: set[str] | None = None, **expected: Said) -> Callable[[Callable[[Examined], Iterator[Changes]]], None]:
    """Add the fault that a generator function makes, gives and removes."""

    def decorate(make: Callable[[Examined], Iterator[Changes]]) -> None:
        FAULTS.append(Fault(make.__name__, contextlib.contextmanager(make), expected, frozenset(skips or ())))

    return decorate


def in_environment(changes: Mapping[str, str], skips: set[str] | None = None, **expected: Said) -> None:
    """Add a fault of the variables alone."""

    @contextlib.contextmanager
    def make(_: Examined) -> Iterator[Changes]:
        yield changes

    name = " ".join(f"{variable}={value}" for variable, value in changes.items())
    FAULTS.append(Fault(name, make, expected, frozenset(skips or ())))


def in_database(statement: str, mending: str = "", *, again: str = "", **expected: Said) -> None:
    """Add a fault that a statement makes; another statement, or a migration applied again, removes it."""

    @contextlib.contextmanager
    def make(on: Examined) -> Iterator[Changes]:
        # A job of pg_cron could change the fault.
        with on.cron_stopped():
            on.root(statement)
            try:
                yield None
            finally:
                on.root(mending) if mending else on.apply(again)

    FAULTS.append(Fault(statement, make, expected, frozenset()))


def at_on_upload(make: Callable[[Examined], AbstractContextManager[None]], saw: str, remedy: str) -> None:
    """Add a fault of on-upload or of its address."""

    @contextlib.contextmanager
    def made(on: Examined) -> Iterator[Changes]:
        with make(on):
            yield None

    FAULTS.append(Fault(saw, made, {"on_upload": ("failure", saw, remedy)}, frozenset()))


OUTSIDE = {
    *("supabase_key", "data_api", "on_upload", "push_back", "create_connection", "clocks"),
    *("ittybit_key", "ittybit_api", "automations", "connection", "s3_keys"),
}
INSIDE = {
    *("triggers", "rpcs", "addresses", "secret", "pg_net", "pg_cron", "rules", "buckets", "limits", "results"),
    *("starts", "holds", "functions", "waiting", "lost"),
}
UNSEEN = {"migrations", "automations", *INSIDE}

# The variables -------------------------------------------------------------------------------------------------------

in_environment(
    {"ITTYBIT_API_KEY": "", "SUPABASE_URL": ""},
    OUTSIDE,
    settings=("failure", "ITTYBIT_API_KEY is missing; SUPABASE_URL is missing", "docs/environment.md"),
)


@fault(OUTSIDE, settings=("failure", "SUPABASE_SECRET_KEY must not be a publishable or anon key", ".env"))
def the_secret_key_is_the_anon_key(on: Examined) -> Iterator[Changes]:
    yield {"SUPABASE_SECRET_KEY": on.stack.keys.anon_jwt}


in_environment(
    {"FUNCTIONS_SECRET": "", "FUNCTIONS_TOKEN": ""},
    {"on_upload", "push_back", "create_connection", "clocks"},
    settings=("failure", "neither FUNCTIONS_SECRET nor FUNCTIONS_TOKEN", ".env"),
    secret=("failure", "is not the FUNCTIONS_SECRET set here", "./deploy.sh database"),
)
in_environment(
    {"DATABASE_URL": ""},
    {"automations"},
    database=("warning", "DATABASE_URL is not set", "select * from ittybit.doctor();"),
)
in_environment(
    {"DATABASE_URL": "postgresql//postgres:a-password-of-mine@host/postgres"},
    UNSEEN,
    database=("failure", "DATABASE_URL is not an address", "Dashboard > Connect"),
)
in_environment(
    {"DATABASE_URL": "postgresql://postgres:a-password-50%of-mine@host:5432/postgres"},
    UNSEEN,
    database=("failure", "has a % that encodes nothing", "Dashboard > Connect"),
)
in_environment(
    {"DATABASE_URL": "postgresql://postgres:a-password-of-mine@127.0.0.1:9/postgres"},
    UNSEEN,
    database=("failure", "connection failed", "Check DATABASE_URL"),
)


@fault(UNSEEN, database=("failure", "may not use schema ittybit", "Connect as the project's postgres"))
def the_database_s_role_may_not_use_the_schema(on: Examined) -> Iterator[Changes]:
    yield {"DATABASE_URL": on.environment["DATABASE_URL"].replace("postgres@", "authenticator@")}


# What the migrations made --------------------------------------------------------------------------------------------


@fault({"automations", *INSIDE}, migrations=("failure", "this database has no ledger", "./deploy.sh database"))
def the_migrations_were_never_applied(on: Examined) -> Iterator[Changes]:
    with on.another_database("create schema storage; create table storage.objects ()") as address:
        yield {"DATABASE_URL": address}


@fault(
    {"migrations", "automations", *INSIDE},
    database=("failure", "is not a Supabase project's: it lacks table storage.objects", "the project's own database"),
)
def the_database_is_not_supabase_s(on: Examined) -> Iterator[Changes]:
    with on.another_database("select") as address:
        yield {"DATABASE_URL": address}


@fault(set(INSIDE), migrations=("failure", "missing: ittybit.doctor", "./deploy.sh database"))
def the_doctor_s_migration_is_missing(on: Examined) -> Iterator[Changes]:
    on.sql("drop function ittybit.doctor()")
    yield None
    on.apply("doctor")


in_database(
    "create or replace function ittybit.places(name text) returns text[] language sql immutable strict parallel safe"
    " set search_path = '' as $$ select array[name] $$",
    again="upload",
    migrations=("warning", "differ from this clone: ittybit.places", "./deploy.sh database"),
)
in_database(
    "drop trigger ittybit_object_stored on storage.objects",
    again="upload",
    triggers=("failure", "ittybit_object_stored is missing", "…_ittybit_upload.sql again"),
)
in_database(
    "alter table storage.objects disable trigger ittybit_object_removed",
    again="upload",
    triggers=("failure", "ittybit_object_removed is disabled", "…_ittybit_upload.sql again"),
)
in_database(
    "create or replace trigger ittybit_object_replaced after update of version on storage.objects"
    " for each row execute function ittybit.object_stored()",
    again="upload",
    triggers=("failure", "ittybit_object_replaced is not what the migrations define", "…_ittybit_upload.sql again"),
)
in_database(
    "grant execute on function public.ittybit_claim to anon",
    again="work",
    rpcs=("failure", "public.ittybit_claim may be called by anon", "…_ittybit_work.sql again"),
    data_api=("failure", "ittybit_claim answers HTTP 400 to the publishable key", "…_ittybit_work.sql again"),
)
in_database(
    "grant execute on function public.ittybit_report to authenticated",
    again="work",
    rpcs=("failure", "public.ittybit_report may be called by authenticated", "…_ittybit_work.sql again"),
)
in_database(
    "revoke execute on function public.ittybit_claim from service_role",
    again="work",
    rpcs=("failure", "public.ittybit_claim may not be called by service_role", "…_ittybit_work.sql again"),
    data_api=("failure", "permission denied", "SUPABASE_SECRET_KEY"),
    on_upload=("failure", "cannot work: HTTP 503", "Fix what it says"),
    push_back=("failure", "cannot work: HTTP 503", "Fix what it says"),
)
in_database(
    "drop function public.ittybit_report",
    again="work",
    migrations=("failure", "missing: public.ittybit_report", "./deploy.sh database"),
    rpcs=("failure", "public.ittybit_report is missing", "…_ittybit_work.sql again"),
)


# What the project provides -------------------------------------------------------------------------------------------


@fault(addresses=("failure", "push-back has no address, and a rule needs it", "./deploy.sh database"))
def an_address_is_not_set(on: Examined) -> Iterator[Changes]:
    change = "update ittybit.functions set url = %s where name = 'push-back'"
    [(former,)] = on.sql("select url from ittybit.functions where name = 'push-back'")
    on.sql(change, None)
    yield None
    on.sql(change, former)


@fault(
    addresses=(
        "failure",
        "set up for https://other.test, but SUPABASE_URL is http://127.0.0.1",
        "./deploy.sh database",
    ),
    on_upload=("failure", "set up for https://other.test", "Fix what it says"),
    push_back=("failure", "set up for https://other.test", "Fix what it says"),
)
def the_ledger_is_another_project_s(on: Examined) -> Iterator[Changes]:
    on.sql("update ittybit.settings set project = 'https://other.test' where singleton")
    yield None
    on.sql("update ittybit.settings set project = %s where singleton", on.environment["SUPABASE_URL"])


def in_vault(secret: str, saw: str, remedy: str) -> None:
    """Add the fault that Vault has another secret."""

    @fault(secret=("failure", saw, remedy))
    def vault_has_another_secret(on: Examined) -> Iterator[Changes]:
        change = "select vault.update_secret(id, %s) from vault.secrets where name = 'ittybit_functions_secret'"
        on.sql(change, secret)
        yield None
        on.sql(change, on.environment["FUNCTIONS_SECRET"])


in_vault("whsec_c2hvcnQ=", "the secret in Vault is not whsec_", "vault.update_secret")
in_vault(OTHER_SECRET, "the secret in Vault is not the FUNCTIONS_SECRET set here", "./deploy.sh database")
in_database(
    "update vault.secrets set name = 'another' where name = 'ittybit_functions_secret'",
    "update vault.secrets set name = 'ittybit_functions_secret' where name = 'another'",
    secret=("failure", "no secret ittybit_functions_secret in Vault", "vault.create_secret"),
)
in_database(
    "alter view vault.decrypted_secrets rename to gone",
    "alter view vault.gone rename to decrypted_secrets",
    secret=("failure", "Vault is not installed", "create extension supabase_vault"),
)


@fault(pg_net=("failure", "its worker is not running", "select net.worker_restart();"))
def pg_net_s_worker_is_dead(on: Examined) -> Iterator[Changes]:
    on.net.pause()
    yield None
    on.net.resume()


in_database(
    "alter function net.http_post rename to gone",
    "alter function net.gone rename to http_post",
    pg_net=("failure", "pg_net is not installed", "create extension pg_net"),
)
in_database(
    "revoke all on net.http_request_queue from public",
    "grant all on net.http_request_queue to public",
    pg_net=("failure", "permission denied for table http_request_queue", "Switch pg_net off and on"),
)
in_database(
    # Rows that are inserted by hand do not wake the worker.
    "insert into net.http_request_queue (method, url, timeout_milliseconds)"
    " select 'POST', 'http://127.0.0.1:9', 1000 from generate_series(1, 1000)",
    "truncate net.http_request_queue",
    pg_net=("warning", "requests that wait in its queue: 1000", "group by url"),
)
in_database(
    "revoke pg_monitor from postgres",
    "grant pg_monitor to postgres",
    pg_net=("warning", "cannot be seen by postgres", "grant pg_read_all_stats to postgres"),
)
in_database(
    "alter table cron.job rename to gone",
    "alter table cron.gone rename to job",
    pg_cron=("failure", "pg_cron is not installed", "create extension pg_cron"),
)
in_database(
    "delete from cron.job where jobname = 'ittybit-sweep'",
    again="housekeeping",
    pg_cron=("failure", "ittybit-sweep is not scheduled", "Apply supabase/migrations again"),
)
in_database(
    "update cron.job set active = false where jobname like 'ittybit-%'",
    "update cron.job set active = true where jobname like 'ittybit-%'",
    pg_cron=("failure", "ittybit-wake-up is not active", "cron.alter_job(jobid, active => true)"),
)
in_database(
    "update cron.job set command = 'select 1' where jobname = 'ittybit-wake-up'",
    again="housekeeping",
    pg_cron=("failure", "ittybit-wake-up runs another command", "Apply supabase/migrations again"),
)
in_database(
    "insert into cron.job_run_details (jobid, status, return_message, start_time, end_time)"
    " select jobid, 'failed', 'no such table', now(), now() from cron.job where jobname = 'ittybit-wake-up'",
    "delete from cron.job_run_details where status = 'failed'",
    pg_cron=("failure", "no such table", "cron.job_run_details"),
)
in_database(
    "update cron.job_run_details set start_time = start_time - interval '3 minutes'",
    "truncate cron.job_run_details",
    pg_cron=("failure", "ittybit-wake-up has not run since", "pg_cron has stopped: restart the database"),
)
in_database(
    "truncate cron.job_run_details",
    "select",
    pg_cron=("warning", "ittybit-sweep has not run yet", "Run this again in a minute"),
)


# The rules -----------------------------------------------------------------------------------------------------------


def of_a_rule(columns: str, values: str, task: str, *, bucket: str = "", **expected: Said) -> None:
    """Add the fault that a rule makes; ``bucket`` is a statement that makes its bucket."""
    in_database(
        f"{bucket}; insert into ittybit.rules (name, task, {columns}) values ('faulty', '{task}', {values})",  # noqa: S608
        "delete from ittybit.rules where name = 'faulty';"
        " set storage.allow_delete_query = 'true'; delete from storage.buckets where id = 'small'",
        again="",
        **expected,
    )


in_database(
    "update ittybit.rules set enabled = false",
    "update ittybit.rules set enabled = true",
    rules=("warning", "no rule is enabled (disabled: 3)", "Add or enable one"),
)
of_a_rule(
    *("bucket_id", "'elsewhere'", '{"kind": "image", "destination": "s3://media/processed/{name}"}'),
    buckets=("failure", "there is no bucket elsewhere (rule faulty)", "Make the bucket"),
)
of_a_rule(
    *("bucket_id", "'media'", '{"kind": "image", "destination": "s3://results/{name}"}'),
    buckets=("failure", "there is no bucket results (rule faulty)", "correct the rule"),
)
of_a_rule(
    *("bucket_id", "'media'", '{"kind": "video", "destination": "s3://small/{name}"}'),
    bucket="insert into storage.buckets (id, name, file_size_limit) values ('small', 'small', 2000000)",
    limits=("warning", "bucket small takes 2000000 bytes a file, results may be larger (rule faulty)", "Raise the"),
)
of_a_rule(
    *("bucket_id, path", "'media', '*'", '{"kind": "video", "destination": "s3://media/made/{name}"}'),
    results=("warning", "results of rule faulty, such as made/sample.mp4, match rule", "output prefix"),
)
in_database(
    "update storage.buckets set allowed_mime_types = '{video/*,audio/mpeg}'",
    "update storage.buckets set allowed_mime_types = null",
    limits=("failure", "bucket media does not accept image/jpeg (rule still)", "Allow the type"),
)


# The state of the work -----------------------------------------------------------------------------------------------

in_database(
    "select ittybit.pause()",
    "select ittybit.resume()",
    starts=("warning", "paused: nothing starts", "select ittybit.resume();"),
)
in_database(
    "update ittybit.settings set tripped_at = now()",
    "select ittybit.resume()",
    starts=("failure", "starts_per_day was reached", "select ittybit.resume();"),
)
in_database(
    "update ittybit.settings set starts_per_hour = 0",
    "update ittybit.settings set starts_per_hour = 1000",
    starts=("warning", "a ceiling is reached", "raise starts_per_hour"),
)
for scope, remedy in (
    ("all", "Top up the ittybit account"),
    ("function:on-upload", "Give the function an ITTYBIT_API_KEY that is valid"),
    ("rule:still", "Run ./deploy.sh connection if"),
):
    in_database(
        "insert into ittybit.holds (scope, error, probe_at)"  # noqa: S608 - constants of this file
        f""" values ('{scope}', '{{"message": "no more"}}', now() + interval '5 minutes')""",
        "delete from ittybit.holds",
        holds=("failure", f"ittybit refuses {scope} since", remedy),
    )


def of_a_job(columns: str, values: str, **expected: Said) -> None:
    """Add the fault that a job shows which no function claims: the doctor's own calls find nothing due."""
    in_database(
        f"insert into ittybit.jobs (rule, bucket_id, name, action, function, {columns})"  # noqa: S608 - constants of this file
        f""" values ('soundtrack', 'media', 'late.mp4', '{{"automation_id": "auto_1"}}', 'on-upload', {values})""",
        "delete from ittybit.jobs",
        again="",
        **expected,
    )


LATE = "jobs that no function has claimed: 1, due since"
of_a_job("due_at", "now() - interval '2 minutes'", waiting=("warning", LATE, "fix what their lines say"))
of_a_job("due_at", "now() - interval '1 hour'", waiting=("failure", LATE, "fix what their lines say"))
of_a_job(
    *("due_at, claimed_at, lost", "now() + interval '50 seconds', now(), 3"),
    lost=("warning", "never reported: 1, such as media/late.mp4 (3 times)", "they end before they report"),
)
in_database(
    "insert into net._http_response (id, status_code) values (-1, 401); update ittybit.functions"
    " set awaited_since = now() - interval '20 seconds', request_id = -1, claimed_at = null where name = 'on-upload'",
    "delete from net._http_response; update ittybit.functions set awaited_since = null where name = 'on-upload'",
    functions=("failure", "has claimed nothing since; the last answer: HTTP 401", "Check that the functions run"),
)


# The project over HTTP -----------------------------------------------------------------------------------------------

in_environment(
    {"SUPABASE_SECRET_KEY": "sb_secret_of_nobody_0000"},
    {"data_api"},
    supabase_key=("failure", "Invalid API key", "check SUPABASE_SECRET_KEY"),
)


@fault({"data_api"}, supabase_key=("failure", "storage: A fault on demand", "try again later"))
def storage_is_down(on: Examined) -> Iterator[Changes]:
    on.stack.supabase.add("GET", "/storage/v1/bucket", status=503, times=10)
    yield None
    on.stack.supabase.clear()


@fault(data_api=("failure", "ledger: HTTP 301", "set the final address"))
def the_data_api_redirects(on: Examined) -> Iterator[Changes]:
    # The functions claim too: the doctor's own claim is the first, and only that is redirected.
    on.stack.supabase.add("POST", "/rest/v1/rpc/ittybit_claim", status=301, headers={"Location": "https://else.where/"})
    yield None
    on.stack.supabase.clear()


# The functions -------------------------------------------------------------------------------------------------------

FINAL = {"Location": "https://final.example.com/on-upload?token=abcdefgh"}


@fault(on_upload=("warning", f"its version is 0.0.9, this clone's is {__version__}", "Run ./deploy.sh functions"))
def a_function_is_of_another_version(on: Examined) -> Iterator[Changes]:
    with patch("shared.edge.__version__", "0.0.9"), on.deployed():
        yield None


at_on_upload(lambda on: on.at_on_upload("http://127.0.0.1:9"), "no answer (ConnectError)", "runs at http://127.0.0.1:9")
at_on_upload(lambda on: on.answering(302, FINAL), "to https://final.example.com/on-upload (HTTP 302)", "Use the final")
at_on_upload(lambda on: on.answering(403), "its host refuses callers", "--no-invoker-iam-check")
at_on_upload(lambda on: on.answering(404), "there is no function at its address", "Deploy it")
at_on_upload(lambda on: on.answering(200), "does not refuse a wrong signature (HTTP 200)", "not a function of this")
at_on_upload(lambda on: on.answering(502), "HTTP 502", "See its log")
at_on_upload(lambda on: on.at_on_upload(on.environment["PUSH_BACK_URL"]), "push-back is at its", "Correct the address")
at_on_upload(
    lambda on: on.at_on_upload(on.environment["CREATE_CONNECTION_URL"]), "create-connection is at", "Correct the"
)
at_on_upload(
    lambda on: on.deployed(FUNCTIONS_SECRET=OTHER_SECRET),
    "refuses the FUNCTIONS_SECRET that is set",
    "Deploy it with",
)
at_on_upload(
    lambda on: on.deployed(SUPABASE_SECRET_KEY="sb_secret_of_nobody_0000"), "HTTP 503 ledger: Invalid API key", "Fix"
)
in_environment(
    {"CREATE_CONNECTION_URL": "http://127.0.0.1:9"},
    create_connection=("failure", "no answer (ConnectError)", "Check that it runs at"),
)
in_environment({"CREATE_CONNECTION_URL": ""}, {"create_connection"})


@fault(clocks=("failure", "on-upload 6", "Set the clock of the functions' host"))
def a_host_s_clock_is_wrong(on: Examined) -> Iterator[Changes]:
    with on.ahead(650):
        yield None


@fault(clocks=("warning", "on-upload -1", "Set the host's clock"))
def a_host_s_clock_drifts(on: Examined) -> Iterator[Changes]:
    with on.ahead(-150):
        yield None


# ittybit -------------------------------------------------------------------------------------------------------------

in_environment(
    {"ITTYBIT_API_KEY": "ittybit_key_of_nobody"},
    {"ittybit_api", "automations", "connection", "s3_keys"},
    ittybit_key=("failure", "ittybit: The API key is not valid.", "check ITTYBIT_API_KEY"),
)
in_environment(
    {"ITTYBIT_API": "jobs"},
    {"automations"},
    ittybit_api=("failure", "ITTYBIT_API is jobs, but http://127.0.0.1", "set it to auto"),
)


@fault(automations=("failure", "auto_of_nobody (rule soundtrack)", "correct the rule's automation_id"))
def an_automation_is_not_there(on: Examined) -> Iterator[Changes]:
    change = "update ittybit.rules set automation_id = %s where name = 'soundtrack'"
    on.sql(change, "auto_of_nobody")
    yield None
    on.sql(change, on.automation)


@fault(automations=("failure", "ittybit: A fault on demand", "try again later"))
def ittybit_shows_no_automation(on: Examined) -> Iterator[Changes]:
    on.stack.ittybit_api.add("GET", "/automations/.*", status=500, times=10)
    yield None
    on.stack.ittybit_api.clear()


def patched(
    path: Callable[[Examined], str], field: str, value: str, skips: set[str] | None = None, **expected: Said
) -> None:
    """Add the fault that a field of an object at ittybit has another value."""

    @fault(skips, **expected)
    def ittybit_has_another_value(on: Examined) -> Iterator[Changes]:
        former = on.ittybit("GET", path(on))[field]
        on.ittybit("PATCH", path(on), json={field: value})
        yield None
        on.ittybit("PATCH", path(on), json={field: former})


def _connection(on: Examined) -> str:
    return f"connections/{on.connection}"


patched(
    *(lambda on: f"automations/{on.automation}", "status", "paused"),
    automations=("failure", "(rule soundtrack) is paused", "Activate it"),
)
patched(
    *(_connection, "name", "another", {"s3_keys"}),
    connection=("failure", "there is no connection supabase-127-0-0-1", "Run ./deploy.sh connection"),
)
patched(
    *(_connection, "region", "elsewhere", {"s3_keys"}),
    connection=("failure", "has another region than this project", "Run ./deploy.sh connection"),
)
patched(
    *(_connection, "secret_access_key", "0123456789abcdef"),
    s3_keys=("failure", "secret_access_key: it does not belong to the access key id", "./deploy.sh connection"),
)
in_environment(
    {"SUPABASE_S3_ACCESS_KEY_ID": "0123456789abcdef"},
    {"s3_keys"},
    connection=("failure", "has another access_key_id than this project", "Run ./deploy.sh connection"),
)
in_environment(
    {"ITTYBIT_CONNECTION_ID": "con_of_nobody"},
    {"s3_keys"},
    connection=("failure", "there is no connection con_of_nobody", "Correct ITTYBIT_CONNECTION_ID"),
)
in_database(
    "update storage.buckets set allowed_mime_types = '{text/plain}'",
    "update storage.buckets set allowed_mime_types = null",
    s3_keys=("failure", "bucket 'media' takes none of", "./deploy.sh connection"),
    limits=("failure", "bucket media does not accept", "Allow the type"),
)
