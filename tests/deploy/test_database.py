"""./deploy.sh database, on a real database without the schema."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.database_address import AddressError, read
from shared import __version__
from tests.database.project import ON_UPLOAD, PROJECT, PUSH_BACK, SECRET
from tests.database.test_install import contents, schema
from tests.deploy.clone import Clone
from tests.deploy.developer import EVERY_POSTGRES, Deploying, Developer
from tests.waiting import until

OTHER_SECRET = "whsec_" + "b" * 43 + "="
MIGRATIONS = sorted(path.name for path in (Path(__file__).parents[2] / "supabase" / "migrations").glob("*.sql"))


@EVERY_POSTGRES
def test_a_new_database_is_set_up_and_sends_its_first_signed_call(developer: Developer) -> None:
    project = developer.project
    result = developer.deploy("database")
    assert result.stdout.splitlines() == [
        "stored",
        f"on-upload at {ON_UPLOAD}",
        f"push-back at {PUSH_BACK}",
        "starting: yes",
    ]
    assert [line for line in result.stderr.splitlines() if line.endswith(".sql")] == MIGRATIONS
    [settings] = project.sql("select output_prefixes, project, version from ittybit.settings")
    assert settings == {"output_prefixes": ["processed/"], "project": PROJECT, "version": __version__}
    assert project.addresses() == {"on-upload": ON_UPLOAD, "push-back": PUSH_BACK}
    assert {job["jobname"] for job in project.sql("select jobname from cron.job")} >= {"ittybit-wake-up"}

    developer.add_bucket("uploads")
    project.rule()
    project.put("a.mp4")
    [message] = project.messages()
    assert message["headers"]["webhook-signature"].startswith("v1,")


LOST = (
    "drop trigger ittybit_object_removed on storage.objects",
    "alter table storage.objects disable trigger ittybit_object_stored",
    "delete from cron.job where jobname = 'ittybit-sweep'",
    "drop function public.ittybit_report",
    "revoke execute on function public.ittybit_claim from service_role",
    "grant execute on function public.ittybit_claim to anon",
)


def test_a_second_run_applies_nothing_unless_a_part_is_lost_or_a_migration_has_changed(developer: Developer) -> None:
    developer.deploy("database")
    developer.project.rule()
    before = schema(developer.project), contents(developer.project)
    result = developer.deploy("database")
    assert result.stdout.startswith("unchanged\n")
    assert result.stderr.splitlines()[0] == "The migrations: unchanged"
    assert (schema(developer.project), contents(developer.project)) == before

    for lost in LOST:
        developer.project.superuser.execute(lost.encode())
        developer.deploy("database")
        assert schema(developer.project) == before[0]

    last = developer.clone.root / "supabase" / "migrations" / MIGRATIONS[-1]
    last.write_text(last.read_text() + "comment on schema ittybit is 'changed';\n")
    assert MIGRATIONS[-1] in developer.deploy("database").stderr
    assert developer.project.value("select obj_description('ittybit'::regnamespace, 'pg_namespace')") == "changed"


def test_a_migration_that_fails_says_why_and_is_rolled_back(developer: Developer) -> None:
    second = developer.clone.root / "supabase" / "migrations" / MIGRATIONS[1]
    failing = "do $$ begin raise exception 'no room' using hint = 'Make some.'; end $$;\n"
    second.write_text(second.read_text() + failing)
    said = developer.refused("database")
    assert said.splitlines()[-2:] == ["deploy.sh: no room", "  Make some."]
    tables = developer.project.sql("select relname from pg_class where relnamespace = 'ittybit'::regnamespace")
    assert "jobs" not in {table["relname"] for table in tables}
    assert developer.project.sql("select from cron.job") == []


# Secrets -------------------------------------------------------------------------------------------------------------


def stored_secret(developer: Developer) -> str:
    return str(developer.project.value("select decrypted_secret from vault.decrypted_secrets"))


def test_the_secret_is_made_on_first_use(developer: Developer) -> None:
    del developer.env["FUNCTIONS_SECRET"]
    developer.clone.write_env(developer.env)
    developer.deploy("database")
    assert stored_secret(developer) == developer.clone.read_env()["FUNCTIONS_SECRET"]


def test_a_stored_secret_is_replaced_unless_it_is_one_of_the_given_ones(developer: Developer) -> None:
    developer.deploy("database")
    for secrets, outcome, stored in (
        (f"{OTHER_SECRET}, {SECRET}", "unchanged", SECRET),
        (OTHER_SECRET, "replaced", OTHER_SECRET),
    ):
        developer.clone.write_env(developer.env | {"FUNCTIONS_SECRET": secrets})
        assert developer.deploy("database").stdout.splitlines()[0] == outcome
        assert stored_secret(developer) == stored
    assert developer.project.value("select count(*) from vault.secrets") == 1


def test_no_secret_is_on_a_command_line_in_the_log_or_in_the_output(developer: Developer) -> None:
    developer.project.superuser.execute(f"alter database {developer.project.name} set log_statement = 'all'".encode())
    address = developer.env["DATABASE_URL"].replace("postgres@", "postgres:pass%2Fword%25@")
    developer.clone.write_env(developer.env | {"DATABASE_URL": address, "FUNCTIONS_SECRET": OTHER_SECRET})
    result = developer.deploy("database")
    developer.clone.write_env(developer.env | {"DATABASE_URL": address})
    result.stdout += developer.deploy("database").stdout
    log = developer.server._log.read_text()
    assert "vault.create_secret(" in log
    assert "vault.update_secret(" in log
    for told in (developer.command_lines(), log, result.stdout, result.stderr):
        for secret in (SECRET, OTHER_SECRET, "pass/word", "pass%2F"):
            assert secret not in told


def test_a_malformed_secret_is_not_stored(developer: Developer) -> None:
    developer.clone.write_env(developer.env | {"FUNCTIONS_SECRET": "whsec_tooshort"})
    assert "FUNCTIONS_SECRET must be whsec_" in developer.refused("database")
    assert developer.project.sql("select from vault.secrets") == []


# Settings ------------------------------------------------------------------------------------------------------------


def test_a_setting_that_is_not_given_stays(developer: Developer) -> None:
    developer.clone.write_env(developer.env | {"OUTPUT_PREFIXES": "out/, made by ittybit/"})
    developer.deploy("database")
    del developer.env["PUSH_BACK_URL"]
    developer.clone.write_env(developer.env | {"ON_UPLOAD_URL": "https://elsewhere.test/on-upload"})
    developer.deploy("database")
    assert developer.project.addresses() == {
        "on-upload": "https://elsewhere.test/on-upload",
        "push-back": PUSH_BACK,
    }
    assert developer.project.value("select output_prefixes from ittybit.settings") == ["out/", "made by ittybit/"]


def test_without_addresses_it_says_what_is_missing(developer: Developer) -> None:
    del developer.env["ON_UPLOAD_URL"], developer.env["PUSH_BACK_URL"]
    developer.clone.write_env(developer.env)
    assert developer.deploy("database").stdout.splitlines()[1:] == [
        "on-upload at (no address yet: ./deploy.sh functions)",
        "push-back at (no address yet: ./deploy.sh functions)",
        "starting: NOT SET UP: the functions have no addresses",
    ]


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"OUTPUT_PREFIXES": "processed/,/"}, "OUTPUT_PREFIXES must end in /"),
    ({"SUPABASE_URL": ""}, "SUPABASE_URL is not set"),
    ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
    ({"DATABASE_URL": "postgresql://postgres:[YOUR-PASSWORD]@db/postgres"}, "still says [YOUR-PASSWORD]"),
    ({"DATABASE_URL": "postgresql:///postgres?host=/nowhere"}, 'connection to server on socket "/nowhere'),
    ({"ON_UPLOAD_URL": "ftp://functions.test"}, 'violates check constraint "functions_url_check"'),
]


def test_an_invalid_setting_is_refused_by_name(developer: Developer) -> None:
    for variables, said in REFUSED:
        developer.clone.write_env(developer.env | variables)
        refusal = developer.refused("database")
        assert said in refusal
        assert "psql:" not in refusal
        assert "s3cret" not in refusal


def test_a_database_that_is_not_supabases_is_refused_and_left_as_it_is(developer: Developer) -> None:
    developer.project.superuser.execute("drop schema storage cascade")
    said = developer.refused("database")
    assert said.startswith("deploy.sh: this PostgreSQL is not a Supabase project's: it lacks table storage.objects\n")
    assert developer.project.value("select to_regnamespace('ittybit')") is None


def test_without_psql_it_says_how_to_get_it(developer: Developer) -> None:
    developer.clone.take("psql")
    assert "apt-get install postgresql-client" in developer.refused("database")


def test_a_psql_that_make_has_installed_is_used(developer: Developer) -> None:
    developer.clone.take("psql")
    (developer.clone.root / ".venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    # This answer comes from the database.
    assert "The database side is not installed" in developer.refused("rule", "list")


def test_a_dry_run_needs_no_tool_and_no_variable(clone: Clone) -> None:
    clone.give("cksum")
    result = clone.deploy("--dry-run", "database")
    assert (result.returncode, clone.commands.calls()) == (0, [])
    lines = result.stdout.splitlines()
    assert [line.rsplit("/", 1)[1] for line in lines] == [*MIGRATIONS, "store_secret.sql", "settings.sql"]
    assert all(line.startswith("psql -XqwAt1 -v ON_ERROR_STOP=1") for line in lines)
    assert "-v project=<SUPABASE_URL> " in lines[-1]
    assert "FUNCTIONS_SECRET is not set: it would be made" in result.stderr


def test_a_dry_run_touches_nothing(developer: Developer) -> None:
    result = developer.deploy("--dry-run", "database")
    assert SECRET not in result.stdout + result.stderr
    assert developer.command_lines() == ""
    assert developer.project.value("select to_regnamespace('ittybit')") is None


# Addresses of databases ----------------------------------------------------------------------------------------------


ADDRESSES: list[tuple[str, dict[str, str]]] = [
    (
        "postgresql://postgres:p%40ss%5Cw%2F@db.ref.supabase.co:5432/postgres",
        {"host": "db.ref.supabase.co", "password": "p@ss\\w/", "sslmode": "require"},
    ),
    (
        # A password that is not percent-encoded.
        "postgresql://postgres.ref:a/b?c#d:e@aws-0.pooler.supabase.com:6543/postgres",
        {"host": "aws-0.pooler.supabase.com", "port": "6543", "user": "postgres.ref", "password": "a/b?c#d:e"},
    ),
    ("postgres://u@[2001:db8::1]:5433/x", {"host": "2001:db8::1", "port": "5433", "dbname": "x"}),
    ("postgres://u@a.test:1,b.test/x", {"host": "a.test,b.test", "port": "1,5432", "sslmode": "require"}),
    ("postgres://u@a.test?sslmode=verify-full&sslrootcert=/ca", {"sslmode": "verify-full", "sslrootcert": "/ca"}),
    ("postgres://a.test/x?pgbouncer=true&options=-c%20a=b", {"options": "-c a=b", "dbname": "x"}),
    ("postgres://localhost/x", {"host": "localhost", "port": "5432", "sslmode": ""}),
    ("postgres://127.0.0.1/x", {"host": "127.0.0.1", "sslmode": ""}),
    ("postgres://127.0.0.1.a.test/x", {"host": "127.0.0.1.a.test", "sslmode": "require"}),
    ("postgres://[::1]/x", {"host": "::1", "sslmode": ""}),
    ("postgres://127.0.0.2/x", {"sslmode": ""}),
    ("postgres://db:5432", {"host": "db", "dbname": "postgres", "sslmode": ""}),
    ("postgres:///x?host=%2Frun%2Fpg", {"host": "/run/pg", "port": "", "user": "", "sslmode": ""}),
    ("postgres://u:p@%2Frun%2Fpg/x", {"host": "/run/pg", "password": "p", "sslmode": ""}),
]


@pytest.mark.parametrize(("address", "parameters"), ADDRESSES)
def test_an_address_is_read(address: str, parameters: dict[str, str]) -> None:
    given = read(address)
    assert {name: given.get(name, "") for name in parameters} == parameters


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("host=db user=postgres password=s3cret", "is not an address"),
        ("postgresql://postgres:s3cret50%@db/postgres", "has a % that encodes nothing"),
        ("postgresql://postgres@s3cret@c:5d/postgres", "has a port that is not a number"),
        (
            "postgresql://localhost/postgres?sslcrl=s3cret",
            "has a parameter that is not known here, leave it out: sslcrl",
        ),
        ("postgresql://localhost/postgres?s3cret", "has a ? that begins no parameters"),
    ],
)
def test_an_address_that_cannot_be_read_is_not_repeated(address: str, said: str) -> None:
    with pytest.raises(AddressError) as refused:
        read(address)
    assert str(refused.value) == f"DATABASE_URL {said}"


# The variables that libpq connects by (its documentation, "Environment Variables").
PSQLS = (
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE", "PGOPTIONS"),
    *("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGTARGETSESSIONATTRS"),
)


def test_the_shells_variables_for_another_database_are_ignored(clone: Clone) -> None:
    clone.commands.add("psql")
    shell = dict.fromkeys(PSQLS, "other") | {"DATABASE_URL": "postgres:///x"}
    said = clone.bash("source deploy/psql.sh\nconnect_to_database\nenv", shell).stdout.splitlines()
    assert "PGDATABASE=x" in said
    assert [line for line in said if line.startswith("PG") and line.endswith("=other")] == []


# Uploads during an installation -------------------------------------------------------------------------------------


def gives_way(deploying: Deploying) -> Callable[[], bool]:
    return lambda: "letting others go first" in deploying.stderr


def test_an_installation_gives_way_to_uploads(developer: Developer) -> None:
    developer.add_bucket("uploads")
    with developer.slow_upload("slow.mp4") as slow, developer.deploying("database") as deploying:
        until(gives_way(deploying))
        # While the slow upload is open, other uploads succeed, and no trigger is installed.
        developer.project.put("a.mp4", "b.mp4")
        assert developer.project.sql("select from pg_trigger where tgname like 'ittybit%'") == []
        slow.commit()
        assert deploying.end() == 0
    assert developer.project.value("select value from ittybit.status where what = 'starting'") == "yes"


def test_a_second_run_completes_an_interrupted_installation(developer: Developer) -> None:
    developer.add_bucket("uploads")
    with developer.slow_upload("slow.mp4"), developer.deploying("database") as deploying:
        until(gives_way(deploying))
        deploying.process.terminate()
        assert deploying.end() != 0
    developer.deploy("database")
    assert developer.project.value("select value from ittybit.status where what = 'starting'") == "yes"


# Into a Supabase project's folder ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Supabase project's folder with a migration of its own."""
    folder = tmp_path / "my app"
    (folder / "supabase" / "migrations").mkdir(parents=True)
    (folder / "supabase" / "migrations" / "20260101000000_mine.sql").write_text("select 1;")
    return folder


def copied(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "supabase" / "migrations").iterdir()}


def test_the_migrations_are_copied_for_supabase_db_push(developer: Developer, folder: Path) -> None:
    del developer.env["DATABASE_URL"]
    developer.clone.write_env(developer.env)
    said = developer.deploy("database", "--to-project", str(folder)).stderr
    assert sorted(copied(folder)) == ["20260101000000_mine.sql", *MIGRATIONS]
    assert f"Then, from {folder}: supabase db push --include-all" in said
    assert "set DATABASE_URL" in said
    assert developer.command_lines() == ""

    # Install as db push does. Then deploy.sh does the rest, which needs the secret.
    developer.install()
    developer.project.sql("delete from vault.secrets")
    developer.clone.write_env(developer.env | {"DATABASE_URL": developer.address(developer.project)})
    result = developer.deploy("database", "--to-project", str(folder))
    assert result.stdout.splitlines()[0] == "stored"
    assert "supabase/migrations" not in developer.command_lines()


def test_before_the_push_it_says_to_push_first(developer: Developer, folder: Path) -> None:
    said = developer.deploy("database", "--to-project", str(folder)).stderr
    assert f"Then, from {folder}: supabase db push, and after it ./deploy.sh database" in said
    assert developer.project.value("select to_regnamespace('ittybit')") is None


def test_a_file_that_differs_is_overwritten_only_after_a_yes(developer: Developer, folder: Path) -> None:
    mine = folder / "supabase" / "migrations" / MIGRATIONS[3]
    mine.write_text("-- mine")
    before = copied(folder)
    said = developer.refused("database", "--to-project", str(folder))
    assert f"has other versions of these files:\n  {MIGRATIONS[3]}\n" in said
    assert copied(folder) == before

    developer.deploy("--yes", "database", "--to-project", str(folder))
    assert copied(folder)[MIGRATIONS[3]] != "-- mine"


def test_a_folder_without_supabase_in_it_is_refused(developer: Developer, tmp_path: Path) -> None:
    assert "takes a folder with supabase/ in it" in developer.refused("database", "--to-project", str(tmp_path))


# Copies --------------------------------------------------------------------------------------------------------------


def with_open_jobs(developer: Developer) -> None:
    developer.install()
    developer.add_bucket("uploads")
    developer.project.rule()
    developer.project.put("queued.mp4", "started.mp4")
    developer.project.started("started.mp4", "run_1")
    developer.project.messages()


def test_a_copy_is_adopted_only_on_request_and_calls_only_its_own_functions(developer: Developer) -> None:
    with_open_jobs(developer)
    copy = developer.copy()
    own = {"ON_UPLOAD_URL": "https://staging.test/on-upload", "PUSH_BACK_URL": ""}
    env = developer.env | own | {"SUPABASE_URL": "https://copy.supabase.co", "FUNCTIONS_SECRET": OTHER_SECRET}
    developer.clone.write_env(env | {"DATABASE_URL": developer.address(copy)}, "staging")
    staging = ("--env", "staging", "database")

    for arguments in (staging, ("--yes", *staging)):
        said = developer.refused(*arguments)
        assert f"set up for {PROJECT}, and .env.staging is for https://copy.supabase.co." in said
        assert "processes the 2 open jobs. They are skipped here." in said
        assert "Pass --adopt copy or --adopt move." in said
    assert "no terminal to ask at" in developer.refused(*staging, "--adopt", "copy")
    assert [job["state"] for job in copy.jobs()] == ["queued", "started"]

    said = developer.deploy("--yes", *staging, "--adopt", "copy").stdout
    assert "adopted as a copy: 2 open jobs are skipped" in said
    assert [(job["state"], job["reason"]) for job in copy.jobs()] == [("skipped", "copied")] * 2
    copy.put("new.mp4")
    assert {message["url"] for message in copy.messages()} == {"https://staging.test/on-upload"}
    assert copy.addresses()["push-back"] is None
    # The question is asked once.
    assert "starting: yes" in developer.deploy(*staging).stdout
    # The original goes on as before.
    assert developer.project.value("select decrypted_secret from vault.decrypted_secrets") == SECRET
    assert [job["state"] for job in developer.project.jobs()] == ["queued", "started"]


def test_a_copy_with_the_originals_functions_is_refused(developer: Developer) -> None:
    with_open_jobs(developer)
    copy = developer.copy()
    env = developer.env | {"SUPABASE_URL": "https://copy.supabase.co", "DATABASE_URL": developer.address(copy)}
    developer.clone.write_env(env, "staging")
    said = developer.refused("--yes", "--env", "staging", "database", "--adopt", "copy")
    assert "the functions' addresses in .env.staging are those of the original's functions" in said
    assert copy.value("select project from ittybit.settings") == PROJECT


def test_a_restored_database_continues_after_adopt_move(developer: Developer) -> None:
    with_open_jobs(developer)
    restored = developer.copy()
    moved = "https://moved.supabase.co"
    developer.clone.write_env(developer.env | {"DATABASE_URL": developer.address(restored), "SUPABASE_URL": moved})
    assert "only you know whether this database is a copy" in developer.refused("database")
    typed = developer.clone.answer("y", "database")
    assert (typed.returncode, "Answer copy or move." in typed.stderr) == (2, True)
    assert restored.value("select project from ittybit.settings") == PROJECT
    said = developer.deploy("database", "--adopt", "move").stdout
    assert "adopted as a move: 1 jobs are searched for at ittybit first" in said
    restored.make_due()
    steps = {job["step"]: job for job in restored.claim(project=moved)}
    assert steps.keys() == {"search", "check"}
