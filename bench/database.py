"""A project's database to measure, with objects' rows written as the storage server writes them."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from local.postgres import SUPERUSER, Postgres, installed_binaries
from local.stack import migrate

BUCKET = "media"
AUTOMATION = "auto_1"
TASK = {
    "kind": "video",
    "options": {"height": 720, "format": "mp4", "quality": "medium"},
    "destination": f"s3://{BUCKET}/processed/{{dir}}{{stem}}-720p.mp4",
}
METADATA = {
    "eTag": '"f1c99b109c5c49af049ca089444ec61d"',
    "size": 300000,
    "mimetype": "video/mp4",
    "cacheControl": "max-age=3600",
    "lastModified": "2026-11-23T22:40:59.656Z",
    "contentLength": 300000,
    "httpStatusCode": 200,
}

# Makes the stand-in as cheap as pg_net, which checks an address twice in C and wakes its worker by a commit callback.
# The stand-in does that in SQL, which would make the baseline too expensive.
_CHEAP_NET = """
create or replace function net.wake() returns void language plpgsql as 'begin end';
create or replace function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds integer default 5000
) returns bigint language plpgsql as $$
declare
  request_id bigint;
  content_type text;
  pairs text[];
begin
  select value into content_type
  from jsonb_each_text(coalesce(headers, '{}'))
  where lower(key) = 'content-type'
  limit 1;
  if content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;
  select coalesce(array_agg(key || '=' || value), '{}') into pairs from jsonb_each_text(params);
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', url, headers, convert_to(body::text, 'UTF8'), timeout_milliseconds)
  returning id into request_id;
  perform net.wake();
  return request_id;
end
$$;
"""

# The trigger from ittybit's guide: it calls for every object, has the key in its text, and no exception handler.
_GUIDE = """
create or replace function public.guide() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  perform net.http_post(
    url := 'https://api.ittybit.com/automations/auto_1/run',
    body := jsonb_build_object('url', 'https://ref.supabase.co/storage/v1/object/public/media/' || new.name),
    headers := '{"Content-Type": "application/json", "Authorization": "Bearer ittybit_key_0123456789abcdef"}'::jsonb
  );
  return new;
end
$$;
create or replace trigger guide after insert on storage.objects for each row execute function public.guide();
"""
# A call with `body`, signed with a secret from Vault.
_SIGNED_CALL = """
declare
  secret text;
  stamp text := floor(extract(epoch from now()))::text;
begin
  select s.decrypted_secret into secret
  from vault.decrypted_secrets as s
  where s.name = 'ittybit_functions_secret';
  perform net.http_post(
    url := 'https://a.test/',
    body := body::jsonb,
    headers := jsonb_build_object(
      'Content-Type', 'application/json',
      'webhook-timestamp', stamp,
      'webhook-signature',
      'v1,' || encode(extensions.hmac(stamp || '.' || body, secret, 'sha256'), 'base64')
    )
  );
end;
"""
# The minimal trigger that forgets no upload and shows no key: one row, and a signed call.
_LEAST = f"""
create table public.least (
  id uuid primary key default gen_random_uuid(),
  bucket_id text not null,
  name text not null,
  version text,
  due_at timestamptz default now()
);
create index on public.least (due_at) where due_at is not null;
create or replace function public.least() returns trigger language plpgsql security definer set search_path = '' as $$
declare
  body text;
begin
  insert into public.least (bucket_id, name, version) values (new.bucket_id, new.name, new.version)
  returning jsonb_build_object('job', id)::text into body;
{_SIGNED_CALL}
  return new;
end
$$;
create or replace trigger least after insert on storage.objects for each row execute function public.least();
"""  # noqa: S608 - constants of this file


def _bound(name: str, call: str) -> str:
    """The minimum of any trigger with rules and our ledger: an exception handler, the query for rules, and the row."""
    return f"""
create or replace function public.{name}() returns trigger language plpgsql security definer set search_path = ''
set lock_timeout = '200ms' as $$
declare
  rule record;
  body constant text := '{{"type": "jobs.due"}}';
begin
  for rule in
    select r.name, r.function, r.automation_id from ittybit.rules as r
    where r.bucket_id = new.bucket_id and r.enabled and ittybit.fits(r, new.name, new.metadata)
  loop
    insert into ittybit.jobs (rule, bucket_id, name, version, action, function, due_at) values (
      rule.name, new.bucket_id, new.name, new.version, jsonb_build_object('automation_id', rule.automation_id),
      rule.function, clock_timestamp()
    ) on conflict do nothing;
{call}
  end loop;
  return null;
exception when others then
  raise warning '%', sqlerrm;
  return null;
end
$$;
create or replace trigger {name} after insert on storage.objects for each row execute function public.{name}();
"""  # noqa: S608 - constants of this file


# A job for each object, as after its upload.
_QUEUED = """
insert into ittybit.jobs (rule, bucket_id, name, version, etag, size, action, function, due_at)
select 'rule-0', o.bucket_id, o.name, o.version, md5(o.name), 300000, '{"automation_id": "auto_1"}', 'on-upload', now()
from storage.objects as o
"""
OURS, GUIDE, LEAST = "ittybit_object_stored", "guide", "least"
BOUND, CALLING_BOUND = "bound", "calling_bound"
TRIGGERS = (OURS, GUIDE, LEAST, BOUND, CALLING_BOUND)

_AS_STORAGE = """
select
  set_config('role', 'service_role', true),
  set_config('request.jwt.claim.role', 'service_role', true),
  set_config('request.jwt.claims', '{"role": "service_role"}', true),
  set_config('request.method', 'POST', true),
  set_config('request.path', '/object/media/clip', true),
  set_config('storage.operation', 'storage.object.upload', true),
  set_config('storage.allow_delete_query', 'true', true)
"""
_PUT = """
insert into storage.objects (bucket_id, name, version, metadata, owner_id, user_metadata)
values (%s, %s, %s, %s, null, '{}')
on conflict (bucket_id, name) do update set version = excluded.version, metadata = excluded.metadata
returning *
"""
_OBJECTS = """
insert into storage.objects (bucket_id, name, version, metadata, user_metadata)
select %s, format('clips/%%s/%%s.mp4', n / 1000, n), gen_random_uuid(), %s, '{}' from generate_series(1, %s) as n
"""


def binaries() -> Path:
    """Return the first PostgreSQL with pgcrypto, as in hosted projects, else the first, with a stand-in's hmac()."""
    found = installed_binaries()
    folders = (
        (Path("share/extension"), Path("share/postgresql/extension")),
        Path("/usr/share/postgresql"),
    )
    for path in found:
        places = [path.parent / folder for folder in folders[0]] + [folders[1] / path.parent.name / "extension"]
        if any((place / "pgcrypto.control").exists() for place in places):
            return path
    return found[0]


@dataclass(frozen=True)
class Database:
    """A project's database.

    Attributes:
        admin: a superuser's connection.
        storage: the storage server's.
    """

    postgres: Postgres
    admin: psycopg.Connection
    storage: psycopg.Connection

    def another(self) -> psycopg.Connection:
        """Return a fresh connection, with a database process of its own."""
        return psycopg.connect(self.postgres.dsn(SUPERUSER), autocommit=True)

    def one(self, statement: LiteralString) -> Any:
        """Return the single value that a statement returns."""
        (value,) = self.admin.execute(statement).fetchone() or (None,)
        return value

    def rules(self, *rules: tuple[str, str, str]) -> None:
        """Replace all rules by these, each a bucket, a path and a media type."""
        self.admin.execute("truncate ittybit.rules")
        self.admin.cursor().executemany(
            "insert into ittybit.rules (name, bucket_id, path, mimetype, automation_id) values (%s, %s, %s, %s, %s)",
            [(f"rule-{number}", *rule, AUTOMATION) for number, rule in enumerate(rules)],
        )
        self.admin.execute("analyze ittybit.rules")

    def empty(self) -> None:
        """Delete every object, job and call."""
        self.admin.execute("truncate storage.objects, ittybit.jobs, ittybit.outputs, ittybit.starts, public.least")
        self.admin.execute("truncate net.http_request_queue, net._http_response")

    def use(self, trigger: str | None) -> None:
        """Enable only this trigger for new objects, or none."""
        for one in TRIGGERS:
            self.admin.execute(
                f"alter table storage.objects {'enable' if one == trigger else 'disable'} trigger {one}".encode()
            )

    def put(self, *names: str) -> None:
        """Store objects, each in a transaction like the storage server's."""
        metadata = json.dumps(METADATA)
        for name in names:
            with self.storage.transaction():
                self.storage.execute(_AS_STORAGE, prepare=True)
                self.storage.execute(_PUT, [BUCKET, name, str(uuid.uuid4()), metadata], prepare=True)

    def put_at_once(self, count: int) -> None:
        """Store that many objects in one statement, in the order of their names: one folder after the other."""
        self.storage.execute(_OBJECTS, [BUCKET, json.dumps(METADATA), count])

    def put_backlog(self, count: int) -> None:
        """Store that many objects without a trigger, and queue a job for each. Takes seconds, even for many."""
        self.use(None)
        self.put_at_once(count)
        self.admin.execute(_QUEUED)
        self.admin.execute("vacuum (analyze) ittybit.jobs, storage.objects")
        self.use(OURS)


@contextlib.contextmanager
def database(*, durable: bool = False, cheap_net: bool = False, **settings: str) -> Iterator[Database]:
    """Run a database with the migrations, our trigger and the others, and everything set up except rules.

    Args:
        durable: whether a commit waits for the disk, as in hosted projects.
        cheap_net: whether calls cost as much as in pg_net and are only queued: nothing can be sent.
        settings: as in postgresql.conf.
    """
    with Postgres.start(binaries=binaries(), durable=durable, settings=settings) as postgres:
        postgres.prepare()
        migrate(postgres)
        with (
            psycopg.connect(postgres.dsn(SUPERUSER), autocommit=True) as admin,
            psycopg.connect(postgres.dsn("supabase_storage_admin"), autocommit=True) as storage,
        ):
            if cheap_net:
                admin.execute(_CHEAP_NET)
            # Created as users would create them: for a superuser's functions, no permission is checked.
            admin.execute("set role postgres")
            for trigger in (_GUIDE, _LEAST, _bound(BOUND, ""), _bound(CALLING_BOUND, _SIGNED_CALL)):
                admin.execute(trigger.encode())
            admin.execute("reset role")
            admin.execute("insert into storage.buckets (id, name, public) values (%s, %s, true)", [BUCKET, BUCKET])
            admin.execute("select vault.create_secret(%s, 'ittybit_functions_secret')", ["whsec_" + "A" * 44])
            admin.execute("update ittybit.functions set url = 'https://a.test/'")
            admin.execute("update ittybit.settings set starts_per_hour = 1000000000, starts_per_day = 1000000000")
            yield Database(postgres, admin, storage)
