-- The triggers on storage.objects: an upload becomes a row in the ledger and wakes the function that does the work.
--
-- An upload never fails because of them: every error becomes a warning. They wait 200 ms at most for a lock; after such
-- a time-out they do nothing for the rest of the transaction. The functions that an upload calls are in PL/pgSQL, which
-- keeps its plans, or in SQL that PostgreSQL inlines. Before version 18 it plans any other SQL function at each call.
set search_path = '';

-- What triggers no job ------------------------------------------------------------------------------------------------
-- The names of the outputs that cover a key: the key itself and its folders. For a/b/c: `a/b/c`, `a/` and `a/b/`.
create or replace function ittybit.places(name text)
returns text[] language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  head constant pg_catalog.text := left(name, 1024); -- no output has a longer name
  folder pg_catalog.text := ''; places pg_catalog.text[] := array[name];
begin
  for depth in 1 .. length(head) - length(replace(head, '/', '')) loop
    folder := folder || split_part(head, '/', depth) || '/';
    places := places || folder;
  end loop;
  return places;
end $$;

-- Why an object triggers no job although a rule matches it, or null when it may. Always one row. PostgreSQL inlines it,
-- like ittybit.fits. Each of these reasons can be found again later from the object, so none is recorded in the ledger.
create or replace function ittybit.reasons_to_skip(bucket_id text, name text, metadata jsonb, is_delete_marker boolean)
returns setof text language sql stable
begin atomic
  select case
    when exists (
      select from ittybit.outputs as o
      where o.bucket_id = reasons_to_skip.bucket_id
        -- In a subquery PostgreSQL runs the function once; without one, it runs it for each output that it reads.
        and o.name = any ((select ittybit.places(reasons_to_skip.name))::text[])
    ) then 'output'
    when is_delete_marker then 'delete_marker'
    when name like '%/' or '/' || name like '%/.emptyFolderPlaceholder' then 'folder'
    when name like '.ittybit/%' then 'probe'
    when coalesce((metadata ->> 'size')::bigint, 0) = 0 then 'empty'
    when exists (select from ittybit.settings as s where reasons_to_skip.name ^@ any (s.output_prefixes))
      or exists (select from ittybit.rules as r where reasons_to_skip.name ^@ r.output_prefix) then 'output_prefix'
  end;
end;

-- The same for a row of storage.objects.
create or replace function ittybit.reason_to_skip(object jsonb)
returns text language sql stable
return (
  select r from ittybit.reasons_to_skip(
    object ->> 'bucket_id', object ->> 'name', object -> 'metadata',
    coalesce((object ->> 'is_delete_marker')::boolean, false)
  ) as r
);

-- Recording a job -----------------------------------------------------------------------------------------------------
-- A rule's action with the placeholders filled in for one object. A destination that cannot be filled in is null.
create or replace function ittybit.fill_action(rule record, object jsonb)
returns jsonb language plpgsql immutable set search_path = '' as $$
declare action pg_catalog.jsonb; written record;
begin
  if rule.automation_id is not null then
    return jsonb_build_object('automation_id', rule.automation_id);
  end if;
  action := case when rule.run is null then jsonb_build_object('task', rule.task)
    else jsonb_build_object('run', rule.run) end;
  for written in select s.field, s.address from ittybit.steps(rule.task, rule.run) as s where s.field is not null loop
    action := jsonb_set(action, written.field, coalesce(to_jsonb(ittybit.render_destination(
      written.address, object ->> 'name', object ->> 'version', object ->> 'owner_id'
    )), 'null'));
  end loop;
  return action;
end $$;

-- Why an action cannot be done with its object, or null when it can.
create or replace function ittybit.reason_against_action(action jsonb, object jsonb)
returns text language plpgsql immutable strict set search_path = '' as $$ begin
  return (
    select case
      when bool_or(s.address is null) then 'no_destination'
      when bool_or(s.address = concat('s3://', object ->> 'bucket_id', '/', object ->> 'name'))
        then 'destination_is_source'
      when count(*) > count(distinct s.address) then 'destinations_meet'
    end
    from ittybit.steps(action -> 'task', action -> 'run') as s where s.field is not null
  );
end $$;

-- Where an action writes: keys, or a whole folder for kinds that write many files.
create or replace function ittybit.destinations(action jsonb)
returns table (bucket_id text, name text) language sql immutable
begin atomic
  select
    place.part[1], substring(place.part[2] from case s.maker ->> 'kind' when 'adaptive_video' then '^.*/' else '.*' end)
  from ittybit.steps(action -> 'task', action -> 'run') as s
  cross join lateral regexp_match(s.address, '^s3://([^/]+)/(.*)$') as place (part)
  where place.part is not null;
end;

-- Record the job of one rule for one stored object. `rule` is a row of ittybit.rules, `object` one of storage.objects,
-- `skipped` the reason to skip it. Returns the function that has a new job to do, or null.
create or replace function ittybit.record_job(rule record, object jsonb, skipped text, backfill boolean default false)
returns text language plpgsql security definer set search_path = '' as $$
declare action constant pg_catalog.jsonb := ittybit.fill_action(rule, object);
begin
  if rule.function = 'push-back' then
    skipped := coalesce(skipped, ittybit.reason_against_action(action, object));
  end if;
  insert into ittybit.jobs (
    rule, bucket_id, name, version, owner_id, etag, size, action, function, backfill, reason, state, due_at, finished_at
  ) values (
    rule.name, object ->> 'bucket_id', object ->> 'name', object ->> 'version', object ->> 'owner_id',
    object -> 'metadata' ->> 'eTag', (object -> 'metadata' ->> 'size')::bigint, action, rule.function, backfill,
    skipped, case when skipped is null then 'queued' else 'skipped' end,
    case when skipped is null then clock_timestamp() end,
    case when skipped is not null then clock_timestamp() end
  ) on conflict do nothing;
  return case when found and skipped is null then rule.function end;
end $$;

-- Results and former contents -----------------------------------------------------------------------------------------
-- A result was stored. If it is at an output's key, its job is checked at once. If it is in an output's folder, its job
-- is checked one to two seconds after the last file, and the job's row is written at most once a second.
--
-- For rules with delete_results, the output's row records the version that ittybit wrote. That is a version that came
-- through the project's S3 keys while a job that writes there was started or in doubt. Of one object's jobs, only
-- those with the innermost place get a row; jobs of several objects each get one. No other content is ittybit's.
create or replace function ittybit.result_stored(object jsonb)
returns void language plpgsql security definer set search_path = '' as $$
declare
  -- A variable, because in the query PostgreSQL would compute it for each output that it reads.
  places constant pg_catalog.text[] := ittybit.places(object ->> 'name');
  worker pg_catalog.text;
begin
  update ittybit.outputs as o set version = null
  where o.bucket_id = object ->> 'bucket_id' and o.name = object ->> 'name' and o.version <> object ->> 'version';
  if object ->> 'owner_id' is null and current_setting('storage.operation', true) like 'storage.s3.upload%'
    and exists (select from ittybit.rules as r where r.delete_results) then
    insert into ittybit.outputs (bucket_id, name, job, version)
    select object ->> 'bucket_id', object ->> 'name', w.job, object ->> 'version'
    from (
      select distinct o.job, bool_or(r.delete_results) over () as may_go,
        rank() over (partition by j.bucket_id, j.name order by length(d.name) desc) as distance
      from ittybit.outputs as o join ittybit.jobs as j on j.id = o.job
      join ittybit.destinations(j.action) as d on d.bucket_id = o.bucket_id and d.name = any (places)
      left join ittybit.rules as r on r.name = j.rule
      where o.bucket_id = object ->> 'bucket_id' and o.name = any (places)
        and (j.state = 'started' or (j.state = 'queued' and j.in_doubt_since is not null))
    ) as w where w.may_go and w.distance = 1
    on conflict on constraint outputs_pkey do update set version = excluded.version;
  end if;
  with checked as (
    update ittybit.jobs as j
    set due_at = clock_timestamp() + case when w.is_folder then interval '2 seconds' else interval '0' end
    from (
      select o.job, bool_or(o.name like '%/') as is_folder
      from ittybit.outputs as o where o.bucket_id = object ->> 'bucket_id' and o.name = any (places) group by o.job
    ) as w
    where j.id = w.job and j.state = 'started' and j.claimed_at is null and j.due_at > clock_timestamp()
      and (not w.is_folder
        or j.due_at not between clock_timestamp() + interval '1 second' and clock_timestamp() + interval '2 seconds')
    returning j.function, w.is_folder
  )
  select c.function into worker from checked as c where not c.is_folder limit 1;
  if worker is not null and not ittybit.is_just_woken(worker) then
    perform ittybit.wake_from_upload(worker, object ->> 'bucket_id', object ->> 'name');
  end if;
end $$;

-- The results to delete with a job's object, while the job's rule has delete_results. A result that was replaced stays.
-- So does one that a job of another object may have written, unless that object is deleted too.
create or replace function ittybit.results_to_delete(job uuid)
returns table (bucket_id text, name text) language sql stable
begin atomic
  select o.bucket_id, o.name
  from ittybit.jobs as j
  join ittybit.rules as r on r.name = j.rule and r.delete_results
  join ittybit.outputs as o on o.job = j.id and o.version is not null
  join storage.objects as s on (s.bucket_id, s.name, s.version) = (o.bucket_id, o.name, o.version)
  where j.id = results_to_delete.job and not exists (
    select from ittybit.outputs as p join ittybit.jobs as k on k.id = p.job
    where (p.bucket_id, p.name, p.version) = (o.bucket_id, o.name, o.version)
      and (k.bucket_id, k.name) <> (j.bucket_id, j.name) and k.orphaned_by is distinct from 'gone'
  );
end;

-- A result that is renamed stays a result, whether a job wrote it or it lay under an output prefix.
create or replace function ittybit.result_moved(former jsonb, object jsonb)
returns void language plpgsql security definer set search_path = '' as $$ begin
  insert into ittybit.outputs (bucket_id, name, job, version)
  select object ->> 'bucket_id', object ->> 'name', o.job,
    max(object ->> 'version') filter (where o.version = former ->> 'version')
  from ittybit.outputs as o
  where o.bucket_id = former ->> 'bucket_id'
    and o.name = any ((select ittybit.places(former ->> 'name'))::pg_catalog.text[])
  group by o.job
  union
  -- It lay under an output prefix: which job wrote it is unknown.
  select object ->> 'bucket_id', object ->> 'name', '00000000-0000-0000-0000-000000000000', null
  from ittybit.reasons_to_skip(former ->> 'bucket_id', former ->> 'name', object -> 'metadata', false) as r
  where r = 'output_prefix'
  on conflict on constraint outputs_pkey do update set version = excluded.version;
  perform ittybit.release_output(former ->> 'bucket_id', former ->> 'name');
end $$;

-- No object is at a key any more: delete its outputs, except those that an open job may still write.
create or replace function ittybit.release_output(bucket_id text, name text)
returns void language plpgsql security definer set search_path = '' as $$ begin
  delete from ittybit.outputs as o where o.bucket_id = release_output.bucket_id and o.name = release_output.name
    and not exists (select from ittybit.jobs as j where j.id = o.job and j.state in ('queued', 'started'));
end $$;

-- A stored content was overwritten, moved or deleted. Its waiting jobs are skipped; starts in doubt are still searched
-- for. When the object was deleted, its jobs with results to delete are due again.
create or replace function ittybit.end_content(bucket_id text, name text, version text, reason text)
returns void language plpgsql security definer set search_path = '' as $$ begin
  update ittybit.jobs as j
  set
    state = case when content.waits then 'skipped' else j.state end,
    reason = case when content.waits then end_content.reason else j.reason end,
    due_at = case
      when (content.waits or j.finished_at is not null) and end_content.reason = 'gone'
        and exists (select from ittybit.results_to_delete(j.id)) then clock_timestamp()
      when not content.waits then j.due_at
    end,
    finished_at = case when content.waits then clock_timestamp() else j.finished_at end,
    orphaned_at = coalesce(j.orphaned_at, clock_timestamp()), orphaned_by = end_content.reason
  from (
    select k.id, k.state = 'queued' and k.in_doubt_since is null as waits from ittybit.jobs as k
    where k.bucket_id = end_content.bucket_id and k.name = end_content.name and (
      coalesce(k.version, '') = coalesce(end_content.version, '')
      or (k.orphaned_by = 'superseded' and end_content.reason <> 'superseded')
    )
    for update
  ) as content
  where j.id = content.id;
end $$;

-- The triggers --------------------------------------------------------------------------------------------------------
-- An object was stored, overwritten, moved or copied. After a time-out for a lock, the triggers do nothing for the rest
-- of the transaction. The exception handlers call nothing of this schema, because a missing function may be the error.
create or replace function ittybit.object_stored()
returns trigger language plpgsql security definer set search_path = ''
set lock_timeout = '200ms' set enable_seqscan = 'off' set max_parallel_workers_per_gather = 0 set jit = 'off' as $$
declare
  -- Null until a rule matches: most other objects do not need the whole row.
  object pg_catalog.jsonb; rule record; moved boolean := false;
  same_bytes boolean := false; skipped pg_catalog.text; worker pg_catalog.text;
begin
  if current_setting('ittybit.off', true) = 'on' then return null; end if;
  begin
    if tg_op = 'UPDATE' then
      moved := (old.bucket_id, old.name) is distinct from (new.bucket_id, new.name);
      same_bytes := moved or (old.metadata ->> 'eTag', old.metadata ->> 'size')
        = (new.metadata ->> 'eTag', new.metadata ->> 'size');
    end if;
    if moved then perform ittybit.result_moved(to_jsonb(old), to_jsonb(new)); end if;

    for rule in
      select r.name, r.function, r.automation_id, r.task, r.run, r.accept_s3 from ittybit.rules as r
      where r.bucket_id = new.bucket_id and r.enabled and ittybit.fits(r, new.name, new.metadata)
    loop
      if object is null then
        object := to_jsonb(new);
        select r into skipped
        from ittybit.reasons_to_skip(
          new.bucket_id, new.name, new.metadata, coalesce((object ->> 'is_delete_marker')::boolean, false)
        ) as r;
      end if;
      begin
        if same_bytes then
          -- A job that has started, or may have, moves to the new name and version: these bytes are paid for once.
          -- The lock waits for a running claim, so the jobs that it leased move too. Later claims skip the locked rows.
          with k as materialized (
            select l.* from ittybit.jobs as l
            where l.bucket_id = old.bucket_id and l.name = old.name and l.rule = rule.name
              and coalesce(l.version, '') = coalesce(old.version, '')
            for update
          )
          update ittybit.jobs as j
          set
            bucket_id = new.bucket_id, name = new.name,
            version = object ->> 'version', owner_id = object ->> 'owner_id',
            former_name = coalesce(j.former_name, case when moved and k.state <> 'succeeded' then old.name end)
          from k where j.id = k.id and (
            k.state in ('started', 'succeeded') or k.in_doubt_since is not null or (k.undecided and k.state = 'queued')
          );
          continue when found;
        end if;

        exit when skipped is not null;
        -- Later the object does not show that it was written through S3, so this reason is recorded.
        worker := ittybit.record_job(rule, object, case
          when not rule.accept_s3 and current_setting('storage.operation', true) like 'storage.s3.%' then 's3_write'
        end);
        if worker is not null and not ittybit.is_just_woken(worker) then
          perform ittybit.wake_from_upload(worker, new.bucket_id, new.name, rule.name);
        end if;
      exception when others then
        raise warning 'ittybit: rule % missed %/%: % (%)', rule.name, new.bucket_id, new.name, sqlerrm, sqlstate;
        perform set_config('ittybit.off', 'on', true) where sqlstate = '55P03';
        exit when sqlstate = '55P03';
      end;
    end loop;

    if coalesce(current_setting('ittybit.off', true), '') = 'on' then return null; end if;

    if object is null then
      select 'output' into skipped from ittybit.outputs as o
      where o.bucket_id = new.bucket_id and o.name = any ((select ittybit.places(new.name))::pg_catalog.text[]) limit 1;
    end if;
    if skipped = 'output' then perform ittybit.result_stored(to_jsonb(new)); end if;
    if tg_op = 'UPDATE' then
      begin
        perform ittybit.end_content(
          old.bucket_id, old.name, old.version, case when moved then 'moved' else 'superseded' end
        );
      exception when others then
        -- The new content's jobs stay recorded. A claim of a former content's job finds it superseded.
        raise warning 'ittybit: missed the end of %/%: % (%)', old.bucket_id, old.name, sqlerrm, sqlstate;
        perform set_config('ittybit.off', 'on', true) where sqlstate = '55P03';
      end;
    end if;
  exception when others then
    raise warning 'ittybit: missed %/%: % (%)', new.bucket_id, new.name, sqlerrm, sqlstate;
    perform set_config('ittybit.off', 'on', true) where sqlstate = '55P03';
  end;
  return null;
end $$;

-- An object was deleted: its waiting jobs are skipped. If it was a result, uploads to its key may trigger jobs again.
create or replace function ittybit.object_removed()
returns trigger language plpgsql security definer set search_path = ''
set lock_timeout = '200ms' set enable_seqscan = 'off' set max_parallel_workers_per_gather = 0 set jit = 'off' as $$
begin
  if current_setting('ittybit.off', true) = 'on' then return null; end if;
  begin
    perform ittybit.end_content(old.bucket_id, old.name, old.version, 'gone');
    perform ittybit.release_output(old.bucket_id, old.name);
  exception when others then
    raise warning 'ittybit: missed the removal of %/%: % (%)', old.bucket_id, old.name, sqlerrm, sqlstate;
    perform set_config('ittybit.off', 'on', true) where sqlstate = '55P03';
  end;
  return null;
end $$;

-- The triggers' definitions, in pg_get_triggerdef's words without parentheses, and each one's fault, or null. They fire
-- only for final metadata: the storage server first tries a write with a row without a size, and rolls that back.
create or replace function ittybit.trigger_faults()
returns table (name text, definition text, fault text) language sql stable security definer set search_path = '' as $$
  select e.name, e.definition, case
    when t.oid is null then 'is missing'
    when t.tgenabled not in ('O', 'A') then 'is disabled'
    when translate(lower(pg_catalog.pg_get_triggerdef(t.oid)), '()', '')
      <> format('create trigger %s %s', e.name, translate(e.definition, '()', ''))
      then 'is not what the migrations define'
  end
  from (
    values
      ('ittybit_object_stored', 'after insert on storage.objects for each row when (new.metadata ? ''size''::text)'
        ' execute function ittybit.object_stored()'),
      ('ittybit_object_replaced', 'after update of version, name, bucket_id on storage.objects for each row'
        ' when (new.metadata ? ''size''::text and (old.version is distinct from new.version or old.name is distinct'
        ' from new.name or old.bucket_id is distinct from new.bucket_id)) execute function ittybit.object_stored()'),
      ('ittybit_object_removed', 'after delete on storage.objects for each row'
        ' execute function ittybit.object_removed()')
  ) as e (name, definition)
  left join pg_catalog.pg_trigger as t on t.tgrelid = 'storage.objects'::regclass and t.tgname = e.name;
$$;

-- Creating a trigger locks storage.objects, and uploads queue behind it. So only a trigger that is missing or wrong is
-- created, and it waits 150 ms at most for the lock.
do $$
declare made record;
begin
  perform set_config('lock_timeout', '150ms', true);
  for made in select t.name, t.definition from ittybit.trigger_faults() as t where t.fault is not null loop
    execute format('create or replace trigger %I %s', made.name, made.definition);
  end loop;
end $$;
select ittybit.close_schema();
reset search_path;
