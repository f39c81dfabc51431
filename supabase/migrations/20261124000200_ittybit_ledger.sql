-- The ledger: one row per rule and content, written in the transaction that stores the object.
--
-- `due_at` drives everything. It says when the job must next be sent to its function, by this database's clock: sending
-- sets it one lease ahead, a report sets it to the next try, the next check, or null. It can run twice.

set search_path = '';

create table if not exists ittybit.jobs (
  id uuid primary key default gen_random_uuid(),
  rule text not null,
  bucket_id text not null,
  name text not null,
  version text,
  etag text,
  size bigint,
  automation_id text,
  task jsonb,
  function text not null
    generated always as (case when automation_id is null then 'push-back' else 'on-upload' end) stored,
  state text not null default 'queued'
    check (state in ('queued', 'started', 'succeeded', 'failed', 'skipped')),
  generation integer not null default 1,
  attempt integer not null default 0,
  claimed integer not null default 0,
  reported integer not null default 0,
  former_attempts integer not null default 0,
  backfill boolean not null default false,
  due_at timestamptz,
  ittybit_id text,
  progress real,
  outputs text[],
  reason text,
  error jsonb,
  failures integer not null default 0,
  failing_since timestamptz,
  doubt_since timestamptz,
  restart text check (restart in ('due', 'done')),
  request_id bigint,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  progressed_at timestamptz,
  finished_at timestamptz,
  orphaned_at timestamptz
);

comment on table ittybit.jobs is 'What became of each object that a rule matched. Deleted rules leave their jobs.';
comment on column ittybit.jobs.version is 'storage.objects.version: one value per stored content, new on overwrite and move.';
comment on column ittybit.jobs.task is 'The rule''s task as it was, its destination filled in for this object.';
comment on column ittybit.jobs.function is 'The HTTP function that does the work.';
comment on column ittybit.jobs.generation is 'Counts up when a person asks for the work again; part of the mark.';
comment on column ittybit.jobs.attempt is 'How often the job was sent; (job, attempt) is the message.';
comment on column ittybit.jobs.claimed is 'The last attempt that a claim was answered for, won or refused.';
comment on column ittybit.jobs.reported is 'The last attempt that has had its say, or may have none: said twice, it counts once.';
comment on column ittybit.jobs.former_attempts is 'Attempts of earlier generations: what they report is not of this one.';
comment on column ittybit.jobs.backfill is 'Made by a backfill: live uploads go first.';
comment on column ittybit.jobs.due_at is 'When the job is sent next; null when nothing is left to do.';
comment on column ittybit.jobs.ittybit_id is 'The run (automation) or task at ittybit.';
comment on column ittybit.jobs.outputs is 'Addresses of the results: s3://bucket/key or https.';
comment on column ittybit.jobs.reason is 'Why it was skipped or failed, in one word.';
comment on column ittybit.jobs.error is 'The last error: {"status", "kind", "message"} as the service gave it.';
comment on column ittybit.jobs.doubt_since is
  'Since when a start may have happened without our knowing: set by a claim, cleared by a certain report.';
comment on column ittybit.jobs.restart is
  'Whether a start in doubt could not be found out: it waits to be started once more (due), and never again (done).';
comment on column ittybit.jobs.request_id is 'pg_net''s number of the last call, for reading only: a crash reuses it.';
comment on column ittybit.jobs.orphaned_at is 'Since when the content no longer exists: only then the row may go.';

-- Led by the object, so that the triggers find an object's jobs by the same index that keeps them unique.
create unique index if not exists jobs_content on ittybit.jobs (bucket_id, name, rule, coalesce(version, ''));
create index if not exists jobs_due on ittybit.jobs (function, backfill, due_at) where due_at is not null;
create index if not exists jobs_failed on ittybit.jobs (rule) where state = 'failed';
create index if not exists jobs_orphaned on ittybit.jobs (orphaned_at) where orphaned_at is not null;
create unique index if not exists jobs_ittybit_id on ittybit.jobs (ittybit_id) where ittybit_id is not null;

create table if not exists ittybit.outputs (
  bucket_id text not null,
  name text not null,
  job uuid not null,
  primary key (bucket_id, name, job)
);

create index if not exists outputs_job on ittybit.outputs (job);

comment on table ittybit.outputs is 'Reserved destinations: an object stored under one is a result and starts nothing.';
comment on column ittybit.outputs.name is 'A key, or a folder ending in / for kinds that write many files.';

create table if not exists ittybit.settings (
  singleton boolean primary key default true check (singleton),
  on_upload_url text check (on_upload_url ~ '^https?://[!-~]+$'),
  push_back_url text check (push_back_url ~ '^https?://[!-~]+$'),
  output_prefixes text[] not null default '{processed/}',
  starts_per_hour integer not null default 1000 check (starts_per_hour >= 0),
  starts_per_day integer not null default 5000 check (starts_per_day >= 0),
  unanswered_calls integer not null default 100 check (unanswered_calls > 0),
  paused boolean not null default false,
  tripped_at timestamptz,
  nudge boolean not null default true,
  project text check (project ~ '^https?://[!-~]+$'),
  home text,
  copied_at timestamptz,
  migrations text
);

comment on table ittybit.settings is 'One row. The secret that signs the calls is in Vault: ittybit_functions_secret.';
comment on column ittybit.settings.output_prefixes is 'Objects under one of these, in any bucket, start nothing.';
comment on column ittybit.settings.starts_per_day is 'Reaching it trips tripped_at: nothing starts until that is null again.';
comment on column ittybit.settings.unanswered_calls is 'How many calls to one function may be under way without a claim.';
comment on column ittybit.settings.paused is 'Uploads go on being recorded; nothing starts.';
comment on column ittybit.settings.nudge is 'Kept by the sender: whether the trigger may send a job at once.';
comment on column ittybit.settings.project is 'The address of the project that this was set up for, by deploy.sh.';
comment on column ittybit.settings.home is 'The database this was set up in: any other is a copy, which starts nothing.';
comment on column ittybit.settings.copied_at is 'Kept by the sender: when it first found this to be a copy.';
comment on column ittybit.settings.migrations is 'Which state of the migrations deploy.sh last applied.';

insert into ittybit.settings (singleton) values (true) on conflict do nothing;

create table if not exists ittybit.starts (
  hour timestamptz primary key,
  claimed integer not null,
  towards_day integer not null
);

comment on table ittybit.starts is 'Starts claimed in each hour: what the ceilings are held against.';
comment on column ittybit.starts.towards_day is 'Those that count for starts_per_day: since ittybit.resume().';

create table if not exists ittybit.holds (
  scope text primary key,
  error jsonb,
  since timestamptz not null default now(),
  probe_at timestamptz not null,
  probe uuid
);

comment on table ittybit.holds is
  'What ittybit refuses for now: "all" (402), "function:<name>" (401) or "rule:<name>" (403). One job probes at probe_at.';

alter table ittybit.jobs enable row level security;
alter table ittybit.outputs enable row level security;
alter table ittybit.settings enable row level security;
alter table ittybit.starts enable row level security;
alter table ittybit.holds enable row level security;

revoke all on all tables in schema ittybit from public, anon, authenticated, service_role;


-- The database that this is: its cluster's identifier, which a restored dump does not bring along, and its number.
create or replace function ittybit.here()
returns text
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  cluster pg_catalog.text := '-';
begin
  -- Where it may not be asked for, the number alone must do.
  if has_function_privilege('pg_catalog.pg_control_system()', 'execute') then
    select c.system_identifier into cluster from pg_catalog.pg_control_system() as c;
  end if;
  return cluster || '/' || (select d.oid from pg_catalog.pg_database as d where d.datname = current_database());
end;
$$;

-- Whether this can tell that it is not the database it was set up in; see the migration ittybit_origin.
create or replace function ittybit.is_copy()
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return coalesce((select s.home <> ittybit.here() from ittybit.settings as s), false);
end;
$$;


-- Reserve what a task writes: the key, or the whole folder for kinds that write many files.
create or replace function ittybit.reserve_output(job uuid, task jsonb)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  insert into ittybit.outputs (bucket_id, name, job)
  select
    place.part[1],
    case task ->> 'kind' when 'adaptive_video' then substring(place.part[2] from '^.*/') else place.part[2] end,
    reserve_output.job
  from regexp_match(task ->> 'destination', '^s3://([^/]+)/(.*)$') as place (part)
  where place.part is not null
  on conflict do nothing;
end;
$$;

-- A job that ended writes nothing more: what it reserved and never wrote is free again. Not so where it was given up
-- without ittybit's word that the run is over: that may still write.
create or replace function ittybit.free_outputs()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from ittybit.outputs as o
  where o.job = new.id
    -- Whether a folder is empty is asked by ittybit.tidy(): it costs more than an upload may wait for.
    and o.name not like '%/'
    and not exists (
      select from storage.objects as stored where stored.bucket_id = o.bucket_id and stored.name = o.name
    );
  return null;
end;
$$;

create or replace trigger job_ended
after update of state on ittybit.jobs
for each row when (
  new.task is not null
  and new.finished_at is not null
  and old.finished_at is null
  and coalesce(new.reason, '') not in ('no_progress', 'gave_up', 'undecided')
)
execute function ittybit.free_outputs();


-- Deleting a rule skips its waiting jobs and lets started ones finish; renaming one takes its jobs along.
create or replace function ittybit.follow_rule()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if tg_op = 'DELETE' then
    update ittybit.jobs as j
    set state = 'skipped', reason = 'rule_deleted', due_at = null, finished_at = now()
    where j.rule = old.name and j.state = 'queued' and j.doubt_since is null and j.due_at is not null;
    delete from ittybit.holds as h where h.scope = 'rule:' || old.name;
  else
    begin
      update ittybit.jobs as j set rule = new.name where j.rule = old.name;
    exception when unique_violation then
      raise exception 'rule "%" cannot become "%": a former rule of that name has jobs for the same objects',
        old.name, new.name
        using errcode = 'unique_violation', hint = 'Choose a name that no rule has had.';
    end;
    update ittybit.holds as h set scope = 'rule:' || new.name where h.scope = 'rule:' || old.name;
  end if;
  return null;
end;
$$;

create or replace trigger rule_deleted
after delete on ittybit.rules
for each row execute function ittybit.follow_rule();

create or replace trigger rule_renamed
after update of name on ittybit.rules
for each row when (old.name is distinct from new.name) execute function ittybit.follow_rule();

revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

reset search_path;
