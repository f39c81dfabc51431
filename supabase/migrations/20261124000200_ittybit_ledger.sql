-- The ledger: one row per rule and stored content, written in the transaction that stores the object.
--
-- `due_at` drives everything. It says when the job next needs a step, by this database's clock. A claim moves it one
-- lease ahead, so a job whose lease ends without a report is simply due again. A report sets it to the next try, the
-- next check, or null. Once its tables and indexes are there, this file can run again while uploads go on.
set search_path = '';

-- A domain, because PostgreSQL parses a table's checks and generated columns anew at each insert.
do $$ begin
  if to_regtype('ittybit.job_state') is null then
    create domain ittybit.job_state as text
      check (value in ('queued', 'started', 'succeeded', 'failed', 'skipped'));
  end if;
end $$;

create table if not exists ittybit.jobs (
  id uuid primary key default gen_random_uuid(),
  rule text not null, bucket_id text not null, name text not null,
  version text, -- storage.objects.version: one value per stored content, new on overwrite and move
  etag text, size bigint, owner_id text, action jsonb not null,
  function text not null, -- the function that does the job
  state ittybit.job_state not null default 'queued', backfill boolean not null default false,
  generation integer not null default 1, -- rises with ittybit.retry and a restart under a new name; part of the mark
  attempt integer not null default 0, -- the last claim's number; it never falls, so old claims' reports are recognized
  lost integer not null default 0, -- how many leases in a row ended without a report; those of searches do not count
  due_at timestamptz, claimed_at timestamptz, -- claimed_at: when the lease began; null when no function holds the job
  in_doubt_since timestamptz, undecided boolean not null default false,
  searched jsonb check (jsonb_typeof(searched) = 'object'), -- how far ittybit's list was searched for that start
  former_name text, -- the name that ittybit was given, if it changed since: a failed job then starts once more
  ittybit_id text, progress real, outputs text[], reason text, error jsonb,
  failures integer not null default 0, failing_since timestamptz,
  created_at timestamptz not null default now(), started_at timestamptz, progressed_at timestamptz,
  finished_at timestamptz, orphaned_at timestamptz, -- orphaned_at: the content's end; the row must stay until then
  orphaned_by text, results_deleted_at timestamptz
);
comment on table ittybit.jobs is 'One row for each rule and content that it matched. The jobs of a deleted rule stay.';
comment on column ittybit.jobs.owner_id is 'The object''s owner; see deploy/share_status.sql.';
comment on column ittybit.jobs.action is 'A copy of the rule''s action at the upload, with the placeholders filled in.';
comment on column ittybit.jobs.due_at is 'When the job needs a step, or its lease ends; null when nothing is left.';
comment on column ittybit.jobs.in_doubt_since is 'Since when it is unknown whether the job has started, or null.';
comment on column ittybit.jobs.undecided is 'No search could tell whether it had started: it is started once more.';
comment on column ittybit.jobs.orphaned_by is 'How the content ended: superseded, moved or gone (deleted).';
comment on column ittybit.jobs.results_deleted_at is 'When no result was left to delete; see ittybit.results_of.';
comment on column ittybit.jobs.reason is 'Why it was skipped, failed or waits, as docs/errors.md explains.';
comment on column ittybit.jobs.error is 'The last error: {"status", "kind", "message"} as the service gave it.';

create table if not exists ittybit.outputs (
  bucket_id text not null,
  name text not null, -- a key, or a folder ending in / for kinds that write many files
  job uuid not null,
  version text, -- the content that ittybit wrote, for delete_results; each file of a folder then has its own row
  primary key (bucket_id, name, job)
);
comment on table ittybit.outputs is 'Where jobs may write: an object there is a result and triggers no job.';

create table if not exists ittybit.functions (
  name text primary key check (name in ('on-upload', 'push-back')),
  url text check (url ~ '^https?://[!-~]+$'),
  awaited_since timestamptz, -- the first wake-up since a claim, as pg_cron sees it; before claimed_at once one follows
  request_id bigint, -- pg_net's id of pg_cron's last wake-up, for ittybit.last_answer; a crash lets pg_net reuse ids
  claimed_at timestamptz -- the first claim after the last wake-up
);
comment on table ittybit.functions is 'The HTTP functions that do the work, and their addresses for wake-ups.';

-- When each function was last woken, in milliseconds since 1970; 0 after a claim that left nothing. Sequences, so that
-- an upload that wakes a function writes no row for which another upload waits; see ittybit.wake_from_upload.
create sequence if not exists ittybit.on_upload_woken minvalue 0;
create sequence if not exists ittybit.push_back_woken minvalue 0;

create table if not exists ittybit.settings (
  singleton boolean primary key default true check (singleton),
  project text check (project ~ '^https?://[!-~]+[^/]$'),
  output_prefixes text[] not null default '{processed/}',
  starts_per_hour integer not null default 1000 check (starts_per_hour >= 0),
  starts_per_day integer not null default 5000 check (starts_per_day >= 0),
  parallel_calls integer not null default 8 check (parallel_calls between 1 and 100),
  paused boolean not null default false, tripped_at timestamptz,
  migrations text, version text -- the checksum and version of the migrations that deploy.sh applied last
);
comment on table ittybit.settings is 'One row. The secret that signs wake-ups is in Vault: ittybit_functions_secret.';
comment on column ittybit.settings.project is 'SUPABASE_URL of the functions that may claim. The first claim sets it.';
comment on column ittybit.settings.output_prefixes is 'Objects under one of these, in any bucket, trigger no job.';
comment on column ittybit.settings.starts_per_day is 'Reaching it sets tripped_at: nothing starts until resume().';
comment on column ittybit.settings.parallel_calls is 'How many wake-up calls a function may get at a time.';
comment on column ittybit.settings.paused is 'Uploads are still recorded; nothing starts.';

create table if not exists ittybit.starts (
  hour timestamptz primary key,
  started integer not null, towards_day integer not null -- towards_day: of these, the ones since ittybit.resume()
);
comment on table ittybit.starts is 'The starts of each hour. The ceilings count these and the starts in doubt.';

create table if not exists ittybit.holds (
  scope text primary key, -- "all" (402), "function:<name>" (401) or "rule:<name>" (403)
  error jsonb, since timestamptz not null default now(), probe_at timestamptz not null
);
comment on table ittybit.holds is 'What ittybit refuses for now. One job of the scope tries again at probe_at.';

insert into ittybit.settings (singleton) values (true) on conflict do nothing;
insert into ittybit.functions (name) values ('on-upload'), ('push-back') on conflict do nothing;

-- The kind of an open job: 0 start in doubt, 1 check or deletion, 2 upload, 3 backfill, 4 any that was lost twice,
-- counting the last lease if it has no report. Kinds 0 and 1 cost nothing: they are claimed while starts are kept back.
create or replace function ittybit.kind(
  state text, in_doubt_since timestamptz, backfill boolean, lost integer, claimed_at timestamptz
) returns integer language sql immutable parallel safe
return case
  when state = 'queued' and in_doubt_since is not null then 0 when lost + (claimed_at is not null)::integer > 1 then 4
  when state <> 'queued' then 1 when backfill then 3 else 2
end;

-- Creating an index blocks uploads, so only a missing one is created.
do $$
declare made record;
begin
  for made in
    values
      ('rules_bucket', 'create index rules_bucket on ittybit.rules (bucket_id)'),
      -- The object comes first, so that the triggers find an object's jobs with this unique index.
      ('jobs_content',
        'create unique index jobs_content on ittybit.jobs (bucket_id, name, rule, coalesce(version, ''''))'),
      ('jobs_due',
        'create index jobs_due on ittybit.jobs (function, ittybit.kind('
        'state, in_doubt_since, backfill, lost, claimed_at), due_at) where due_at is not null'),
      ('outputs_written', 'create index outputs_written on ittybit.outputs (job) where version is not null'),
      -- A job that succeeds without trouble is in none of these three.
      ('jobs_failed', 'create index jobs_failed on ittybit.jobs (rule) where state = ''failed'''),
      ('jobs_lost', 'create index jobs_lost on ittybit.jobs (function) where lost > 1'),
      ('jobs_orphaned', 'create index jobs_orphaned on ittybit.jobs (orphaned_at) where orphaned_at is not null')
  loop
    if to_regclass('ittybit.' || made.column1) is null then execute made.column2; end if;
  end loop;
end $$;

-- The scopes in which a job's start can be kept back; see ittybit.kept_back.
create or replace function ittybit.scopes(rule text, function text)
returns text[] language sql immutable parallel safe
return array['all', 'function:' || function, 'rule:' || rule];

-- The starts that the ceilings count: those of this hour, and those of the last 24 hours since ittybit.resume().
-- Not a view, because replacing a view blocks uploads.
create or replace function ittybit.recent_starts()
returns table (this_hour bigint, today bigint) language sql stable
begin atomic
  select
    coalesce(sum(c.started) filter (where c.hour > now() - interval '1 hour'), 0), coalesce(sum(c.towards_day), 0)
  from ittybit.starts as c where c.hour > now() - interval '24 hours';
end;

-- How many more jobs may start now under the ceilings. A start in doubt may have happened, so it counts.
create or replace function ittybit.starts_left()
returns integer language plpgsql stable security definer set search_path = '' as $$ begin
  return (
    select least(s.starts_per_hour - c.this_hour, s.starts_per_day - c.today) - (
      select count(*) from ittybit.jobs as j
      where j.function in ('on-upload', 'push-back')
        and ittybit.kind(j.state, j.in_doubt_since, j.backfill, j.lost, j.claimed_at) = 0 and j.due_at is not null
    )
    from ittybit.settings as s cross join ittybit.recent_starts() as c
  );
end $$;

-- What keeps starts back now: each scope and its reason. Empty when everything may start. A caller that already knows
-- how many starts are left passes the number, because counting reads every start in doubt.
create or replace function ittybit.kept_back(starts_left integer default ittybit.starts_left())
returns table (scope text, reason text) language plpgsql stable security definer set search_path = '' as $$ begin
  return query
  select 'all', case when s.paused then 'paused' when s.tripped_at is not null then 'tripped' else 'ceiling' end
  from ittybit.settings as s
  where s.paused or s.tripped_at is not null or kept_back.starts_left <= 0
  union all
  select 'rule:' || r.name, 'disabled' from ittybit.rules as r where not r.enabled
  union all
  select h.scope, 'held' from ittybit.holds as h where h.probe_at > now();
end $$;

-- When a rule is deleted, its waiting jobs are skipped and started ones finish. When renamed, it keeps its jobs.
create or replace function ittybit.follow_rule()
returns trigger language plpgsql security definer set search_path = '' as $$ begin
  if tg_op = 'DELETE' then
    update ittybit.jobs as j set state = 'skipped', reason = 'rule_deleted', due_at = null, finished_at = now()
    where j.rule = old.name and j.state = 'queued' and j.in_doubt_since is null;
    delete from ittybit.holds as h where h.scope = 'rule:' || old.name;
  else
    begin
      update ittybit.jobs as j set rule = new.name where j.rule = old.name;
    exception when unique_violation then
      raise exception 'rule "%" cannot become "%": a former rule of that name has jobs for the same objects',
        old.name, new.name using errcode = 'unique_violation', hint = 'Choose a name that no rule has had.';
    end;
    update ittybit.holds as h set scope = 'rule:' || new.name where h.scope = 'rule:' || old.name;
  end if;
  return null;
end $$;

create or replace trigger rule_deleted after delete on ittybit.rules
for each row execute function ittybit.follow_rule();

create or replace trigger rule_renamed after update of name on ittybit.rules
for each row when (old.name is distinct from new.name) execute function ittybit.follow_rule();
select ittybit.close_schema();
reset search_path;
