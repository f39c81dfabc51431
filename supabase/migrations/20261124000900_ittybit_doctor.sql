-- The doctor: what is wrong with the project's database, and what to do about it: select * from ittybit.doctor();
--
-- One line for each check: ok, warning (it works, and will not for ever or not as somebody expects) or failure (uploads
-- are not processed). It only reads, and shows no secret. It can run twice.

set search_path = '';

-- One line. Without a fault it is ok and says what is fine.
create or replace function ittybit.doctor_line("check" text, verdict text, fault text, fine text, remedy text)
returns table ("check" text, verdict text, saw text, remedy text)
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    doctor_line."check",
    case when fault is null then 'ok' else doctor_line.verdict end,
    coalesce(fault, fine),
    case when fault is not null then doctor_line.remedy end;
$$;


-- What the migrations made --------------------------------------------------------------------------------------------

-- The triggers on storage.objects: there, enabled, and as the migrations define them.
create or replace function ittybit.doctor_triggers()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  select line.*
  from (select string_agg(t.name || ' ' || t.fault, '; ' order by t.name) as fault from ittybit.trigger_faults() as t) as sum
  cross join lateral ittybit.doctor_line(
    'triggers',
    'failure',
    sum.fault,
    'all three on storage.objects are enabled and current',
    'Apply …_ittybit_upload.sql again: it puts them back; the sweep then records what was missed.'
  ) as line;
$$;

-- The two functions of the API: there, open to service_role, closed to everybody else.
create or replace function ittybit.doctor_rpcs()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  with seen as (
    select
      e.name,
      case
        when p.oid is null then 'is missing'
        when has_function_privilege('anon', p.oid, 'execute') then 'may be called by anon'
        when has_function_privilege('authenticated', p.oid, 'execute') then 'may be called by authenticated'
        when not has_function_privilege('service_role', p.oid, 'execute') then 'may not be called by service_role'
      end as fault
    from (values ('ittybit_claim'), ('ittybit_report')) as e (name)
    left join pg_catalog.pg_proc as p on p.pronamespace = 'public'::regnamespace and p.proname = e.name
  )
  select line.*
  from (select string_agg('public.' || s.name || ' ' || s.fault, '; ' order by s.name) as fault from seen as s) as sum
  cross join lateral ittybit.doctor_line(
    'rpcs',
    'failure',
    sum.fault,
    'ittybit_claim and ittybit_report may be called by service_role alone',
    'Apply …_ittybit_work.sql again: it grants and revokes by name.'
  ) as line;
$$;


-- What the project gave us --------------------------------------------------------------------------------------------

-- The functions' addresses, as far as rules need them, and whose functions may claim.
create or replace function ittybit.doctor_addresses()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  with seen as (
    select
      string_agg(f.name || ' has no address, and a rule needs it', '; ' order by f.name) filter (where f.url is null and f.is_needed)
        as missing,
      string_agg(f.name || ' ' || f.url, ', ' order by f.name) as urls
    from (
      select
        g.name,
        g.url,
        exists (
          select
          from ittybit.rules as r
          where r.enabled and g.name = case when r.task ? 'destination' then 'push-back' else 'on-upload' end
        ) as is_needed
      from ittybit.functions as g
    ) as f
  )
  select line.*
  from seen as s
  left join ittybit.settings as t on true
  cross join lateral ittybit.doctor_line(
    'addresses',
    case when s.missing is null then 'warning' else 'failure' end,
    coalesce(s.missing, case when s.urls is null then 'no function has an address yet' end),
    concat_ws(', ', s.urls, 'of ' || t.project),
    'Deploy the functions, then run ./deploy.sh database.'
  ) as line;
$$;

-- The signature of a fixed text of 1970, which no function accepts: whoever holds the secret can tell by it whether it
-- is the same one, and the secret stays in the database. Null without one.
create or replace function ittybit.prove_secret()
returns text
language sql
stable
security definer
set search_path = ''
as $$
  select ittybit.sign(s.decrypted_secret, 'doctor', 0, 'the secret of ittybit.doctor()')
  from vault.decrypted_secrets as s
  where s.name = 'ittybit_functions_secret';
$$;

-- The signing secret in Vault: there, and one that can sign.
create or replace function ittybit.doctor_secret()
returns table ("check" text, verdict text, saw text, remedy text)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  stored pg_catalog.text;
  fault pg_catalog.text;
begin
  if to_regclass('vault.decrypted_secrets') is null then
    fault := 'Vault is not installed';
  else
    select s.decrypted_secret into stored
    from vault.decrypted_secrets as s
    where s.name = 'ittybit_functions_secret';
    fault := case
      when stored is null then 'no secret ittybit_functions_secret in Vault: no call can be signed'
      when stored !~ '^whsec_([A-Za-z0-9+/]{4}){7,21}([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'
        then 'the secret in Vault is not whsec_ and the base64 of 24 to 64 bytes'
    end;
  end if;
  return query
  select line.*
  from ittybit.doctor_line(
    'secret',
    'failure',
    fault,
    'Vault has the secret that signs the calls',
    'Store the functions'' FUNCTIONS_SECRET: select vault.create_secret(''<FUNCTIONS_SECRET>'','
      ' ''ittybit_functions_secret''), or vault.update_secret where it is there.'
  ) as line;
end;
$$;

-- pg_net: there, its worker alive, its queue short.
create or replace function ittybit.doctor_pg_net()
returns table ("check" text, verdict text, saw text, remedy text)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  waiting bigint;
begin
  if to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
    return query
    values ('pg_net', 'failure', 'pg_net is not installed', 'Run: create extension pg_net with schema extensions;');
  elsif not pg_has_role(current_user, 'pg_read_all_stats', 'usage') then
    return query
    values (
      'pg_net',
      'warning',
      format('whether its worker is alive cannot be seen by %s', current_user),
      format('Run: grant pg_read_all_stats to %I;', current_user)
    );
  elsif not exists (
    select
    from pg_catalog.pg_stat_activity as a
    where a.datname = current_database()
      and (a.backend_type ilike '%pg\_net%' or a.application_name like 'pg\_net %')
  ) then
    return query
    values (
      'pg_net',
      'failure',
      'its worker is not running: nothing is sent',
      'Run: select net.worker_restart(); if that does not help, restart the database.'
    );
  else
    select count(*) into waiting from (select from net.http_request_queue limit 100000) as q;
    return query
    select line.*
    from ittybit.doctor_line(
      'pg_net',
      'warning',
      case when waiting >= 1000 then format('requests that wait in its queue: %s', waiting) end,
      format('its worker is running; requests that wait in its queue: %s', waiting),
      'It sends 200 a second at the most and waits for the slowest of each batch:'
        ' see who fills it, select url, count(*) from net.http_request_queue group by url;'
    ) as line;
  end if;
end;
$$;

-- pg_cron: there, our jobs scheduled and active, their last runs good and recent.
create or replace function ittybit.doctor_pg_cron()
returns table ("check" text, verdict text, saw text, remedy text)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  faults pg_catalog.text;
  has_never_run boolean;
begin
  if to_regclass('cron.job') is null then
    return query
    values (
      'pg_cron',
      'failure',
      'pg_cron is not installed: nothing is sent a second time',
      'Run: create extension pg_cron with schema pg_catalog; and apply supabase/migrations again.'
    );
    return;
  end if;

  with seen as (
    select
      e.name,
      j.jobid is not null and e.every is not null and run.began is null as has_never_run,
      case
        when j.jobid is null then 'is not scheduled'
        when not j.active then 'is not active'
        when j.database <> current_database() then format('runs in database %s', j.database)
        when j.command <> e.command then 'runs another command than the migrations schedule'
        when ended.status = 'failed' then format('failed at %s: %s', ended.start_time, left(ended.return_message, 200))
        when current_setting('cron.log_run', true) = 'off' or e.every is null then null
        when run.began is null then 'has not run yet'
        when run.began < clock_timestamp() - e.every then format('has not run since %s', run.began)
      end as fault
    from (
      values
        ('ittybit-wake-up', 'select ittybit.wake_functions()', interval '2 minutes'),
        ('ittybit-sweep', 'select ittybit.sweep_page(), ittybit.backfill_page()', interval '2 minutes'),
        -- Once an hour, and what it did an hour ago is what it tidies away.
        ('ittybit-tidy', 'select ittybit.tidy()', null)
    ) as e (name, command, every)
    left join cron.job as j on j.jobname = e.name
    left join lateral (
      select d.start_time as began from cron.job_run_details as d where d.jobid = j.jobid order by d.runid desc limit 1
    ) as run on true
    left join lateral (
      select d.status, d.start_time, d.return_message
      from cron.job_run_details as d
      where d.jobid = j.jobid and d.status in ('succeeded', 'failed')
      order by d.runid desc
      limit 1
    ) as ended on true
  )
  select
    string_agg(s.name || ' ' || s.fault, '; ' order by s.name),
    bool_and(s.has_never_run) filter (where s.fault is not null)
  into faults, has_never_run
  from seen as s;

  return query
  select line.*
  from ittybit.doctor_line(
    'pg_cron',
    case when has_never_run then 'warning' else 'failure' end,
    faults,
    'its three jobs are scheduled, and ran without an error',
    case
      when has_never_run then 'Ask again in a minute; if it still has not, restart the database.'
      when faults like '%is not active%'
        then 'Run: select cron.alter_job(jobid, active => true) from cron.job where jobname like ''ittybit-%'';'
      when faults like '%has not run since%' then 'pg_cron stands still: restart the database.'
      when faults like '%failed at%' then 'See cron.job_run_details; apply supabase/migrations again.'
      else 'Apply supabase/migrations again: they schedule the jobs.'
    end
  ) as line;
end;
$$;


-- The rules -----------------------------------------------------------------------------------------------------------

-- Whether there is anything to do.
create or replace function ittybit.doctor_rules()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  select line.*
  from (
    select count(*) filter (where r.enabled) as enabled, count(*) filter (where not r.enabled) as disabled
    from ittybit.rules as r
  ) as seen
  cross join lateral ittybit.doctor_line(
    'rules',
    'warning',
    case
      when seen.enabled = 0 then format('no rule is enabled (disabled: %s): uploads start nothing', seen.disabled)
    end,
    format('%s enabled, %s disabled', seen.enabled, seen.disabled),
    'Add one to ittybit.rules.'
  ) as line;
$$;

-- The buckets that enabled rules read from and write to.
create or replace function ittybit.doctor_buckets()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  with used as (
    select r.name, r.bucket_id from ittybit.rules as r where r.enabled
    union
    select r.name, substring(r.task ->> 'destination' from '^s3://([^/]+)/') from ittybit.rules as r where r.enabled
  ),
  seen as (
    select
      string_agg(format('%s (rule %s)', u.bucket_id, u.name), ', ' order by u.bucket_id, u.name)
        filter (where b.id is null) as missing,
      count(distinct u.bucket_id) as used
    from used as u
    left join storage.buckets as b on b.id = u.bucket_id
    where u.bucket_id is not null
  )
  select line.*
  from seen as s
  cross join lateral ittybit.doctor_line(
    'buckets',
    'failure',
    'there is no bucket ' || s.missing,
    format('%s in use, all there', s.used),
    'Make the bucket, or correct the rule.'
  ) as line;
$$;

-- The media types that a task's result may have by its format, its destination's ending or its kind; null where none is
-- known. Any of them will do: who uploads it names the type.
create or replace function ittybit.result_types(task jsonb)
returns text[]
language sql
immutable
strict
parallel safe
set search_path = ''
as $$
  select coalesce(
    (
      select t.types::pg_catalog.text[]
      from (
        values
          ('mp4', '{video/mp4}'),
          ('webm', '{video/webm}'),
          ('mov', '{video/quicktime}'),
          ('mp3', '{audio/mpeg,audio/mp3}'),
          ('aac', '{audio/aac}'),
          ('ogg', '{audio/ogg}'),
          ('opus', '{audio/opus,audio/ogg}'),
          ('wav', '{audio/wav,audio/x-wav,audio/wave}'),
          ('flac', '{audio/flac,audio/x-flac}'),
          ('jpeg', '{image/jpeg}'),
          ('jpg', '{image/jpeg}'),
          ('png', '{image/png}'),
          ('webp', '{image/webp}'),
          ('avif', '{image/avif}'),
          ('gif', '{image/gif}'),
          ('hls', '{application/vnd.apple.mpegurl,application/x-mpegurl,audio/mpegurl}'),
          ('m3u8', '{application/vnd.apple.mpegurl,application/x-mpegurl,audio/mpegurl}'),
          ('vtt', '{text/vtt}'),
          ('json', '{application/json}')
      ) as t (format, types)
      where t.format = lower(coalesce(
        task -> 'options' ->> 'format', substring(task ->> 'destination' from '\.([A-Za-z0-9]+)$')
      ))
    ),
    case task ->> 'kind' when 'video' then '{video/mp4}'::pg_catalog.text[] end
  );
$$;

-- Whether the destinations' buckets accept what the rules declare: its type, and files as large as it may become.
create or replace function ittybit.doctor_limits()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  with declared as (
    select
      r.name,
      b.id as bucket_id,
      b.file_size_limit as room,
      b.allowed_mime_types as allowed,
      ittybit.result_types(r.task) as types,
      -- A picture or a text is small; all else may become as large as its source, which has its own limits.
      case
        when r.task ->> 'kind' not in ('video', 'audio', 'adaptive_video', 'animation') then 1000000
        else least(r.max_size, source.file_size_limit)
      end as needed
    from ittybit.rules as r
    join storage.buckets as b on b.id = substring(r.task ->> 'destination' from '^s3://([^/]+)/')
    left join storage.buckets as source on source.id = r.bucket_id
    where r.enabled
  ),
  seen as (
    select
      string_agg(
        format('bucket %s does not accept %s (rule %s)', d.bucket_id, d.types[1], d.name), '; ' order by d.name
      ) filter (
        where cardinality(d.allowed) > 0
          and not exists (
            select
            from unnest(d.types) as type, unnest(d.allowed) as pattern
            where type ~ ittybit.mimetype_pattern(pattern)
          )
          and d.types is not null
      ) as refused,
      string_agg(
        format('bucket %s takes %s bytes a file, results may be larger (rule %s)', d.bucket_id, d.room, d.name),
        '; ' order by d.name
      ) filter (where d.room > 0 and (d.needed is null or d.needed > d.room)) as too_small
    from declared as d
  )
  select line.*
  from seen as s
  cross join lateral ittybit.doctor_line(
    'limits',
    case when s.refused is null then 'warning' else 'failure' end,
    nullif(concat_ws('; ', s.refused, s.too_small), ''),
    'the buckets accept the types and sizes that rules declare',
    case
      when s.refused is null then 'Raise the bucket''s file size limit, or give the rule a max_size.'
      else 'Allow the type in the bucket''s settings, or change the rule''s format or destination.'
    end
  ) as line;
$$;

-- Whether a declared result lies where a rule looks for uploads and no output prefix says that it is one: then only its
-- reservation keeps it from being processed again.
create or replace function ittybit.doctor_results()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  with declared as (
    select
      r.name,
      substring(r.task ->> 'destination' from '^s3://([^/]+)/') as bucket_id,
      -- The result of an object that the rule is for.
      substring(
        ittybit.render_destination(
          r.task ->> 'destination',
          replace(replace(r.path, '**', 'sample'), '*', 'sample') || case when r.path like '%*' then '.mp4' else '' end,
          'version',
          'owner'
        ) from '^s3://[^/]+/(.*)$'
      ) as key,
      (ittybit.result_types(r.task))[1] as type
    from ittybit.rules as r
    where r.enabled and r.task is not null
  ),
  seen as (
    select string_agg(
      format('results of rule %s, such as %s, are uploads to rule %s', d.name, d.key, r.name), '; '
      order by d.name, r.name
    ) as fault
    from declared as d
    join ittybit.rules as r
      on r.enabled
      and r.bucket_id = d.bucket_id
      and ittybit.fits(
        r,
        d.key,
        jsonb_build_object(
          'mimetype', coalesce(d.type, replace(r.mimetype, '*', 'any')),
          'size', coalesce(r.min_size, r.max_size, 1)
        )
      )
    where ittybit.reason_to_skip(jsonb_build_object('bucket_id', d.bucket_id, 'name', d.key, 'metadata', '{"size": 1}'::jsonb))
      is distinct from 'output_prefix'
  )
  select line.*
  from seen as s
  cross join lateral ittybit.doctor_line(
    'results',
    'warning',
    s.fault,
    'no rule''s declared results are another''s uploads',
    'Write them under an output prefix (ittybit.settings.output_prefixes), or narrow the other rule''s path.'
  ) as line;
$$;


-- How the work goes ---------------------------------------------------------------------------------------------------

-- Whether starting is paused, tripped or over a ceiling.
create or replace function ittybit.doctor_starts()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  select line.*
  from (select) as always
  left join ittybit.settings as s on true
  cross join lateral ittybit.doctor_line(
    'starts',
    case when s.singleton is null or s.tripped_at is not null then 'failure' else 'warning' end,
    case
      when s.singleton is null then 'ittybit.settings has no row: nothing starts'
      when s.tripped_at is not null then format('starts_per_day was reached at %s: nothing starts', s.tripped_at)
      when s.paused then 'paused: nothing starts'
      when ittybit.starts_left() <= 0 then 'a ceiling is reached: nothing starts for now'
    end,
    format('%s more may start now', greatest(ittybit.starts_left(), 0)),
    case
      when s.singleton is null then 'Run: insert into ittybit.settings default values;'
      when s.tripped_at is not null
        then 'See what started so much (ittybit.jobs); then run: select ittybit.resume();'
      when s.paused then 'To go on: select ittybit.resume();'
      else 'It goes on by itself; or raise starts_per_hour and starts_per_day in ittybit.settings.'
    end
  ) as line;
$$;

-- What ittybit refuses for now.
create or replace function ittybit.doctor_holds()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  select line.*
  from (
    select
      string_agg(
        format('%s since %s: %s', h.scope, h.since, coalesce(h.error ->> 'message', 'no reason given')), '; '
        order by h.scope
      ) as fault,
      min(case when h.scope = 'all' then 1 when h.scope like 'function:%' then 2 else 3 end) as cause
    from ittybit.holds as h
  ) as seen
  cross join lateral ittybit.doctor_line(
    'holds',
    'failure',
    'ittybit refuses ' || seen.fault,
    'ittybit refuses nothing',
    (array[
      'Top up the ittybit account',
      'Give the function an ITTYBIT_API_KEY that is valid',
      'See that the key''s project has the rule''s automation or connection'
    ])[seen.cause] || ': what waits goes on by itself within minutes.'
  ) as line;
$$;

-- Whether anything that may be claimed is late.
create or replace function ittybit.doctor_waiting()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  with late as (
    select count(*) as jobs, min(j.due_at) as since
    from ittybit.functions as f
    cross join lateral ittybit.work(f.name, 1000) as w (id)
    join ittybit.jobs as j on j.id = w.id
    where j.due_at < now() - interval '1 minute' and not j.backfill
  )
  select line.*
  from late as l
  cross join lateral ittybit.doctor_line(
    'waiting',
    case when l.since < now() - interval '10 minutes' then 'failure' else 'warning' end,
    case when l.jobs > 0 then format('jobs that nobody has claimed: %s, due since %s', l.jobs, l.since) end,
    'no job is late',
    'pg_cron and pg_net wake the functions: mend what their lines say; it then goes on by itself.'
  ) as line;
$$;

-- Functions that were woken and claim nothing.
create or replace function ittybit.doctor_functions()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  select line.*
  from (
    select string_agg(ittybit.function_fault(f.name), '; ' order by f.name) as fault
    from ittybit.functions as f
    where f.url is not null
  ) as seen
  cross join lateral ittybit.doctor_line(
    'functions',
    'failure',
    seen.fault,
    'the functions claim what they are woken for',
    'See that the functions run and reach the database: their log says what is wrong.'
  ) as line;
$$;

-- Jobs whose leases keep ending without a report: something about them kills the function.
create or replace function ittybit.doctor_lost()
returns table ("check" text, verdict text, saw text, remedy text)
language sql
stable
security definer
set search_path = ''
as $$
  select line.*
  from (
    select count(*) as jobs, (array_agg(format('%s/%s (%s times)', j.bucket_id, j.name, j.lost) order by j.lost desc))[1] as worst
    from ittybit.jobs as j
    where j.due_at is not null and j.lost > 1
  ) as seen
  cross join lateral ittybit.doctor_line(
    'lost',
    'warning',
    case when seen.jobs > 0 then format('jobs that no report came of: %s, such as %s', seen.jobs, seen.worst) end,
    'every claimed job was reported',
    'See the functions'' logs: they end before they report. Such a job is tried again, once an hour in the end.'
  ) as line;
$$;


-- The whole examination -----------------------------------------------------------------------------------------------

-- One line for each check. One that cannot be made says so and holds up no other.
create or replace function ittybit.doctor()
returns table ("check" text, verdict text, saw text, remedy text)
language plpgsql
stable
security definer
set search_path = ''
set lock_timeout = '2s'
as $$
declare
  name pg_catalog.text;
begin
  foreach name in array array[
    'triggers', 'rpcs', 'addresses', 'secret', 'pg_net', 'pg_cron', 'rules', 'buckets', 'limits', 'results', 'starts',
    'holds', 'functions', 'waiting', 'lost'
  ]
  loop
    begin
      return query execute format('select * from ittybit.%I()', 'doctor_' || name);
    exception when others then
      return query
      values (
        name,
        'failure',
        format('could not be looked at: %s (%s)', sqlerrm, sqlstate),
        'Apply supabase/migrations again.'
      );
    end;
  end loop;
end;
$$;

comment on function ittybit.doctor is 'What is wrong, and what to do about it: select * from ittybit.doctor().';

revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

reset search_path;
