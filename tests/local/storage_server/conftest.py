from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg
import pytest
from botocore.config import Config

from local.connection_pool import Connections
from local.gateway import ProjectKeys, create_app
from local.postgres import Postgres
from local.server import Server
from local.storage_server import S3Access, create_blueprint

# A fixed secret: it is part of tests' names, which must be the same in every process.
KEYS = replace(ProjectKeys.make(), jwt_secret="super-secret-jwt-token-with-at-least-32-characters-long")
KEY_ID, SECRET = KEYS.s3_access_key_id, KEYS.s3_secret_access_key
SERVICE = {"Authorization": f"Bearer {KEYS.jwt('service_role')}"}

# Notices survive a rollback, so they also show the trigger calls of trials. The table shows which were committed.
JOURNAL = """
create table public.journal (txid bigint, entry jsonb);
create function public.note_object() returns trigger language plpgsql security definer set search_path = '' as $$
declare
  entry jsonb := jsonb_build_object(
    'op', tg_op, 'when', tg_when, 'txid', txid_current(), 'name', new.name, 'bucket', new.bucket_id,
    'version', new.version, 'metadata', new.metadata, 'role', current_setting('role'),
    'storage_operation', current_setting('storage.operation', true));
begin
  raise notice 'fire %', entry;
  insert into public.journal values (txid_current(), jsonb_build_object(
    'op', tg_op, 'tg_when', tg_when, 'txid', txid_current(), 'old', to_jsonb(old), 'rec', to_jsonb(new),
    'cur', current_user, 'sess', session_user, 'role', current_setting('role'),
    'storage_operation', current_setting('storage.operation', true)));
  return null;
end
$$;
create trigger note_object after insert or update or delete on storage.objects
  for each row execute function public.note_object();
"""


@dataclass
class Site:
    """A running storage server with its database and files, and the calls of its triggers."""

    origin: str
    postgres: Postgres
    directory: Path
    connections: list[psycopg.Connection] = field(default_factory=list)
    noticed: list[dict[str, Any]] = field(default_factory=list)
    s3: S3Access = field(default_factory=lambda: S3Access({KEY_ID: SECRET}))

    @property
    def url(self) -> str:
        return f"{self.origin}/storage/v1"

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres.dsn("supabase_admin")) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def fires(self) -> list[dict[str, Any]]:
        """Return the trigger calls since ``forget``, including those that were rolled back."""
        committed = {txid for (txid,) in self.sql("select txid from public.journal")}
        return [fire | {"committed": fire["txid"] in committed} for fire in self.noticed]

    def rows(self) -> list[dict[str, Any]]:
        """Return the committed row events since ``forget``."""
        return [entry for (entry,) in self.sql("select entry from public.journal order by ctid")]

    def forget(self) -> None:
        self.sql("delete from public.journal")
        self.noticed.clear()

    def stored_files(self) -> list[Path]:
        """Return the files of objects and of unfinished uploads."""
        return [path for path in self.directory.rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Postgres.start() as postgres:
        postgres.prepare()
        with psycopg.connect(postgres.dsn("postgres")) as connection:
            connection.execute(JOURNAL)
        site = Site("", postgres, tmp_path_factory.mktemp("storage"))

        def connect() -> psycopg.Connection:
            connection = psycopg.connect(postgres.dsn("supabase_storage_admin"))
            connection.add_notice_handler(
                lambda notice: site.noticed.append(json.loads((notice.message_primary or "").removeprefix("fire ")))
            )
            site.connections.append(connection)
            return connection

        connections = Connections(connect)
        blueprint = create_blueprint(
            connections=connections,
            directory=site.directory,
            jwt_secret=KEYS.jwt_secret,
            s3=site.s3,
        )
        with Server(create_app(KEYS, {"/storage/v1": blueprint})) as server:
            site.origin = server.origin
            yield site
        connections.close()


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    """A client with the service key."""
    with httpx.Client(base_url=site.url, headers=SERVICE, timeout=10) as client:
        yield client


@pytest.fixture
def anonymous(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=10) as client:
        yield client


@pytest.fixture
def user(site: Site) -> Iterator[tuple[httpx.Client, str]]:
    """A signed-in user's client, and the user's id."""
    sub = str(uuid.uuid4())
    headers = {"Authorization": f"Bearer {KEYS.jwt('authenticated', sub)}"}
    with httpx.Client(base_url=site.url, headers=headers, timeout=10) as client:
        yield client, sub


@pytest.fixture
def own_folder(site: Site) -> Iterator[None]:
    """Signed-in users may do anything below a folder named by their id."""
    site.sql("""
        create policy own_folder on storage.objects to authenticated
          using ((storage.foldername(name))[1] = current_setting('request.jwt.claim.sub'))
    """)
    yield
    site.sql("drop policy own_folder on storage.objects")


MakeBucket = Callable[..., str]


@pytest.fixture
def make_bucket(site: Site, client: httpx.Client) -> Iterator[MakeBucket]:
    """Make buckets. After the test they are deleted with their objects."""
    made: list[str] = []

    def make(name: str = "", **options: object) -> str:
        name = name or f"bucket-{uuid.uuid4()}"
        client.post("/bucket", json={"id": name, "name": name, **options}).raise_for_status()
        made.append(name)
        return name

    yield make
    for name in made:
        if keys := [row[0] for row in site.sql("select name from storage.objects where bucket_id = %s", name)]:
            client.request("DELETE", f"/object/{name}", json={"prefixes": keys}).raise_for_status()
        client.delete(f"/bucket/{name}").raise_for_status()
    site.forget()


@pytest.fixture
def bucket(make_bucket: MakeBucket) -> str:
    return make_bucket()


def s3_client(site: Site, *, key_id: str = KEY_ID, secret: str = SECRET, region: str = "local") -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"{site.url}/s3",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        region_name=region,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def s3(site: Site) -> Iterator[Any]:
    client = s3_client(site)
    yield client
    client.close()
