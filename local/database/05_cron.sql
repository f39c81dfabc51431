-- Schema cron after pg_cron 1.6, with the grants that a hosted project adds. local/pg_cron.py does the work of the
-- background worker. Left out: jobs without a name, schedule_in_database, changes of a job's database or user, and in
-- schedules everything but `n seconds`, numbers, `*`, and `*/n` for minutes and hours.

create schema cron;

create sequence cron.jobid_seq;
create table cron.job (
  jobid bigint primary key default nextval('cron.jobid_seq'),
  schedule text not null,
  command text not null,
  nodename text not null default 'localhost',
  nodeport integer not null default current_setting('port')::integer,
  database text not null default current_database(),
  username text not null default current_user,
  active boolean not null default true,
  jobname text,
  constraint jobname_username_uniq unique (jobname, username)
);

create sequence cron.runid_seq;
create table cron.job_run_details (
  jobid bigint,
  runid bigint primary key default nextval('cron.runid_seq'),
  job_pid integer,
  database text,
  username text,
  command text,
  status text,
  return_message text,
  start_time timestamptz,
  end_time timestamptz
);

alter table cron.job enable row level security;
create policy cron_job_policy on cron.job using (username = current_user);
alter table cron.job_run_details enable row level security;
create policy cron_job_run_details_policy on cron.job_run_details using (username = current_user);

create function cron._is_schedule(schedule text) returns boolean
  language sql immutable strict
  set search_path = ''
as $$
  select schedule ~* '^\s*([1-9]|[1-5]\d)\s+seconds?\s*$' or schedule ~ concat(
    '^\s*(\*(/[1-9]\d?)?|[1-5]?\d)\s+(\*(/[1-9]\d?)?|1?\d|2[0-3])',
    '\s+(\*|[1-9]|[12]\d|3[01])\s+(\*|[1-9]|1[0-2])\s+(\*|[0-7])\s*$'
  )
$$;

-- The originals are in C. They write as the extension's owner, and record the role that calls them, also inside another
-- SECURITY DEFINER function. In SQL that takes two functions: the first sees the caller, the second may write. The
-- second trusts the name that it gets, which the original does not.
create function cron._schedule(caller text, job_name text, schedule text, command text) returns bigint
  language plpgsql security definer
  set search_path = ''
as $$
#variable_conflict use_column
declare
  id bigint;
begin
  if not cron._is_schedule(_schedule.schedule) then
    raise exception 'invalid schedule: %', _schedule.schedule using
      errcode = 'invalid_parameter_value',
      hint = 'The embedded stack takes numbers, * and */n (e.g. */5 4 * * *), or ''[1-59] seconds''';
  end if;
  insert into cron.job (jobname, schedule, command, username)
  values (job_name, _schedule.schedule, _schedule.command, caller)
  on conflict on constraint jobname_username_uniq
  do update set schedule = excluded.schedule, command = excluded.command
  returning jobid into id;
  return id;
end
$$;

create function cron.schedule(job_name text, schedule text, command text) returns bigint
  language sql
as $$
  select cron._schedule(current_user, job_name, schedule, command)
$$;

create function cron._unschedule(caller text, id bigint, job_name text) returns boolean
  language plpgsql security definer
  set search_path = ''
as $$
begin
  delete from cron.job where username = caller and (jobid = id or jobname = job_name);
  if not found then
    raise exception 'could not find valid entry for job %', coalesce(id::text, quote_literal(job_name))
      using errcode = 'internal_error';
  end if;
  return true;
end
$$;

create function cron.unschedule(job_id bigint) returns boolean
  language sql
as $$
  select cron._unschedule(current_user, job_id, null)
$$;

create function cron.unschedule(job_name text) returns boolean
  language sql
as $$
  select cron._unschedule(current_user, null, job_name)
$$;

create function cron._alter_job(caller text, id bigint, schedule text, command text, active boolean) returns void
  language plpgsql security definer
  set search_path = ''
as $$
begin
  if not cron._is_schedule(_alter_job.schedule) then
    raise exception 'invalid schedule: %', _alter_job.schedule using errcode = 'invalid_parameter_value';
  end if;
  update cron.job
  set
    schedule = coalesce(_alter_job.schedule, job.schedule),
    command = coalesce(_alter_job.command, job.command),
    active = coalesce(_alter_job.active, job.active)
  where jobid = id and username = caller;
  if not found then
    raise exception 'Job % does not exist or you don''t own it', id using errcode = 'internal_error';
  end if;
end
$$;

create function cron.alter_job(
  job_id bigint, schedule text default null, command text default null, active boolean default null
) returns void
  language sql
as $$
  select cron._alter_job(current_user, job_id, schedule, command, active)
$$;

grant select on cron.job, cron.job_run_details to public;
grant usage on schema cron to postgres with grant option;
grant all on all functions in schema cron to postgres with grant option;
grant all on cron.job_run_details to postgres with grant option;
revoke trigger on cron.job_run_details from postgres;
grant select on cron.job to postgres with grant option;
