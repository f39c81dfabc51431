"""What can be wrong with a project, one fault at a time, and what the doctor is to say of it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.deploy.examined import Examined

Changes = Mapping[str, str] | None
OTHER_SECRET = "whsec_" + base64.b64encode(b"a secret that nobody else knows.").decode()


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        make: makes it and mends it again; gives the doctor's variables that it changes.
        expected: the checks that find it, each with its verdict, a part of what it saw and a part of the remedy.
        skips: the checks that cannot be made because of it.
    """

    name: str
    make: Callable[[Examined], AbstractContextManager[Changes]]
    expected: Mapping[str, tuple[str, str, str]]
    skips: frozenset[str]


FAULTS: list[Fault] = []


def fault(
    skips: set[str] | None = None, **expected: tuple[str, str, str]
) -> Callable[[Callable[[Examined], Iterator[Changes]]], None]:
    """Add a fault to the list; a check's name has _ for a space or hyphen."""

    def decorate(make: Callable[[Examined], Iterator[Changes]]) -> None:
        FAULTS.append(Fault(make.__name__, contextlib.contextmanager(make), expected, frozenset(skips or ())))

    return decorate


def in_environment(name: str, skips: set[str] | None = None, **expected: tuple[str, str, str]) -> Callable[..., None]:
    """Add a fault that lies in the variables alone."""

    def add(**changes: str) -> None:
        @contextlib.contextmanager
        def make(_: Examined) -> Iterator[Changes]:
            yield changes

        FAULTS.append(Fault(name, make, expected, frozenset(skips or ())))

    return add


OUTSIDE = {
    *("supabase_key", "data_api", "on_upload", "push_back", "create_connection", "clocks"),
    *("ittybit_key", "automations", "connection", "s3_keys"),
}
INSIDE = {
    *("home", "triggers", "rpcs", "addresses", "secret", "pg_net", "pg_cron", "rules", "buckets", "limits", "results"),
    *("starts", "holds", "waiting", "unanswered"),
}

# The variables -------------------------------------------------------------------------------------------------------

in_environment(
    "two variables are missing",
    OUTSIDE,
    settings=("failure", "ITTYBIT_API_KEY is missing; SUPABASE_URL is missing", ".env.example"),
)(ITTYBIT_API_KEY="", SUPABASE_URL="")
in_environment(
    "an address is plain http",
    OUTSIDE,
    settings=("failure", "SUPABASE_URL must be https", ".env"),
)(SUPABASE_URL="http://ref.supabase.co")
in_environment(
    "no function could be called",
    {"on_upload", "push_back", "create_connection", "clocks"},
    settings=("failure", "neither FUNCTIONS_SECRET nor FUNCTIONS_TOKEN", ".env"),
    secret=("failure", "is not the FUNCTIONS_SECRET known here", "./deploy.sh database"),
)(FUNCTIONS_SECRET="", FUNCTIONS_TOKEN="")
in_environment(
    "the database is not told",
    {"automations"},
    database=("warning", "DATABASE_URL is not set", "select * from ittybit.doctor();"),
)(DATABASE_URL="")
in_environment(
    "the database's address is none",
    {"migrations", "automations", *INSIDE},
    database=("failure", "DATABASE_URL is not an address", "Dashboard > Connect"),
)(DATABASE_URL="postgresql//postgres:a-password-of-mine@host/postgres")
in_environment(
    "the database's password is not encoded",
    {"migrations", "automations", *INSIDE},
    database=("failure", "a password that is not percent-encoded", "Dashboard > Connect"),
)(DATABASE_URL="postgresql://postgres:a-password/of-mine@host:5432/postgres?pgbouncer=true")
in_environment(
    "the database does not answer",
    {"migrations", "automations", *INSIDE},
    database=("failure", "connection failed", "Check DATABASE_URL"),
)(DATABASE_URL="postgresql://postgres:a-password-of-mine@127.0.0.1:9/postgres")


@fault(
    {"migrations", "automations", *INSIDE}, database=("failure", "may not look", "Connect as the project's postgres")
)
def the_database_is_asked_as_a_role_that_may_not(on: Examined) -> Iterator[Changes]:
    yield {"DATABASE_URL": on.environment["DATABASE_URL"].replace("postgres@", "authenticator@")}


# What the migrations made --------------------------------------------------------------------------------------------


@fault({"automations", *INSIDE}, migrations=("failure", "this database has no ledger", "./deploy.sh database"))
def the_migrations_were_never_applied(on: Examined) -> Iterator[Changes]:
    on.root("create database empty")
    try:
        yield {"DATABASE_URL": on.environment["DATABASE_URL"].replace("/postgres?", "/empty?")}
    finally:
        on.root("drop database empty")


@fault(set(INSIDE), migrations=("failure", "missing: ittybit.doctor", "./deploy.sh database"))
def the_doctor_s_migration_is_missing(on: Examined) -> Iterator[Changes]:
    on.sql("drop function ittybit.doctor()")
    yield None
    on.apply("doctor")


@fault(migrations=("warning", "other than in this clone: ittybit.lease", "./deploy.sh database"))
def a_function_is_of_an_older_migration(on: Examined) -> Iterator[Changes]:
    on.sql(
        "create or replace function ittybit.lease() returns interval language sql immutable parallel safe"
        " set search_path = '' as $$ select interval '90 seconds' $$"
    )
    yield None
    on.apply("sender")


@fault(home=("failure", "a copy of the database set up for another project", "./deploy.sh database asks"))
def the_database_is_a_copy(on: Examined) -> Iterator[Changes]:
    on.sql("update ittybit.settings set home = 'elsewhere/1'")
    yield None
    on.sql("select ittybit.adopt(as_copy => false)")


@fault(
    home=("failure", "set up for https://other.supabase.co, but SUPABASE_URL is http://127.0.0.1", "the same project")
)
def the_database_is_another_project_s(on: Examined) -> Iterator[Changes]:
    on.sql("update ittybit.settings set project = 'https://other.supabase.co'")
    yield None
    on.sql("update ittybit.settings set project = null")


@fault(triggers=("failure", "ittybit_object_stored is missing", "…_ittybit_triggers.sql again"))
def a_trigger_is_dropped(on: Examined) -> Iterator[Changes]:
    on.root("drop trigger ittybit_object_stored on storage.objects")
    yield None
    on.apply("triggers")


@fault(triggers=("failure", "ittybit_object_removed is disabled", "…_ittybit_triggers.sql again"))
def a_trigger_is_disabled(on: Examined) -> Iterator[Changes]:
    on.root("alter table storage.objects disable trigger ittybit_object_removed")
    yield None
    on.apply("triggers")


@fault(
    triggers=("failure", "ittybit_object_replaced is not what the migrations define", "…_ittybit_triggers.sql again")
)
def a_trigger_is_of_an_older_migration(on: Examined) -> Iterator[Changes]:
    on.sql(
        "create or replace trigger ittybit_object_replaced after update of version on storage.objects"
        " for each row execute function ittybit.object_stored()"
    )
    yield None
    on.apply("triggers")


@fault(
    rpcs=("failure", "public.ittybit_claim may be called by anon", "…_ittybit_rpc.sql again"),
    data_api=("failure", "ittybit_claim answers HTTP 200 to the publishable key", "…_ittybit_rpc.sql again"),
)
def anybody_may_claim(on: Examined) -> Iterator[Changes]:
    on.sql("grant execute on function public.ittybit_claim to anon")
    yield None
    on.apply("rpc")


@fault(rpcs=("failure", "public.ittybit_report may be called by authenticated", "…_ittybit_rpc.sql again"))
def signed_in_users_may_report(on: Examined) -> Iterator[Changes]:
    on.sql("grant execute on all functions in schema public to authenticated")
    on.sql("revoke execute on function public.ittybit_claim from authenticated")
    yield None
    on.apply("rpc")


@fault(
    rpcs=("failure", "public.ittybit_claim may not be called by service_role", "…_ittybit_rpc.sql again"),
    data_api=("failure", "permission denied", "SUPABASE_SECRET_KEY"),
    on_upload=("failure", "cannot work: HTTP 503", "Mend what it says"),
    push_back=("failure", "cannot work: HTTP 503", "Mend what it says"),
)
def the_functions_may_not_claim(on: Examined) -> Iterator[Changes]:
    on.sql("revoke execute on function public.ittybit_claim from service_role")
    yield None
    on.apply("rpc")


@fault(
    migrations=("failure", "missing: public.ittybit_report", "./deploy.sh database"),
    rpcs=("failure", "public.ittybit_report is missing", "…_ittybit_rpc.sql again"),
)
def a_function_of_the_api_is_missing(on: Examined) -> Iterator[Changes]:
    on.sql("drop function public.ittybit_report")
    yield None
    on.apply("rpc")


# What the project gave us --------------------------------------------------------------------------------------------


@fault(addresses=("failure", "push_back_url is not set, and a rule makes a task", "into ittybit.settings"))
def an_address_is_not_set(on: Examined) -> Iterator[Changes]:
    [(former,)] = on.sql("select push_back_url from ittybit.settings")
    on.sql("update ittybit.settings set push_back_url = null")
    yield None
    on.sql("update ittybit.settings set push_back_url = %s", former)


def _vault(on: Examined, secret: str) -> None:
    on.sql("select vault.update_secret(id, %s) from vault.secrets where name = 'ittybit_functions_secret'", secret)


@fault(secret=("failure", "no secret ittybit_functions_secret in Vault", "vault.create_secret"))
def vault_has_no_secret(on: Examined) -> Iterator[Changes]:
    on.sql("delete from vault.secrets where name = 'ittybit_functions_secret'")
    yield None
    secret = on.environment["FUNCTIONS_SECRET"]
    on.sql("select vault.create_secret(%s, 'ittybit_functions_secret')", secret)


@fault(secret=("failure", "the secret in Vault is not whsec_", "vault.update_secret"))
def vault_s_secret_cannot_sign(on: Examined) -> Iterator[Changes]:
    _vault(on, "whsec_c2hvcnQ=")
    yield None
    _vault(on, on.environment["FUNCTIONS_SECRET"])


@fault(secret=("failure", "the secret in Vault is not the FUNCTIONS_SECRET known here", "./deploy.sh database"))
def vault_has_another_secret(on: Examined) -> Iterator[Changes]:
    _vault(on, OTHER_SECRET)
    yield None
    _vault(on, on.environment["FUNCTIONS_SECRET"])


@fault(secret=("failure", "Vault is not installed", "vault.create_secret"))
def there_is_no_vault(on: Examined) -> Iterator[Changes]:
    on.root("alter view vault.decrypted_secrets rename to gone")
    yield None
    on.root("alter view vault.gone rename to decrypted_secrets")


@fault(pg_net=("failure", "its worker is not running", "select net.worker_restart();"))
def pg_net_s_worker_is_dead(on: Examined) -> Iterator[Changes]:
    on.net.pause()
    yield None
    on.net.resume()


@fault(pg_net=("failure", "pg_net is not installed", "create extension pg_net"))
def there_is_no_pg_net(on: Examined) -> Iterator[Changes]:
    on.root("alter function net.http_post rename to gone")
    yield None
    on.root("alter function net.gone rename to http_post")


@fault(pg_net=("warning", "requests that wait in its queue: 1000", "group by url"))
def pg_net_does_not_keep_up(on: Examined) -> Iterator[Changes]:
    # Put there by hand they do not wake the worker.
    on.root(
        "insert into net.http_request_queue (method, url, timeout_milliseconds)"
        " select 'POST', 'http://127.0.0.1:9', 1000 from generate_series(1, 1000)"
    )
    yield None
    on.root("truncate net.http_request_queue")


@fault(pg_net=("warning", "cannot be seen by postgres", "grant pg_read_all_stats to postgres"))
def the_worker_cannot_be_seen(on: Examined) -> Iterator[Changes]:
    on.root("revoke pg_monitor from postgres")
    yield None
    on.root("grant pg_monitor to postgres")


@fault(pg_cron=("failure", "pg_cron is not installed", "create extension pg_cron"))
def there_is_no_pg_cron(on: Examined) -> Iterator[Changes]:
    with on.cron_stopped():
        on.root("alter table cron.job rename to gone")
        yield None
        on.root("alter table cron.gone rename to job")


@fault(pg_cron=("failure", "ittybit-sweep is not scheduled", "Apply supabase/migrations again"))
def a_job_is_not_scheduled(on: Examined) -> Iterator[Changes]:
    on.sql("select cron.unschedule('ittybit-sweep')")
    yield None
    on.apply("sweep")


@fault(pg_cron=("failure", "ittybit-send-due is not active", "cron.alter_job(jobid, active => true)"))
def a_job_is_not_active(on: Examined) -> Iterator[Changes]:
    change = "select cron.alter_job(jobid, active => %s) from cron.job where jobname like 'ittybit-%%'"
    on.sql(change, False)
    yield None
    on.sql(change, True)


@fault(pg_cron=("failure", "ittybit-send-due runs another command", "Apply supabase/migrations again"))
def a_job_runs_another_command(on: Examined) -> Iterator[Changes]:
    on.sql("select cron.schedule('ittybit-send-due', '1 second', 'select 1')")
    yield None
    on.apply("schedule")


@fault(pg_cron=("failure", "no such table", "cron.job_run_details"))
def a_job_s_last_run_failed(on: Examined) -> Iterator[Changes]:
    with on.cron_stopped():
        on.root(
            "insert into cron.job_run_details (jobid, status, return_message, start_time, end_time)"
            " select jobid, 'failed', 'no such table', now(), now() from cron.job where jobname = 'ittybit-send-due'"
        )
        yield None


@fault(pg_cron=("failure", "ittybit-send-due has not run since", "pg_cron stands still: restart the database"))
def pg_cron_stands_still(on: Examined) -> Iterator[Changes]:
    with on.cron_stopped():
        on.root("update cron.job_run_details set start_time = start_time - interval '3 minutes'")
        yield None


@fault(pg_cron=("warning", "ittybit-sweep has not run yet", "Ask again in a minute"))
def pg_cron_has_not_begun(on: Examined) -> Iterator[Changes]:
    with on.cron_stopped():
        on.root("truncate cron.job_run_details")
        yield None


# The rules -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _rule(on: Examined, task: str, bucket: str = "media", path: str = "**") -> Iterator[None]:
    on.sql(
        "insert into ittybit.rules (name, bucket_id, path, task) values ('faulty', %s, %s, %s::jsonb)",
        bucket,
        path,
        task,
    )
    try:
        yield
    finally:
        on.sql("delete from ittybit.rules where name = 'faulty'")


@fault(rules=("warning", "no rule is enabled (disabled: 3)", "Add one to ittybit.rules"))
def no_rule_is_enabled(on: Examined) -> Iterator[Changes]:
    on.sql("update ittybit.rules set enabled = false")
    yield None
    on.sql("update ittybit.rules set enabled = true")


@fault(buckets=("failure", "there is no bucket elsewhere (rule faulty)", "Make the bucket"))
def a_rule_watches_a_bucket_that_is_not_there(on: Examined) -> Iterator[Changes]:
    with _rule(on, '{"kind": "image", "destination": "s3://media/processed/{name}"}', bucket="elsewhere"):
        yield None


@fault(buckets=("failure", "there is no bucket results (rule faulty)", "correct the rule"))
def a_rule_writes_into_a_bucket_that_is_not_there(on: Examined) -> Iterator[Changes]:
    with _rule(on, '{"kind": "image", "destination": "s3://results/{name}"}'):
        yield None


@fault(limits=("failure", "bucket media does not accept image/jpeg (rule still)", "Allow the type"))
def a_bucket_does_not_accept_the_type(on: Examined) -> Iterator[Changes]:
    on.root("update storage.buckets set allowed_mime_types = '{video/*,audio/mpeg}'")
    yield None
    on.root("update storage.buckets set allowed_mime_types = null")


@fault(limits=("warning", "bucket small takes 2000000 bytes a file, results may be larger (rule faulty)", "Raise the"))
def a_bucket_is_too_small_for_videos(on: Examined) -> Iterator[Changes]:
    on.root("insert into storage.buckets (id, name, file_size_limit) values ('small', 'small', 2000000)")
    with _rule(on, '{"kind": "video", "destination": "s3://small/{name}"}'):
        yield None
    on.root("set storage.allow_delete_query = 'true'; delete from storage.buckets where id = 'small'")


@fault(results=("warning", "results of rule faulty, such as made/sample.mp4, are uploads to rule", "output prefix"))
def results_are_uploads(on: Examined) -> Iterator[Changes]:
    with _rule(on, '{"kind": "video", "destination": "s3://media/made/{name}"}', path="made/*"):
        # Of its own it would be the object itself.
        on.sql("update ittybit.rules set path = '*' where name = 'faulty'")
        yield None


# How the work goes ---------------------------------------------------------------------------------------------------


@fault(starts=("warning", "paused: nothing starts", "select ittybit.resume();"))
def starting_is_paused(on: Examined) -> Iterator[Changes]:
    on.sql("select ittybit.pause()")
    yield None
    on.sql("select ittybit.resume()")


@fault(starts=("failure", "starts_per_day was reached", "select ittybit.resume();"))
def the_day_s_ceiling_tripped(on: Examined) -> Iterator[Changes]:
    on.sql("update ittybit.settings set tripped_at = now()")
    yield None
    on.sql("select ittybit.resume()")


@fault(starts=("warning", "a ceiling is reached", "raise starts_per_hour"))
def the_hour_s_ceiling_is_reached(on: Examined) -> Iterator[Changes]:
    on.sql("update ittybit.settings set starts_per_hour = 0")
    yield None
    on.sql("update ittybit.settings set starts_per_hour = 1000")


@contextlib.contextmanager
def _hold(on: Examined, scope: str, message: str) -> Iterator[None]:
    on.sql(
        "insert into ittybit.holds (scope, error, probe_at)"
        " values (%s, jsonb_build_object('message', %s::text), now() + interval '5 minutes')",
        *(scope, message),
    )
    try:
        yield
    finally:
        on.sql("delete from ittybit.holds")


@fault(holds=("failure", "ittybit refuses all since", "Top up the ittybit account"))
def the_account_is_out_of_credit(on: Examined) -> Iterator[Changes]:
    with _hold(on, "all", "no credit"):
        yield None


@fault(holds=("failure", ": no such key", "Give the function an ITTYBIT_API_KEY that is valid"))
def a_function_s_key_is_refused(on: Examined) -> Iterator[Changes]:
    with _hold(on, "function:on-upload", "no such key"):
        yield None


@contextlib.contextmanager
def _job(on: Examined, **columns: str) -> Iterator[None]:
    """A job that the sender does not come to."""
    names, values = ", ".join(columns), ", ".join(columns.values())
    with on.cron_stopped():
        on.root(
            f"insert into ittybit.jobs (rule, bucket_id, name, automation_id, {names})"  # noqa: S608 - of this file
            f" values ('soundtrack', 'media', 'late.mp4', 'auto_1', {values})"
        )
        yield
        on.sql("delete from ittybit.jobs")


@fault(waiting=("warning", "jobs that should have been sent: 1", "mend what their lines say"))
def a_job_is_late(on: Examined) -> Iterator[Changes]:
    with _job(on, due_at="now() - interval '2 minutes'"):
        yield None


@fault(waiting=("failure", "jobs that should have been sent: 1", "mend what their lines say"))
def a_job_is_very_late(on: Examined) -> Iterator[Changes]:
    with _job(on, due_at="now() - interval '1 hour'"):
        yield None


@fault(unanswered=("warning", "never claimed: 1, up to 3 times each; the last answer: none", "functions run"))
def calls_are_not_answered(on: Examined) -> Iterator[Changes]:
    with _job(on, due_at="now() + interval '50 seconds'", attempt="3"):
        yield None


@fault(unanswered=("failure", "the last answer: HTTP 401", "functions run"))
def no_call_is_answered(on: Examined) -> Iterator[Changes]:
    on.sql("update ittybit.settings set unanswered_calls = 1")
    on.root("insert into net._http_response (id, status_code) values (-1, 401)")
    with _job(on, due_at="now() + interval '50 seconds'", attempt="3", request_id="-1"):
        yield None
    on.sql("update ittybit.settings set unanswered_calls = 100")


# The project over HTTP -----------------------------------------------------------------------------------------------

WRONG_KEY = {"supabase_key": ("failure", "Invalid API key", "check SUPABASE_SECRET_KEY")}
in_environment("the secret key is wrong", {"data_api"}, **WRONG_KEY)(SUPABASE_SECRET_KEY="sb_secret_of_nobody_0000")
in_environment(
    "the secret key is a publishable one",
    {"data_api"},
    supabase_key=("failure", "a publishable key", "Use the secret key"),
)(SUPABASE_SECRET_KEY="sb_publishable_of_nobody_0000")


@fault({"data_api"}, supabase_key=("failure", "a legacy key for role anon", "Use the secret key"))
def the_secret_key_is_the_anon_key(on: Examined) -> Iterator[Changes]:
    yield {"SUPABASE_SECRET_KEY": on.stack.keys.anon_jwt}


@fault({"data_api"}, supabase_key=("failure", "storage: HTTP 503", "try again later"))
def storage_is_down(on: Examined) -> Iterator[Changes]:
    on.stack.supabase.add("GET", "/storage/v1/bucket", status=503, times=10)
    yield None
    on.stack.supabase.clear()


@fault(data_api=("failure", "ledger: HTTP 301", "set the final address"))
def the_data_api_redirects(on: Examined) -> Iterator[Changes]:
    # The functions ask as well: the doctor's own question is the first.
    on.stack.supabase.add("POST", "/rest/v1/rpc/ittybit_claim", status=301, headers={"Location": "https://else.where/"})
    yield None
    on.stack.supabase.clear()


# The functions -------------------------------------------------------------------------------------------------------


@fault(on_upload=("failure", "no answer (ConnectError)", "See that it runs at http://127.0.0.1:9"))
def on_upload_does_not_run(on: Examined) -> Iterator[Changes]:
    with on.at_on_upload("http://127.0.0.1:9"):
        yield None


@fault(on_upload=("failure", "redirects to https://final.example.com/on-upload (HTTP 302)", "Use the final address"))
def on_upload_s_address_redirects(on: Examined) -> Iterator[Changes]:
    with on.answering(302, {"Location": "https://final.example.com/on-upload?token=abcdefgh"}):
        yield None


@fault(on_upload=("failure", "its host refuses callers", "--no-invoker-iam-check"))
def the_host_checks_callers_itself(on: Examined) -> Iterator[Changes]:
    with on.answering(403):
        yield None


@fault(on_upload=("failure", "there is no function at its address", "Deploy it"))
def nothing_is_at_on_upload_s_address(on: Examined) -> Iterator[Changes]:
    with on.answering(404):
        yield None


@fault(on_upload=("failure", "does not refuse a wrong signature (HTTP 200)", "not a function of this project"))
def something_else_is_at_on_upload_s_address(on: Examined) -> Iterator[Changes]:
    with on.answering(200):
        yield None


@fault(on_upload=("failure", "HTTP 502", "See its log"))
def on_upload_does_not_start(on: Examined) -> Iterator[Changes]:
    with on.answering(502):
        yield None


@fault(on_upload=("failure", "push-back is at its address", "Correct the address of on-upload"))
def the_addresses_are_mixed_up(on: Examined) -> Iterator[Changes]:
    with on.at_on_upload(on.environment["PUSH_BACK_URL"]):
        yield None


@fault(on_upload=("failure", "create-connection is at its address", "Correct the address of on-upload"))
def create_connection_is_at_on_upload_s_address(on: Examined) -> Iterator[Changes]:
    with on.at_on_upload(on.environment["CREATE_CONNECTION_URL"]):
        yield None


@fault(on_upload=("failure", "refuses the FUNCTIONS_SECRET that is known here", "Deploy it with this FUNCTIONS_SECRET"))
def on_upload_has_another_secret(on: Examined) -> Iterator[Changes]:
    with on.deployed(FUNCTIONS_SECRET=OTHER_SECRET):
        yield None


@fault(on_upload=("failure", "cannot work: HTTP 503 ledger: Invalid API key", "Mend what it says"))
def on_upload_has_a_wrong_supabase_key(on: Examined) -> Iterator[Changes]:
    with on.deployed(SUPABASE_SECRET_KEY="sb_secret_of_nobody_0000"):
        yield None


in_environment(
    "create-connection does not run",
    create_connection=("failure", "no answer (ConnectError)", "See that it runs at"),
)(CREATE_CONNECTION_URL="http://127.0.0.1:9")
in_environment("create-connection's address is not known", {"create_connection"})(CREATE_CONNECTION_URL="")


@fault(clocks=("failure", "on-upload 6", "Set the clock of the functions' host"))
def a_host_s_clock_is_wrong(on: Examined) -> Iterator[Changes]:
    with on.ahead(650):
        yield None


@fault(clocks=("warning", "on-upload -1", "Set the host's clock"))
def a_host_s_clock_goes_wrong(on: Examined) -> Iterator[Changes]:
    with on.ahead(-150):
        yield None


# ittybit -------------------------------------------------------------------------------------------------------------

in_environment(
    "ittybit's key is wrong",
    {"automations", "connection", "s3_keys"},
    ittybit_key=("failure", "ittybit: The API key is not valid.", "check ITTYBIT_API_KEY"),
)(ITTYBIT_API_KEY="ittybit_key_of_nobody")


@fault(automations=("failure", "(rule soundtrack) is paused", "Activate it"))
def an_automation_is_paused(on: Examined) -> Iterator[Changes]:
    on.ittybit("PATCH", f"automations/{on.automation}", json={"status": "paused"})
    yield None
    on.ittybit("PATCH", f"automations/{on.automation}", json={"status": "active"})


@fault(automations=("failure", "auto_of_nobody (rule soundtrack)", "correct the rule's automation_id"))
def an_automation_is_not_there(on: Examined) -> Iterator[Changes]:
    change = "update ittybit.rules set automation_id = %s where name = 'soundtrack'"
    on.sql(change, "auto_of_nobody")
    yield None
    on.sql(change, on.automation)


@fault(automations=("failure", "ittybit: HTTP 500", "try again later"))
def ittybit_shows_no_automation(on: Examined) -> Iterator[Changes]:
    on.stack.ittybit_api.add("GET", "/automations/.*", status=500, times=10)
    yield None
    on.stack.ittybit_api.clear()


@fault({"s3_keys"}, connection=("failure", "there is no connection supabase-127-0-0-1", "Call create-connection once"))
def there_is_no_connection(on: Examined) -> Iterator[Changes]:
    path = f"connections/{on.connection}"
    name = on.ittybit("GET", path)["name"]
    on.ittybit("PATCH", path, json={"name": "another"})
    yield None
    on.ittybit("PATCH", path, json={"name": name})


@fault({"s3_keys"}, connection=("failure", "has another region than this project", "Call create-connection"))
def the_connection_has_another_region(on: Examined) -> Iterator[Changes]:
    path = f"connections/{on.connection}"
    on.ittybit("PATCH", path, json={"region": "elsewhere"})
    yield None
    on.ittybit("PATCH", path, json={"region": "local"})


in_environment(
    "the keys here are others than the connection's",
    {"s3_keys"},
    connection=("failure", "has another access_key_id than this project", "Call create-connection"),
)(SUPABASE_S3_ACCESS_KEY_ID="0123456789abcdef")


@fault(s3_keys=("failure", "secret_access_key: it does not belong to the access key id", "./deploy.sh connection"))
def the_connection_s_keys_no_longer_work(on: Examined) -> Iterator[Changes]:
    path = f"connections/{on.connection}"
    secret = on.ittybit("GET", path)["secret_access_key"]
    on.ittybit("PATCH", path, json={"secret_access_key": "0123456789abcdef"})
    yield None
    on.ittybit("PATCH", path, json={"secret_access_key": secret})


@fault(
    s3_keys=("failure", "bucket 'media' takes none of", "./deploy.sh connection"),
    limits=("failure", "bucket media does not accept", "Allow the type"),
)
def a_bucket_takes_no_media(on: Examined) -> Iterator[Changes]:
    on.root("update storage.buckets set allowed_mime_types = '{text/plain}'")
    yield None
    on.root("update storage.buckets set allowed_mime_types = null")


in_environment(
    "the connection's id is wrong",
    {"s3_keys"},
    connection=("failure", "there is no connection con_of_nobody", "Call create-connection"),
)(ITTYBIT_CONNECTION_ID="con_of_nobody")
