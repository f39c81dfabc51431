-- The doctor says what is wrong with the project's database and how to fix it: select * from ittybit.doctor();
--
-- Each check gives one line: ok, failure (uploads are not processed) or warning (uploads are processed, but something
-- is likely to go wrong or to surprise). The doctor only reads, and shows no secret.
set search_path = '';

-- The signature of a fixed text, dated 1970, so that no function accepts it. A caller with a secret signs the same text
-- and compares, so that the database's secret need not leave the database. Null when Vault has none.
create or replace function ittybit.secret_signature()
returns text language sql stable security definer set search_path = '' as $$
  select ittybit.sign(s.decrypted_secret, 'doctor', 0, 'the secret of ittybit.doctor()')
  from vault.decrypted_secrets as s where s.name = 'ittybit_functions_secret';
$$;

-- The media types that a task's result may have, by its format, its address's ending or its kind; null where unknown.
-- The uploader names the type of a file, and some formats have several names.
create or replace function ittybit.result_types(task jsonb, address text)
returns text[] language sql immutable strict parallel safe set search_path = '' as $$
  select string_to_array(coalesce(
    '{
      "mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime", "mp3": "audio/mpeg audio/mp3",
      "aac": "audio/aac", "ogg": "audio/ogg", "opus": "audio/opus audio/ogg", "flac": "audio/flac audio/x-flac",
      "wav": "audio/wav audio/x-wav audio/wave", "jpeg": "image/jpeg", "jpg": "image/jpeg", "png": "image/png",
      "webp": "image/webp", "avif": "image/avif", "gif": "image/gif", "vtt": "text/vtt", "json": "application/json",
      "hls": "application/vnd.apple.mpegurl application/x-mpegurl audio/mpegurl",
      "m3u8": "application/vnd.apple.mpegurl application/x-mpegurl audio/mpegurl"
    }'::pg_catalog.jsonb
      ->> lower(coalesce(task -> 'options' ->> 'format', substring(address from '\.([A-Za-z0-9]+)$'))),
    case task ->> 'kind' when 'video' then 'video/mp4' end
  ), ' ');
$$;

-- Make one check. `fault` is what is wrong, or null; `fine` is what to say when nothing is wrong.
create or replace function ittybit.examine(
  "check" text, out verdict text, out fault text, out fine text, out remedy text
) language plpgsql stable security definer set search_path = '' as $$
declare amount bigint; since pg_catalog.timestamptz;
begin
  verdict := 'failure';
  case examine."check"
  -- What the migrations create.
  when 'triggers' then
    fine := 'all three on storage.objects are enabled and current';
    remedy := 'Apply …_ittybit_upload.sql again: it puts them back; the sweep then records what was missed.';
    select string_agg(t.name || ' ' || t.fault, '; ' order by t.name) into fault from ittybit.trigger_faults() as t;
  when 'rpcs' then
    fine := 'ittybit_claim and ittybit_report may be called by service_role alone';
    remedy := 'Run ./deploy.sh database, or apply …_ittybit_work.sql again.';
    select string_agg('public.' || e.name || case
      when p.oid is null then ' is missing'
      when has_function_privilege('anon', p.oid, 'execute') then ' may be called by anon'
      when has_function_privilege('authenticated', p.oid, 'execute') then ' may be called by authenticated'
      when not has_function_privilege('service_role', p.oid, 'execute') then ' may not be called by service_role'
    end, '; ' order by e.name) into fault
    from unnest(array['ittybit_claim', 'ittybit_report']) as e (name)
    left join pg_catalog.pg_proc as p on p.pronamespace = 'public'::regnamespace and p.proname = e.name;
  -- What the project provides.
  when 'addresses' then
    remedy := 'Deploy the functions, then run ./deploy.sh database.';
    select string_agg(m || ' has no address, and a rule needs it', '; ') into fault
    from ittybit.missing_functions() as m;
    select string_agg(f.name || ' ' || f.url, ', ' order by f.name) into fine from ittybit.functions as f;
    if fault is null and fine is null then verdict := 'warning'; fault := 'no function has an address yet'; end if;
    fine := concat_ws(', ', fine, (select 'of ' || s.project from ittybit.settings as s));
  when 'secret' then
    fine := 'Vault has the secret that signs the calls';
    remedy := 'Run ./deploy.sh database; or by hand: select vault.create_secret(''<FUNCTIONS_SECRET>'','
      ' ''ittybit_functions_secret''), or vault.update_secret if there is one.';
    if to_regclass('vault.decrypted_secrets') is null then
      fault := 'Vault is not installed';
      remedy := 'Run: create extension supabase_vault; then ./deploy.sh database stores the secret.';
    else
      select case
        when count(*) = 0 then 'no secret ittybit_functions_secret in Vault: no call can be signed'
        when max(s.decrypted_secret)
          !~ '^whsec_([A-Za-z0-9+/]{4}){7,21}([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$'
          then 'the secret in Vault is not whsec_ and the base64 of 24 to 64 bytes'
      end into fault
      from vault.decrypted_secrets as s where s.name = 'ittybit_functions_secret';
    end if;
  when 'pg_net' then
    if to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
      fault := 'pg_net is not installed';
      remedy := 'Run: create extension pg_net with schema extensions;';
    elsif not has_table_privilege('net.http_request_queue', 'select')
      or not has_table_privilege('net.http_request_queue', 'insert')
    then
      fault := format('permission denied for table http_request_queue: %s may not use pg_net''s queue', current_user);
      remedy := 'pg_net grants that to every role when it is installed, and only its owner, supabase_admin, can grant'
        ' it again. Switch pg_net off and on (Dashboard > Database > Extensions); what waits in its queue is lost. If'
        ' it is older than 0.12, upgrade the project.';
    elsif not pg_has_role(current_user, 'pg_read_all_stats', 'usage') then
      verdict := 'warning'; fault := format('whether its worker is alive cannot be seen by %s', current_user);
      remedy := format('Run: grant pg_read_all_stats to %I;', current_user);
    elsif not exists (
      select from pg_catalog.pg_stat_activity as a
      where a.datname = current_database()
        and (a.backend_type ilike '%pg\_net%' or a.application_name like 'pg\_net %')
    ) then
      fault := 'its worker is not running: nothing is sent';
      remedy := 'Run: select net.worker_restart(); if that does not help, restart the database.';
    else
      select count(*) into amount from (select from net.http_request_queue limit 100000) as q;
      verdict := 'warning'; fine := format('its worker is running; requests that wait in its queue: %s', amount);
      fault := case when amount >= 1000 then format('requests that wait in its queue: %s', amount) end;
      remedy := 'It sends 200 a second at the most and waits for the slowest of each batch: see who fills it,'
        ' select url, count(*) from net.http_request_queue group by url;';
    end if;
  when 'pg_cron' then
    fine := 'its three jobs are scheduled, and ran without an error';
    if to_regclass('cron.job') is null then
      fault := 'pg_cron is not installed: no wake-up is repeated';
      remedy := 'Run: create extension pg_cron with schema pg_catalog; and apply supabase/migrations again.';
      return;
    end if;
    select string_agg(e.name || case
      when j.jobid is null then ' is not scheduled'
      when not j.active then ' is not active'
      when j.database <> current_database() then ' runs in database ' || j.database
      when j.command <> e.command then ' runs another command than the migrations schedule'
      when run.status = 'failed' then format(' failed at %s: %s', run.start_time, left(run.return_message, 200))
      when current_setting('cron.log_run', true) = 'off' or e.every is null then null
      when run.runid is null then ' has not run yet'
      when run.start_time < clock_timestamp() - e.every then format(' has not run since %s', run.start_time)
    end, '; ' order by e.name) into fault
    from ittybit.schedules() as e
    left join cron.job as j on j.jobname = e.name
    left join lateral (
      select d.* from cron.job_run_details as d
      where d.jobid = j.jobid and d.status in ('succeeded', 'failed')
      order by d.runid desc limit 1
    ) as run on true;
    verdict := case when fault ~ '(^|; )ittybit-\S+ (?!has not run yet)' then 'failure' else 'warning' end;
    remedy := case
      when fault ~ 'ittybit-\S+ is not active'
        then 'Run: select cron.alter_job(jobid, active => true) from cron.job where jobname like ''ittybit-%'';'
      when fault ~ 'ittybit-\S+ has not run since' then 'pg_cron has stopped: restart the database.'
      when fault ~ 'ittybit-\S+ failed at' then 'See cron.job_run_details; apply supabase/migrations again.'
      when verdict = 'failure' then 'Apply supabase/migrations again: they schedule the jobs.'
      else 'Run this again in a minute; if it still has not run, restart the database.'
    end;
  -- The rules.
  when 'rules' then
    verdict := 'warning'; remedy := 'Add or enable one: ./deploy.sh rule add, or ./deploy.sh rule enable.';
    select
      case when count(*) filter (where r.enabled) = 0
        then format('no rule is enabled (disabled: %s): uploads trigger no jobs', count(*)) end,
      format('%s enabled, %s disabled', count(*) filter (where r.enabled), count(*) filter (where not r.enabled))
    into fault, fine from ittybit.rules as r;
  when 'buckets' then
    remedy := 'Make the bucket, or correct the rule.';
    select
      'there is no bucket '
        || string_agg(format('%s (rule %s)', u.bucket_id, r.name), ', ') filter (where b.id is null),
      format('%s in use, all there', count(distinct u.bucket_id))
    into fault, fine
    from ittybit.rules as r
    cross join lateral (
      select r.bucket_id union select substring(s.address from '^s3://([^/]+)/') from ittybit.steps(r.task, r.run) as s
    ) as u
    left join storage.buckets as b on b.id = u.bucket_id
    where r.enabled and u.bucket_id is not null;
  -- A destination's bucket must accept the type of the result, and files as large as the result may become.
  when 'limits' then
    fine := 'the buckets accept the types and sizes that rules declare';
    select string_agg(f.fault, '; ' order by r.name, f.fault) into fault
    from ittybit.rules as r
    cross join ittybit.steps(r.task, r.run) as s
    join storage.buckets as b on b.id = substring(s.address from '^s3://([^/]+)/')
    left join storage.buckets as source on source.id = r.bucket_id
    cross join ittybit.result_types(s.maker, s.address) as types
    cross join lateral (
      values
        (case when not (
          select bool_or(type ~ ittybit.mimetype_pattern(pattern))
          from unnest(types) as type, unnest(b.allowed_mime_types) as pattern
        ) then format('bucket %s does not accept %s (rule %s)', b.id, types[1], r.name) end),
        -- An image or a text is small. Other results may become as large as their source, which has limits as well.
        (case when b.file_size_limit between 1 and case
          when s.maker ->> 'kind' not in ('video', 'audio', 'adaptive_video', 'animation') then 999999
          else coalesce(least(r.max_size, source.file_size_limit) - 1, b.file_size_limit)
        end then
          format('bucket %s takes %s bytes a file, results may be larger (rule %s)', b.id, b.file_size_limit, r.name)
        end)
    ) as f (fault)
    where r.enabled;
    verdict := case when fault like '%does not accept%' then 'failure' else 'warning' end;
    remedy := case verdict
      when 'warning' then 'Raise the bucket''s file size limit, or give the rule a max_size.'
      else 'Allow the type in the bucket''s settings, or change the rule''s format or destination.'
    end;
  -- A result may lie where a rule looks for uploads. Outside an output prefix, only its row in ittybit.outputs keeps
  -- that rule from processing it.
  when 'results' then
    verdict := 'warning'; fine := 'no rule matches the declared results of another';
    remedy := 'Write them under an output prefix (ittybit.settings.output_prefixes), or narrow the other rule''s path.';
    select string_agg(
      format('results of rule %s, such as %s, match rule %s', maker.name, d.name, taker.name),
      '; ' order by maker.name, taker.name
    ) into fault
    from ittybit.rules as maker
    -- A sample object that the rule matches, and where its results go.
    cross join lateral ittybit.fill_action(maker, jsonb_build_object(
      'name', regexp_replace(regexp_replace(maker.path, '\*$', '*.mp4'), '\*+', 'sample', 'g'),
      'version', 'version', 'owner_id', 'owner'
    )) as action
    cross join ittybit.steps(action -> 'task', action -> 'run') as step
    cross join regexp_match(step.address, '^s3://([^/]+)/(.*)$') as m (part)
    cross join lateral (select m.part[1] as bucket_id, m.part[2] as name) as d
    join ittybit.rules as taker
      on taker.bucket_id = d.bucket_id
      and ittybit.fits(taker, d.name, jsonb_build_object(
        'mimetype', coalesce((ittybit.result_types(step.maker, step.address))[1], replace(taker.mimetype, '*', 'any')),
        'size', coalesce(taker.min_size, taker.max_size, 1)
      ))
    cross join lateral ittybit.reasons_to_skip(d.bucket_id, d.name, '{"size": 1}', false) as s (reason)
    where maker.enabled and taker.enabled and s.reason is distinct from 'output_prefix';
  -- The work in progress.
  when 'starts' then
    fine := format('the ceilings allow %s more starts now', greatest(ittybit.starts_left(), 0));
    select v.verdict, v.fault, v.remedy into verdict, fault, remedy
    from (select) as once
    left join ittybit.settings as s on true
    cross join lateral (
      values
        (s.singleton is null, 'failure', 'ittybit.settings has no row: nothing starts',
          'Run: insert into ittybit.settings default values;'),
        (s.tripped_at is not null, 'failure', format('starts_per_day was reached at %s: nothing starts', s.tripped_at),
          'Find out what started so many jobs (ittybit.jobs); then run: select ittybit.resume();'),
        (s.paused, 'warning', 'paused: nothing starts', 'To go on: select ittybit.resume();'),
        (ittybit.starts_left() <= 0, 'warning', 'a ceiling is reached: nothing starts for now',
          'It goes on by itself; or raise starts_per_hour and starts_per_day in ittybit.settings.')
    ) as v (is_so, verdict, fault, remedy)
    where v.is_so limit 1;
  when 'holds' then
    fine := 'ittybit refuses nothing';
    select
      'ittybit refuses ' || string_agg(
        format('%s since %s: %s', h.scope, h.since, coalesce(h.error ->> 'message', 'no reason given')), '; '
      ),
      min(case when h.scope = 'all' then 1 when h.scope like 'function:%' then 2 else 3 end)
    into fault, amount from ittybit.holds as h;
    remedy := (array[
      'Top up the ittybit account', 'Give the function an ITTYBIT_API_KEY that is valid',
      'Run ./deploy.sh connection if the connection is missing; see that the key''s project has the rule''s automation'
    ])[amount] || ': waiting jobs go on by themselves within minutes.';
  when 'functions' then
    fine := 'the functions claim jobs when they are woken';
    remedy := 'Check that the functions run and reach the database: their logs say what is wrong.';
    select string_agg(ittybit.function_fault(f.name), '; ' order by f.name) into fault
    from ittybit.functions as f where f.url is not null;
  when 'waiting' then
    fine := 'no job is late';
    remedy := 'pg_cron and pg_net wake the functions: fix what their lines say; then the jobs go on by themselves.';
    select format('jobs that no function has claimed: %s, due since %s', count(*), min(j.due_at)), min(j.due_at)
    into fault, since
    from ittybit.functions as f
    cross join lateral ittybit.work(f.name, 1000) as w (id)
    join ittybit.jobs as j on j.id = w.id
    where j.due_at < now() - interval '1 minute' and not j.backfill
    having count(*) > 0;
    verdict := case when since < now() - interval '10 minutes' then 'failure' else 'warning' end;
  when 'lost' then
    verdict := 'warning'; fine := 'every claimed job was reported';
    remedy := 'See the functions'' logs: they end before they report. Such a job is retried, at least once an hour.';
    select
      format('jobs never reported: %s, such as %s/%s (%s times)', count(*) over (), j.bucket_id, j.name, j.lost)
    into fault from ittybit.jobs as j where j.due_at is not null and j.lost > 1
    order by j.lost desc limit 1;
  end case;
end $$;

-- All checks, one line each. A check that fails with an error says so, and the others go on.
create or replace function ittybit.doctor()
returns table ("check" text, verdict text, saw text, remedy text)
language plpgsql stable security definer set search_path = '' set lock_timeout = '2s' as $$
declare seen record;
begin
  foreach doctor."check" in array array[
    'triggers', 'rpcs', 'addresses', 'secret', 'pg_net', 'pg_cron', 'rules', 'buckets', 'limits', 'results', 'starts',
    'holds', 'functions', 'waiting', 'lost'
  ]
  loop
    begin
      select e.* into seen from ittybit.examine(doctor."check") as e;
      verdict := case when seen.fault is null then 'ok' else seen.verdict end;
      saw := coalesce(seen.fault, seen.fine);
      remedy := case when seen.fault is not null then seen.remedy end;
    exception when others then
      verdict := 'failure';
      saw := format('could not be checked: %s (%s)', sqlerrm, sqlstate);
      remedy := case sqlstate
        when '42501' then format('Supabase grants %s this right: have its owner grant it again.', current_user)
        when '55P03' then 'A lock is held on it: run this again.'
        else 'Apply supabase/migrations again.'
      end;
    end;
    return next;
  end loop;
end $$;
comment on function ittybit.doctor is 'What is wrong, and what to do about it: select * from ittybit.doctor().';
select ittybit.close_schema();
reset search_path;
