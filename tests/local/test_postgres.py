"""The server's start, crash and end, and the cluster's similarity to a hosted project."""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local.postgres import Postgres, StartError, installed_binaries
from tests.waiting import until

ROOT = Path(__file__).parents[2]
WHEEL_18 = installed_binaries()[0]
INSTALLED_15 = [path for path in installed_binaries() if path.parent.name == "15"]


@pytest.fixture(scope="module", params=[WHEEL_18, *INSTALLED_15], ids=lambda path: path.parent.name)
def project(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    with Postgres.start(binaries=request.param) as server:
        server.prepare()
        yield server


@pytest.fixture
def developer(project: Postgres) -> Iterator[psycopg.Connection]:
    """A transaction as ``postgres``, rolled back after the test."""
    with psycopg.connect(project.dsn("postgres")) as connection:
        yield connection
        connection.rollback()


def test_the_developers_role_is_no_superuser_and_bypasses_row_security(developer: psycopg.Connection) -> None:
    attributes = developer.execute(
        "select rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
        " from pg_roles where rolname = current_user"
    ).fetchone()
    assert attributes == (False, True, True, True, True)


@pytest.mark.parametrize("login", ["authenticator", "supabase_storage_admin", "postgres"])
def test_the_services_may_act_as_each_role_of_the_api(project: Postgres, login: str) -> None:
    with psycopg.connect(project.dsn(login)) as connection:
        for role in ("anon", "authenticated", "service_role"):
            connection.execute(f"set local role {role}".encode())
            assert connection.execute("select current_user").fetchone() == (role,)


def test_the_apis_roles_cannot_log_in(project: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(project.dsn("service_role"))


def test_a_new_function_in_public_is_open_to_the_api_until_revoked_by_name(developer: psycopg.Connection) -> None:
    developer.execute("create function public.secret() returns int language sql as 'select 1'")
    developer.execute("revoke all on function public.secret() from public")
    allowed = "select has_function_privilege(role, 'public.secret()', 'execute') from unnest(%s::text[]) role"
    roles = ["anon", "authenticated", "service_role"]
    assert developer.execute(allowed, [roles]).fetchall() == [(True,)] * 3
    developer.execute("revoke all on function public.secret() from anon, authenticated")
    assert developer.execute(allowed, [roles]).fetchall() == [(False,), (False,), (True,)]


def test_storage_objects_has_todays_columns(developer: psycopg.Connection) -> None:
    columns = developer.execute(
        "select attname from pg_attribute where attrelid = 'storage.objects'::regclass and attnum > 0"
    ).fetchall()
    assert {name for (name,) in columns} == {
        "id", "bucket_id", "name", "owner", "created_at", "updated_at", "last_accessed_at", "metadata",
        "path_tokens", "version", "owner_id", "user_metadata", "archived_at", "is_delete_marker", "is_versioned",
    }  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "create index on storage.objects (created_at)",
        "alter table storage.objects disable trigger all",
        "create table storage.mine (id int)",
        "create function storage.mine() returns int language sql as 'select 1'",
        "delete from storage.objects",
        "insert into vault.secrets (secret) values ('x')",
        "insert into cron.job (schedule, command) values ('* * * * *', 'select 1')",
        "create role boss superuser",
    ],
)
def test_statements_that_the_developer_may_not_run(developer: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        developer.execute(statement.encode())


def test_the_developer_may_put_a_trigger_on_storage_objects(project: Postgres) -> None:
    with psycopg.connect(project.dsn("postgres")) as developer:
        developer.execute("create table public.seen (path text[])")
        developer.execute(
            "create function public.see() returns trigger language plpgsql security definer set search_path = ''"
            " as 'begin insert into public.seen values (new.path_tokens); return null; end'"
        )
        developer.execute(
            "create or replace trigger see after insert on storage.objects for each row execute function public.see()"
        )
    with psycopg.connect(project.dsn("supabase_storage_admin")) as server:
        server.execute("set local role service_role")
        server.execute("insert into storage.buckets (id, name) values ('b', 'b')")
        server.execute("insert into storage.objects (bucket_id, name) values ('b', 'x/y.mp4')")
        server.execute("reset role")
        server.execute("select set_config('storage.allow_delete_query', 'true', true)")
        server.execute("delete from storage.objects")
        server.execute("delete from storage.buckets")
    with psycopg.connect(project.dsn("postgres")) as developer:
        assert developer.execute("select path from public.seen").fetchall() == [(["x", "y.mp4"],)]
        developer.execute("drop function public.see() cascade")
        developer.execute("drop table public.seen")


def test_row_security_hides_objects_from_the_api(developer: psycopg.Connection) -> None:
    developer.execute("insert into storage.buckets (id, name) values ('b', 'b')")
    developer.execute("insert into storage.objects (bucket_id, name) values ('b', 'x')")
    counts = []
    for role in ("service_role", "authenticated"):
        developer.execute(f"set local role {role}".encode())
        counts.append(developer.execute("select count(*) from storage.objects").fetchone())
        developer.execute("reset role")
    assert counts == [(1,), (0,)]


def test_an_update_moves_updated_at(developer: psycopg.Connection) -> None:
    developer.execute("insert into storage.buckets (id, name) values ('b', 'b')")
    developer.execute("insert into storage.objects (bucket_id, name, updated_at) values ('b', 'x', 'epoch')")
    developer.execute("update storage.objects set version = 'v2'")
    assert developer.execute("select updated_at = now() from storage.objects").fetchone() == (True,)


def test_a_secret_is_made_changed_and_read_by_name(developer: psycopg.Connection) -> None:
    (secret_id,) = developer.execute("select vault.create_secret('one', 'name')").fetchone() or (None,)
    read = "select decrypted_secret, description from vault.decrypted_secrets where name = 'name'"
    assert developer.execute(read).fetchone() == ("one", "")
    developer.execute("select vault.update_secret(%s, 'two', new_description => 'later')", [secret_id])
    assert developer.execute(read).fetchone() == ("two", "later")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_the_api_may_not_read_secrets(developer: psycopg.Connection, role: str) -> None:
    developer.execute(f"set local role {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema vault"):
        developer.execute("select * from vault.decrypted_secrets")


@pytest.mark.parametrize("key", [b"", b"Jefe", b"\xaa" * 64, b"\xaa" * 131], ids=len)
def test_hmac_follows_the_standard(developer: psycopg.Connection, key: bytes) -> None:
    data = b"what do ya want for nothing?\x00\xff"
    answer = developer.execute("select extensions.hmac(%b::bytea, %b::bytea, 'sha256')", [data, key]).fetchone()
    assert answer == (hmac.new(key, data, hashlib.sha256).digest(),)


def test_hmac_refuses_unknown_algorithms(developer: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='Cannot use "md6": No such hash algorithm'):
        developer.execute("select extensions.hmac('a', 'k', 'md6')")


def test_preparing_twice_changes_nothing(project: Postgres, developer: psycopg.Connection) -> None:
    project.prepare()
    assert developer.execute("select current_setting('TimeZone')").fetchone() == ("UTC",)


def test_a_crash_keeps_what_was_committed_and_empties_unlogged_tables() -> None:
    with Postgres.start(durable=True) as server:
        dsn = server.dsn("supabase_admin")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create table kept (id bigserial)")
            connection.execute("create unlogged table lost (id bigserial)")
            connection.execute("insert into kept default values")
            connection.execute("insert into lost default values")
            assert connection.execute("show fsync").fetchone() == ("on",)
            server.crash()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(dsn)
        server.restart()
        with psycopg.connect(dsn) as connection:
            assert connection.execute("select id from kept").fetchall() == [(1,)]
            assert connection.execute("insert into lost default values returning id").fetchall() == [(1,)]


def test_a_given_directory_outlives_the_server() -> None:
    directory = Path(tempfile.mkdtemp())  # if root runs the tests, the server's user cannot open pytest's own
    try:
        for expected in (None, "table"):
            with (
                Postgres.start(directory) as server,
                psycopg.connect(server.dsn("supabase_admin"), autocommit=True) as connection,
            ):
                found = connection.execute("select 'table' from pg_class where relname = 'mine'").fetchone()
                assert found == (expected and (expected,))
                connection.execute("create table if not exists mine ()")
    finally:
        shutil.rmtree(directory)


def test_a_failure_to_start_includes_the_servers_message() -> None:
    with pytest.raises(StartError, match='unrecognized configuration parameter "nonsense"'):
        Postgres.start(settings={"nonsense": "1"})


def test_the_server_does_not_outlive_a_killed_process() -> None:
    script = (
        "import os, signal\n"
        "from local.postgres import Postgres\n"
        "print(Postgres.start().dsn('supabase_admin'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    home = Path(str(psycopg.conninfo.conninfo_to_dict(ended.stdout.strip())["host"]))
    assert home.name.startswith("ittybit-pg-")
    until(lambda: not home.exists())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_binaries_that_only_root_can_reach_are_copied(tmp_path: Path) -> None:
    package = WHEEL_18.parents[1]
    hidden = tmp_path / package.name
    tmp_path.chmod(0o700)
    hidden.mkdir()
    shutil.copytree(WHEEL_18.parent, hidden / WHEEL_18.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, tmp_path / libraries.name)
    with (
        Postgres.start(binaries=hidden / WHEEL_18.parent.name / "bin") as server,
        psycopg.connect(server.dsn("supabase_admin")) as connection,
    ):
        assert connection.execute("select 1").fetchone() == (1,)
