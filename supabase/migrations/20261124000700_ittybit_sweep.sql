-- The sweep and the backfill: both compare storage.objects with the ledger.
--
-- The sweep records what a disabled or failing trigger missed. A backfill processes older objects when a person asks.
-- Both walk along storage's index of (bucket_id, name), a page at a time. The transaction of a page also saves how far
-- they are, so that after a crash they go on from there.
set search_path = '';

create table if not exists ittybit.sweep (
  singleton boolean primary key default true check (singleton),
  bucket_id text not null default '', name text not null default '',
  rounds bigint not null default 0, healed bigint not null default 0
);
comment on table ittybit.sweep is 'How far the sweep is: one row.';
insert into ittybit.sweep (singleton) values (true) on conflict do nothing;

create table if not exists ittybit.backfills (
  rule text primary key,
  state text not null default 'running' check (state in ('running', 'done', 'stopped')),
  files bigint not null, bytes bigint not null, recorded bigint not null default 0,
  name text not null default '', -- how far it is: the last key that it looked at
  last_name text not null, -- the last key of the plan; later keys are not part of it
  content_before timestamptz not null, began_at timestamptz not null default now(), ended_at timestamptz
);
comment on table ittybit.backfills is 'The last backfill of each rule: how many jobs of its plan are recorded.';

-- When an object's content was stored, from the storage server's metadata; null if it is not there.
create or replace function ittybit.content_time(metadata jsonb)
returns timestamptz language plpgsql stable set search_path = '' as $$ begin
  return (metadata ->> 'lastModified')::pg_catalog.timestamptz;
exception when others then
  return null;
end $$;

-- Objects that an enabled rule matches and whose content has no job of it, or one that stop_backfill skipped. `skipped`
-- is why an object triggers no job and needs no row, `reason` why its action cannot be done. Which objects came through
-- S3 is not known any more: results are recognized by their outputs or their prefix.
create or replace view ittybit.unseen as
select
  r as rule, r.name as rule_name, o.bucket_id, o.name, to_jsonb(o) as object,
  (o.metadata ->> 'size')::bigint as size, ittybit.content_time(o.metadata) as content_time,
  j.id as stopped_job, s.reason as skipped, case when r.function = 'push-back'
    then ittybit.reason_against_action(ittybit.fill_action(r, to_jsonb(o)), to_jsonb(o)) end as reason
from ittybit.rules as r
join storage.objects as o on o.bucket_id = r.bucket_id and o.metadata ? 'size' and ittybit.fits(r, o.name, o.metadata)
-- PostgreSQL looks into the ledger's index once for each object, however large the ledger is.
left join lateral (
  select k.id, k.state, k.reason from ittybit.jobs as k
  where k.bucket_id = o.bucket_id and k.name = o.name and k.rule = r.name
    and coalesce(k.version, '') = coalesce(o.version, '') limit 1
) as j on true
cross join lateral ittybit.reasons_to_skip(
  o.bucket_id, o.name, o.metadata, coalesce((to_jsonb(o) ->> 'is_delete_marker')::boolean, false)
) as s (reason)
where r.enabled and (j.id is null or (j.state = 'skipped' and j.reason = 'backfill_stopped'));

-- What a backfill processes: a rule's unseen objects that may start, stored before `before` or at an unknown time.
create or replace function ittybit.startable(rule text, before timestamptz)
returns setof ittybit.unseen language sql stable
begin atomic
  select u.* from ittybit.unseen as u
  where u.rule_name = startable.rule and coalesce(u.content_time < startable.before, true)
    and u.skipped is null and u.reason is null;
end;

-- Why the sweep must not start an object, or null. The results of an automation without output_prefix look like uploads
-- with a service key, in any bucket. While there is such a rule, the sweep starts no object without an owner.
create or replace function ittybit.reason_not_to_start(object jsonb)
returns text language sql stable security definer set search_path = '' as $$
  select 'origin_unknown' where object ->> 'owner_id' is null and exists (
    select from ittybit.rules as r where r.automation_id is not null and r.output_prefix is null
  );
$$;

-- A bucket's next page: the keys after `after` up to last_name, null if there are none. `is_last`: no more keys follow.
create or replace function ittybit.next_page(
  bucket_id text, after text, page integer, out last_name text, out is_last boolean
) language sql stable security definer set search_path = '' as $$
  select max(o.name), count(*) < page
  from (
    select p.name from storage.objects as p
    where p.bucket_id = next_page.bucket_id and p.name > after order by p.name limit page
  ) as o;
$$;

-- Look through the next page of objects, and record what the triggers missed since the rule became active. A page costs
-- the same in a bucket of any size. Returns how many jobs it made.
create or replace function ittybit.sweep_page(page integer default 500)
returns integer language plpgsql security definer set search_path = '' as $$
declare bucket pg_catalog.text; after pg_catalog.text; missed record; page_of record; made integer := 0;
begin
  select s.bucket_id, s.name into bucket, after from ittybit.sweep as s for update skip locked;
  if not found then return 0; end if;
  -- This bucket, or the next one that a rule watches.
  select min(r.bucket_id), case when min(r.bucket_id) = bucket then after else '' end into bucket, after
  from ittybit.rules as r where r.enabled and r.bucket_id >= bucket;

  select p.* into page_of from ittybit.next_page(bucket, after, page) as p;
  for missed in
    select u.rule, u.object from ittybit.unseen as u
    where u.bucket_id = bucket and u.name > after and u.name <= page_of.last_name
      and u.content_time >= (u.rule).active_since and u.stopped_job is null and u.skipped is null
  loop
    perform ittybit.record_job(missed.rule, missed.object, ittybit.reason_not_to_start(missed.object));
    made := made + 1;
  end loop;

  after := page_of.last_name;
  if page_of.is_last then
    -- Continue with the next bucket; after the last one, begin the next round.
    select min(r.bucket_id), '' into bucket, after from ittybit.rules as r where r.enabled and r.bucket_id > bucket;
  end if;
  update ittybit.sweep as s
  set
    bucket_id = coalesce(bucket, ''), name = after, healed = s.healed + made,
    rounds = s.rounds + (bucket is null)::integer
  where s.singleton;
  return made;
end $$;

-- Process a rule's older objects. Without `run` it only returns the plan: how many files and bytes, and a sample. With
-- `run => true` it begins; `cap` limits the files. It never processes more than the plan, nor what is stored later. A
-- call while it runs returns how far it is. Jobs that stop_backfill skipped are part of the next plan.
create or replace function ittybit.backfill(rule text, run boolean default false, cap bigint default null)
returns table (state text, files bigint, bytes bigint, recorded bigint, sample text[])
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
declare plan record;
begin
  if not exists (select from ittybit.rules as r where r.name = backfill.rule and r.enabled) then
    raise exception 'there is no enabled rule "%"', backfill.rule using errcode = 'no_data_found';
  elsif cap < 1 then
    raise exception 'cap must be at least 1' using errcode = 'invalid_parameter_value';
  end if;
  return query
  select b.state, b.files, b.bytes, b.recorded, null::pg_catalog.text[]
  from ittybit.backfills as b where b.rule = backfill.rule and b.state = 'running';
  if found then return; end if;

  select
    count(*) as files, coalesce(sum(u.size), 0)::bigint as bytes, max(u.name) as last_name,
    array_agg(u.name order by u.place) filter (where u.place <= 5) as sample
  into plan
  from (
    select s.size, s.name, row_number() over (order by s.name) as place
    from ittybit.startable(backfill.rule, statement_timestamp()) as s order by s.name limit backfill.cap
  ) as u;
  run := run and plan.files > 0;
  if run then
    delete from ittybit.backfills as b where b.rule = backfill.rule;
    insert into ittybit.backfills as b (rule, files, bytes, last_name, content_before)
    values (backfill.rule, plan.files, plan.bytes, plan.last_name, statement_timestamp());
  end if;
  return query
  select case when run then 'running' else 'plan' end, plan.files, plan.bytes, 0::bigint, plan.sample;
end $$;

-- Stop a rule's backfill: its jobs that have not started are skipped. Returns how many.
create or replace function ittybit.stop_backfill(rule text)
returns bigint language plpgsql security definer set search_path = '' as $$
declare stopped bigint;
begin
  -- Wait for a page that is being recorded, so that its jobs are skipped as well.
  perform from ittybit.backfills as b where b.rule = stop_backfill.rule for update;
  update ittybit.jobs as j set state = 'skipped', reason = 'backfill_stopped', due_at = null, finished_at = now()
  where j.rule = stop_backfill.rule and j.backfill and j.state = 'queued' and j.in_doubt_since is null
    and j.due_at is not null;
  get diagnostics stopped = row_count;
  update ittybit.backfills as b set state = 'stopped', ended_at = now()
  where b.rule = stop_backfill.rule and (b.state = 'running' or stopped > 0);
  return stopped;
end $$;

-- Record the next jobs of each running backfill, so that up to `page` of its jobs wait. Returns how many.
create or replace function ittybit.backfill_page(page integer default 500)
returns integer language plpgsql security definer set search_path = '' as $$
declare
  walk record; missed record; page_of record; bucket pg_catalog.text; room bigint; made integer;
  total integer := 0;
begin
  for walk in
    select b.* from ittybit.backfills as b where b.state = 'running' order by b.began_at for update skip locked
  loop
    -- While its rule is disabled, a backfill waits; when its rule is deleted, it stops.
    select r.bucket_id into bucket from ittybit.rules as r where r.name = walk.rule and r.enabled;
    if not found then
      update ittybit.backfills as b set state = 'stopped', ended_at = now()
      where b.rule = walk.rule and not exists (select from ittybit.rules as r where r.name = walk.rule);
      continue;
    end if;
    select least(page - count(*), walk.files - walk.recorded) into room
    from ittybit.jobs as j
    where j.function in ('on-upload', 'push-back') and j.due_at is not null
      and ittybit.kind(j.state, j.in_doubt_since, j.backfill, j.lost, j.claimed_at) = 3 and j.rule = walk.rule;
    continue when room <= 0;

    select p.* into page_of from ittybit.next_page(bucket, walk.name, page) as p;
    made := 0;
    for missed in
      select u.rule, u.object, u.name, u.stopped_job from ittybit.startable(walk.rule, walk.content_before) as u
      where u.bucket_id = bucket and u.name > walk.name and u.name <= least(page_of.last_name, walk.last_name)
      order by u.name limit room
    loop
      if missed.stopped_job is null then
        perform ittybit.record_job(missed.rule, missed.object, null, backfill => true);
      else
        perform ittybit.retry(missed.stopped_job);
      end if;
      made := made + 1;
      walk.name := missed.name;
    end loop;
    -- If `room` is used up, the next page begins after the last recorded object; else this page was read to its end.
    walk.recorded := walk.recorded + made;
    if made = room then
      walk.state := case when walk.recorded = walk.files then 'done' else 'running' end;
    else
      walk.state := case when page_of.is_last or page_of.last_name >= walk.last_name then 'done' else 'running' end;
      walk.name := coalesce(page_of.last_name, walk.name);
    end if;
    update ittybit.backfills as b set (recorded, name, state, ended_at)
      = (walk.recorded, walk.name, walk.state, case when walk.state = 'done' then now() end)
    where b.rule = walk.rule;
    total := total + made;
  end loop;
  return total;
end $$;
select ittybit.close_schema();
reset search_path;
