-- The triggers on storage.objects: an upload becomes a row in the ledger, and a nudge.
--
-- An upload never fails because of them. Whatever goes wrong in here ends in a warning, waits 200 ms for a lock at the
-- most, and once only in a transaction. It can run twice.

set search_path = '';

-- What an upload goes through is in PL/pgSQL, which keeps its plans: before PostgreSQL 18 a function in SQL is parsed and
-- planned anew at each call, which took most of an upload's time.

-- The places in which a reservation covers a key: the key, and every folder it lies in, as `a/` and `a/b/` for a/b/c.
-- No reservation is longer than a safe key.
create or replace function ittybit.places(name text)
returns text[]
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
declare
  head constant pg_catalog.text := left(name, 1024);
  folder pg_catalog.text := '';
  places pg_catalog.text[] := array[name];
begin
  for depth in 1 .. length(head) - length(replace(head, '/', '')) loop
    folder := folder || split_part(head, '/', depth) || '/';
    places := places || folder;
  end loop;
  return places;
end;
$$;

-- Where results are declared to be written: in whichever bucket, for an automation may write to any.
create or replace view ittybit.declared_prefixes as
select unnest(s.output_prefixes) as prefix
from ittybit.settings as s
union all
select r.output_prefix
from ittybit.rules as r
where r.output_prefix is not null;

revoke all on ittybit.declared_prefixes from public, anon, authenticated, service_role;

-- Whether a key lies under one of them.
create or replace function ittybit.is_under_output_prefix(name text)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return exists (
    select from ittybit.declared_prefixes as d where starts_with(is_under_output_prefix.name, d.prefix)
  );
end;
$$;

-- Why an object starts nothing although a rule matches it, or null when it may: always one row. Bound here and now like
-- ittybit.fits, so that it becomes a part of the query that asks it of many.
create or replace function ittybit.reasons_to_skip(
  bucket_id text,
  name text,
  size bigint,
  is_delete_marker boolean,
  through_s3 boolean
)
returns setof text
language sql
stable
begin atomic
  select case
    when is_delete_marker then 'delete_marker'
    when name like '%/' or '/' || name like '%/.emptyFolderPlaceholder' then 'folder'
    when name like '.ittybit/%' then 'probe'
    when exists (
      select
      from ittybit.outputs as o
      where o.bucket_id = reasons_to_skip.bucket_id and o.name = any (ittybit.places(reasons_to_skip.name))
    ) then 'output'
    when exists (
      select from ittybit.declared_prefixes as d where starts_with(reasons_to_skip.name, d.prefix)
    ) then 'output_prefix'
    when coalesce(size, 0) = 0 then 'empty'
    when through_s3 then 's3_write'
  end;
end;

-- The same of one object.
create or replace function ittybit.reason_to_skip(
  bucket_id text,
  name text,
  size bigint,
  is_delete_marker boolean,
  through_s3 boolean
)
returns text
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (select r from ittybit.reasons_to_skip(bucket_id, name, size, is_delete_marker, through_s3) as r);
end;
$$;

-- A rule's task for one object, with the destination filled in: null where the object has no place there.
create or replace function ittybit.fill_task(task jsonb, object jsonb)
returns jsonb
language plpgsql
immutable
strict
set search_path = ''
as $$
begin
  return jsonb_set(task, '{destination}', coalesce(to_jsonb(ittybit.render_destination(
    task ->> 'destination', object ->> 'name', object ->> 'version', object ->> 'owner_id'
  )), 'null'));
end;
$$;

-- Why a filled-in task cannot be made of its object, or null when it can.
create or replace function ittybit.reason_against_task(task jsonb, object jsonb)
returns text
language plpgsql
immutable
strict
set search_path = ''
as $$
begin
  return case
    when task ->> 'destination' is null then 'no_destination'
    when task ->> 'destination' = 's3://' || (object ->> 'bucket_id') || '/' || (object ->> 'name')
      then 'destination_is_source'
  end;
end;
$$;

-- Record what one rule makes of one stored object, and nudge the function if that is wanted and possible.
-- `rule` is a row of ittybit.rules, `object` one of storage.objects.
create or replace function ittybit.record_job(
  rule record,
  object jsonb,
  skipped text,
  nudge boolean default true,
  backfill boolean default false
)
returns void
language plpgsql
security definer
set search_path = ''
as $$
declare
  action constant pg_catalog.jsonb := ittybit.fill_task(rule.task, object);
  job constant pg_catalog.uuid := gen_random_uuid();
  url pg_catalog.text;
  request bigint;
begin
  skipped := coalesce(skipped, ittybit.reason_against_task(action, object));

  if nudge and skipped is null then
    begin
      select case when action is null then s.on_upload_url else s.push_back_url end into url
      from ittybit.settings as s
      where s.nudge;
      if url is not null then
        request := ittybit.post(url, job, 1);
      end if;
    exception when others then
      -- The row is written all the same: the sender sends it within seconds of the cause being mended.
      raise warning 'ittybit: no nudge for %/%: % (%)', object ->> 'bucket_id', object ->> 'name', sqlerrm, sqlstate;
    end;
  end if;

  insert into ittybit.jobs (
    id, rule, bucket_id, name, version, etag, size, automation_id, task,
    state, reason, attempt, backfill, due_at, finished_at, request_id
  )
  values (
    job,
    rule.name,
    object ->> 'bucket_id',
    object ->> 'name',
    object ->> 'version',
    object -> 'metadata' ->> 'eTag',
    (object -> 'metadata' ->> 'size')::bigint,
    rule.automation_id,
    action,
    case when skipped is null then 'queued' else 'skipped' end,
    skipped,
    case when request is null then 0 else 1 end,
    backfill,
    case
      when skipped is not null then null
      when request is null then clock_timestamp()
      else clock_timestamp() + ittybit.lease()
    end,
    case when skipped is not null then clock_timestamp() end,
    request
  )
  on conflict do nothing;

  if found and skipped is null and action is not null then
    perform ittybit.reserve_output(job, action);
  end if;
end;
$$;

-- Give up the reservation of a key that no object has any more, unless an open job may still write it.
create or replace function ittybit.release_output(bucket_id text, name text)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from ittybit.outputs as o
  where o.bucket_id = release_output.bucket_id
    and o.name = release_output.name
    and not exists (select from ittybit.jobs as j where j.id = o.job and j.state in ('queued', 'started'));
end;
$$;

-- A stored content is no more: what waits for it never starts, and its rows may go one day. A start in doubt is left
-- to be looked for.
create or replace function ittybit.end_content(bucket_id text, name text, version text, reason text)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  update ittybit.jobs as j
  set state = 'skipped', reason = end_content.reason, due_at = null, finished_at = clock_timestamp()
  where j.bucket_id = end_content.bucket_id
    and j.name = end_content.name
    and coalesce(j.version, '') = coalesce(end_content.version, '')
    and j.state = 'queued'
    and j.doubt_since is null;

  update ittybit.jobs as j
  set orphaned_at = clock_timestamp()
  where j.bucket_id = end_content.bucket_id
    and j.name = end_content.name
    and coalesce(j.version, '') = coalesce(end_content.version, '');
end;
$$;

-- An object was stored, overwritten, moved or copied.
create or replace function ittybit.object_stored()
returns trigger
language plpgsql
security definer
set search_path = ''
set lock_timeout = '200ms'
as $$
declare
  object pg_catalog.jsonb;
  former pg_catalog.jsonb;
  rule record;
  moved boolean := false;
  same_bytes boolean := false;
  carried boolean;
  skipped pg_catalog.text;
  decided boolean := false;
begin
  if current_setting('ittybit.off', true) = 'on' then
    return null;
  end if;

  begin
    if tg_op = 'UPDATE' then
      object := to_jsonb(new);
      former := to_jsonb(old);
      moved := (old.bucket_id, old.name) is distinct from (new.bucket_id, new.name);
      same_bytes := moved
        or (former -> 'metadata' ->> 'eTag', former -> 'metadata' ->> 'size')
          = (object -> 'metadata' ->> 'eTag', object -> 'metadata' ->> 'size');
    end if;

    if moved then
      -- A result that is renamed stays a result, reserved or under an output prefix.
      if ittybit.is_under_output_prefix(old.name) then
        skipped := 'output';
        decided := true;
      end if;
      insert into ittybit.outputs (bucket_id, name, job)
      select new.bucket_id, new.name, o.job
      from ittybit.outputs as o
      where o.bucket_id = old.bucket_id and o.name = any (ittybit.places(old.name))
      on conflict do nothing;
      perform ittybit.release_output(old.bucket_id, old.name);
    end if;

    for rule in
      select r.*
      from ittybit.rules as r
      where r.bucket_id = new.bucket_id and r.enabled and ittybit.fits(r, new.name, new.metadata)
    loop
      begin
        object := to_jsonb(new);
        carried := false;
        if same_bytes then
          -- What was or may have been bought for these bytes stays bought under the new name and version. An attempt that
          -- was told the former name may yet say that there is no such object: it has no say in this one any more.
          update ittybit.jobs as j
          set
            bucket_id = new.bucket_id,
            name = new.name,
            version = object ->> 'version',
            reported = case when j.state = 'queued' then j.claimed else j.reported end
          where j.bucket_id = old.bucket_id
            and j.name = old.name
            and j.rule = rule.name
            and coalesce(j.version, '') = coalesce(former ->> 'version', '')
            and (
              j.state in ('started', 'succeeded')
              or (j.state = 'queued' and (j.doubt_since is not null or j.restart is not null))
            );
          carried := found;
        end if;

        if not carried then
          if not decided then
            skipped := ittybit.reason_to_skip(
              new.bucket_id,
              new.name,
              (object -> 'metadata' ->> 'size')::bigint,
              coalesce((object ->> 'is_delete_marker')::boolean, false),
              coalesce(current_setting('storage.operation', true), '') like 'storage.s3.%'
            );
            decided := true;
          end if;
          perform ittybit.record_job(
            rule, object, case when skipped = 's3_write' and rule.accept_s3 then null else skipped end
          );
        end if;
      exception when others then
        raise warning 'ittybit: rule % missed %/%: % (%)', rule.name, new.bucket_id, new.name, sqlerrm, sqlstate;
        if sqlstate = '55P03' then
          perform set_config('ittybit.off', 'on', true);
          exit;
        end if;
      end;
    end loop;

    if tg_op = 'UPDATE' and coalesce(current_setting('ittybit.off', true), '') <> 'on' then
      begin
        perform ittybit.end_content(
          old.bucket_id, old.name, former ->> 'version', case when moved then 'moved' else 'superseded' end
        );
      exception when others then
        -- The new content's rows stand; a claim of the former one's finds it superseded.
        raise warning 'ittybit: missed the end of %/%: % (%)', old.bucket_id, old.name, sqlerrm, sqlstate;
        if sqlstate = '55P03' then
          perform set_config('ittybit.off', 'on', true);
        end if;
      end;
    end if;
  exception when others then
    raise warning 'ittybit: missed %/%: % (%)', new.bucket_id, new.name, sqlerrm, sqlstate;
    if sqlstate = '55P03' then
      perform set_config('ittybit.off', 'on', true);
    end if;
  end;
  return null;
end;
$$;

-- An object was deleted: what has not started never will, and a result that is gone no longer needs its reservation.
create or replace function ittybit.object_removed()
returns trigger
language plpgsql
security definer
set search_path = ''
set lock_timeout = '200ms'
as $$
begin
  if current_setting('ittybit.off', true) = 'on' then
    return null;
  end if;

  begin
    perform ittybit.end_content(old.bucket_id, old.name, to_jsonb(old) ->> 'version', 'gone');
    perform ittybit.release_output(old.bucket_id, old.name);
  exception when others then
    raise warning 'ittybit: missed the removal of %/%: % (%)', old.bucket_id, old.name, sqlerrm, sqlstate;
    if sqlstate = '55P03' then
      perform set_config('ittybit.off', 'on', true);
    end if;
  end;
  return null;
end;
$$;

revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

-- Only rows with final metadata: the storage server first tries each write with a row that it rolls back, and that row
-- has no size yet. `create or replace` locks this one table only; dropping a trigger would lock them all.
create or replace trigger ittybit_object_stored
after insert on storage.objects
for each row when (new.metadata ? 'size')
execute function ittybit.object_stored();

create or replace trigger ittybit_object_replaced
after update of version, name, bucket_id on storage.objects
for each row when (
  new.metadata ? 'size'
  and (old.version, old.name, old.bucket_id) is distinct from (new.version, new.name, new.bucket_id)
)
execute function ittybit.object_stored();

create or replace trigger ittybit_object_removed
after delete on storage.objects
for each row execute function ittybit.object_removed();

reset search_path;
