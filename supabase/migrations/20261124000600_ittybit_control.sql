-- What a person calls: pause and resume, retry, adopt, explain, results_of and status.
set search_path = '';

-- Start no more jobs. Uploads are still recorded, and jobs that have started are followed to their end.
create or replace function ittybit.pause()
returns void language sql security definer set search_path = '' as $$
  update ittybit.settings as s set paused = true where s.singleton;
$$;

-- Start jobs again, after pause() or after the day's ceiling tripped. The day's count begins at 0.
create or replace function ittybit.resume()
returns void language sql security definer set search_path = '' as $$
  update ittybit.starts as c set towards_day = 0 where c.towards_day > 0;
  update ittybit.settings as s set paused = false, tripped_at = null where s.singleton;
$$;

-- Do a job again, as a new generation: it never follows a run of an earlier one. Returns false and changes nothing when
-- the job waits or runs, or when its results are being deleted.
create or replace function ittybit.retry(job uuid)
returns boolean language plpgsql security definer set search_path = '' as $$
declare mine record;
begin
  select j.* into mine from ittybit.jobs as j where j.id = retry.job for update;
  if not found then
    raise exception 'there is no job %', retry.job using errcode = 'no_data_found';
  elsif ittybit.reason_against_action(mine.action, to_jsonb(mine)) is not null then
    raise exception 'job % has no place for its results: the rule''s destinations do not fit this object', retry.job
      using errcode = 'invalid_parameter_value', hint = 'Change the rule and upload the object again.';
  elsif mine.state in ('queued', 'started') or mine.due_at is not null then
    return false;
  end if;
  update ittybit.jobs as j
  set
    state = 'queued', generation = j.generation + 1, due_at = clock_timestamp(),
    lost = 0, claimed_at = null, in_doubt_since = null, searched = null, undecided = false, former_name = null,
    ittybit_id = null, progress = null, outputs = null, reason = null, error = null, failures = 0,
    failing_since = null, started_at = null, progressed_at = null, finished_at = null
  where j.id = mine.id;
  return true;
end $$;

-- Retry all failed jobs of a rule. Returns how many.
create or replace function ittybit.retry_failed(rule text)
returns bigint language sql security definer set search_path = '' as $$
  select count(*) filter (where ittybit.retry(failed.id))
  from (
    select j.id from ittybit.jobs as j
    where j.rule = retry_failed.rule and j.state = 'failed'
      and ittybit.reason_against_action(j.action, to_jsonb(j)) is null
    for update skip locked
  ) as failed;
$$;

-- Set the project whose functions may claim here. Returns how many jobs are skipped, or are looked for first.
--
-- `open_jobs` is `skip` for a copy: the original goes on and does the open jobs. It is `look` for a database that takes
-- the original's place: jobs that may have started since the backup are looked for first.
create or replace function ittybit.adopt(project text, open_jobs text)
returns bigint language plpgsql security definer set search_path = '' as $$
declare changed bigint;
begin
  if open_jobs = 'skip' then
    update ittybit.jobs as j
    set
      state = 'skipped', reason = 'copied', finished_at = now(), due_at = null, claimed_at = null, in_doubt_since = null
    where j.state in ('queued', 'started');
    get diagnostics changed = row_count;
    update ittybit.jobs as j set due_at = null, claimed_at = null where j.due_at is not null;
    update ittybit.backfills as b set state = 'stopped', ended_at = now() where b.state = 'running';
    delete from ittybit.holds as h where h.scope is not null;
    delete from ittybit.starts as c where c.hour is not null;
    update ittybit.functions as f set url = null, awaited_since = null, request_id = null, claimed_at = null
    where f.name is not null;
    perform ittybit.set_last_woken(f.name, 0) from ittybit.functions as f;
  elsif open_jobs = 'look' then
    update ittybit.jobs as j set in_doubt_since = j.created_at, due_at = now(), claimed_at = null
    where j.state = 'queued' and j.in_doubt_since is null and not j.undecided;
    select count(*) into changed from ittybit.jobs as j where j.state = 'queued' and j.in_doubt_since is not null;
  else
    raise exception 'open_jobs is skip or look, not "%"', open_jobs using errcode = 'invalid_parameter_value';
  end if;
  update ittybit.settings as s set project = adopt.project where s.singleton;
  return changed;
end $$;

-- pg_net's answer to pg_cron's last wake-up of a function, or null. pg_net keeps answers for six hours. After a crash
-- its ids begin anew, so only an answer that is later than the first wake-up without a claim counts.
create or replace function ittybit.last_answer(function text)
returns text language plpgsql stable security definer set search_path = '' as $$ begin
  return (
    select case
      when r.error_msg is not null then r.error_msg
      when r.status_code = 401
        then 'HTTP 401: it does not accept the signature, so Vault''s secret is not its FUNCTIONS_SECRET'
      when r.status_code = 404 then 'HTTP 404: there is no function at its address'
      else 'HTTP ' || r.status_code
    end
    from ittybit.functions as f
    join net._http_response as r on r.id = f.request_id and r.created >= f.awaited_since
    where f.name = last_answer.function
  );
exception when others then
  return null;
end $$;

-- What is wrong with a function: it has no address, or has claimed nothing since pg_cron woke it. Otherwise null.
create or replace function ittybit.function_fault(function text)
returns text language plpgsql stable security definer set search_path = '' as $$ begin
  return (
    select case
      when f.url is null then f.name || ' has no address: deploy it, then run ./deploy.sh database'
      when f.awaited_since > coalesce(f.claimed_at, '-infinity') and f.awaited_since < now() - interval '10 seconds'
        then format('%s was woken at %s and has claimed nothing since; the last answer: %s',
          f.name, f.awaited_since, coalesce(ittybit.last_answer(f.name), 'none'))
    end
    from ittybit.functions as f where f.name = function_fault.function
  );
end $$;

-- The functions that have no address although an enabled rule needs them.
create or replace function ittybit.missing_functions()
returns setof text language sql stable security definer set search_path = '' as $$
  select f.name from ittybit.functions as f
  where f.url is null and f.name in (select r.function from ittybit.rules as r where r.enabled) order by f.name;
$$;

-- Why an object was or was not processed: for each rule, whether it matches and the state of its job. It also lists the
-- jobs of earlier contents. The object need not exist any more.
create or replace function ittybit.explain(bucket_id text, name text)
returns table (
  rule text, matches boolean, because text, state text, reason text, error text, outputs text[], attempts integer,
  due_at timestamptz, job uuid
) language sql stable security definer set search_path = '' as $$
  with object as (
    select o.name, o.version, o.metadata, ittybit.reason_to_skip(to_jsonb(o)) as skipped,
      (o.metadata ->> 'size')::bigint as size, o.metadata ->> 'mimetype' as mimetype
    from storage.objects as o
    where o.bucket_id = explain.bucket_id and o.name = explain.name
  ),
  verdict as (
    select r.name as rule, o.version, o.skipped, nullif(concat_ws(
      ', ',
      case when r.bucket_id <> explain.bucket_id then format('the rule is for bucket %s', r.bucket_id) end,
      case when not r.enabled then 'the rule is disabled' end,
      case when length(explain.name) > 1024 then 'the key is longer than 1024 characters' end,
      case when explain.name !~ r.path_pattern then format('the key does not fit path %s', r.path) end,
      case when o.name is null then 'there is no such object' end,
      case when o.name is not null and o.size is null then 'the object has no final metadata' end,
      case when o.size is not null and coalesce(lower(o.mimetype collate "C"), '') !~ r.mimetype_pattern
        then format('its type is %s, not %s', coalesce(o.mimetype, 'unknown'), r.mimetype) end,
      case when o.size < r.min_size then format('it is smaller than %s bytes', r.min_size) end,
      case when o.size > r.max_size then format('it is larger than %s bytes', r.max_size) end
    ), '') as misses
    from ittybit.rules as r
    left join object as o on true
  )
  select
    coalesce(v.rule, j.rule), v.rule is not null and v.misses is null,
    case
      when j.rule not in (select r.name from ittybit.rules as r) then 'the rule is deleted'
      when j.finished_at is not null and j.due_at is not null then 'it was deleted, and its results are being deleted'
      when j.results_deleted_at is not null then 'it was deleted with its results'
      when v.rule is null then 'an earlier content of this key'
      when v.misses is not null then v.misses
      when j.id is null then case v.skipped
        when 'delete_marker' then 'it is a delete marker'
        when 'folder' then 'it is a folder''s placeholder'
        when 'probe' then 'it is a probe of create-connection'
        when 'empty' then 'it is empty'
        when 'output' then 'it is a result: results trigger no jobs'
        when 'output_prefix' then 'it lies under an output prefix: results trigger no jobs'
        else 'not recorded yet: it is older than the rule, or the sweep has not reached it'
      end
      when j.state = 'queued' and j.claimed_at is not null and j.due_at > now() then 'a function is working on it'
      when j.state = 'queued' and j.in_doubt_since is not null
        then 'an earlier start may have happened: ittybit is searched for it first'
      when j.state = 'queued' then coalesce(
        (
          select case g.reason
            when 'paused' then 'paused: select ittybit.resume() to go on'
            when 'tripped' then 'starts_per_day was reached: select ittybit.resume() to go on'
            when 'ceiling' then 'a ceiling on starts is reached: it goes on by itself'
            when 'held' then 'held: ' || coalesce(h.error ->> 'message', 'ittybit refuses')
          end
          from ittybit.kept_back() as g
          left join ittybit.holds as h on h.scope = g.scope
          where g.scope = any (ittybit.scopes(j.rule, j.function)) limit 1
        ),
        ittybit.function_fault(j.function),
        case when j.reason = 'output_busy' then 'another job writes the same key, and goes first'
          when j.undecided then 'the search could not tell whether it had started: it is started once more'
          else 'waiting to be claimed' end
      )
      when j.undecided then 'started once more, because the search could not tell whether it had started'
      else 'it matches'
    end,
    j.state, j.reason, j.error ->> 'message', j.outputs, j.attempt, j.due_at, j.id
  from verdict as v
  full join (
    select k.* from ittybit.jobs as k where k.bucket_id = explain.bucket_id and k.name = explain.name
  ) as j on j.rule = v.rule and coalesce(j.version, '') = coalesce(v.version, '')
  order by 1, j.created_at desc;
$$;

-- A dry run of `delete_results`: an object's results, whether each is deleted with it, and if not, why.
create or replace function ittybit.results_of(bucket_id text, name text)
returns table (result text, is_deleted boolean, because text, rule text, job uuid)
language sql stable security definer set search_path = '' as $$
  with known as (
    select j.id, j.rule, j.orphaned_by, o.bucket_id, o.name, o.version
    from ittybit.jobs as j
    cross join lateral (
      select w.bucket_id, w.name, w.version from ittybit.outputs as w where w.job = j.id and w.version is not null
      union
      select w.bucket_id, w.name, w.version from ittybit.destinations(j.action) as d
      join ittybit.outputs as w on (w.bucket_id, w.name, w.job) = (d.bucket_id, d.name, j.id)
    ) as o
    where j.bucket_id = results_of.bucket_id and j.name = results_of.name
  )
  select
    's3://' || k.bucket_id || '/' || k.name, v.stays is null, coalesce(v.stays, 'deleted with its object'), k.rule, k.id
  from known as k
  left join ittybit.rules as r on r.name = k.rule
  left join storage.objects as s on (s.bucket_id, s.name) = (k.bucket_id, k.name)
  cross join lateral (
    select case
      when r.name is null then 'the rule is deleted'
      when not r.delete_results then 'the rule is without delete_results'
      when k.orphaned_by = 'moved' then 'the object was renamed or moved'
      when k.version is null or k.version <> s.version then 'it is not what ittybit wrote for this rule'
      when not exists (
        select from ittybit.results_to_delete(k.id) as d where (d.bucket_id, d.name) = (k.bucket_id, k.name)
      ) then 'it is a result of another object as well'
    end as stays
  ) as v
  -- A folder is listed when none of its files is recorded.
  where s.name is not null or (k.name like '%/' and not exists (
    select from known as f where f.id = k.id and f.version is not null
  ))
  order by 1;
$$;

-- An overview for a person, one line for each figure.
create or replace view ittybit.status as
select line.what, line.value
from ittybit.settings as s
cross join lateral (
  select
    count(*) filter (where j.waits and not j.backfill) as queued,
    count(*) filter (where j.waits and j.backfill) as backfill,
    count(*) filter (where j.state = 'started') as started,
    count(*) filter (where j.finished_at is not null) as deleting,
    count(*) filter (where j.state = 'queued' and not j.waits and j.claimed_at is null) as in_doubt,
    count(*) filter (where j.claimed_at is not null and j.due_at > now()) as leased,
    count(*) filter (where j.lost > 1) as lost,
    min(j.created_at) filter (where j.waits and not j.backfill) as oldest
  from (
    select k.*, k.state = 'queued' and k.in_doubt_since is null as waits
    from ittybit.jobs as k where k.due_at is not null
  ) as j
) as open
cross join ittybit.recent_starts() as started
cross join lateral (
  values
    (1, 'starting', coalesce(
      case when s.paused then 'PAUSED: select ittybit.resume() to go on' end,
      'TRIPPED at ' || s.tripped_at || ' by starts_per_day: select ittybit.resume() to go on',
      (select 'NOT SET UP: ' || string_agg(m || ' has no address', ', ') from ittybit.missing_functions() as m),
      (
        select coalesce(
          string_agg(ittybit.function_fault(f.name), '; ' order by f.name),
          case when count(*) = 0 then 'NOT SET UP: the functions have no addresses' end
        )
        from ittybit.functions as f where f.url is not null
      ),
      case
        when started.this_hour >= s.starts_per_hour then 'waiting for the next hour: starts_per_hour is reached'
        when started.today >= s.starts_per_day
          then 'waiting until earlier starts are a day old: starts_per_day is reached'
        else 'yes'
      end
    )),
    (2, 'starts this hour', format('%s of %s', started.this_hour, s.starts_per_hour)),
    (3, 'starts in 24 hours', format('%s of %s', started.today, s.starts_per_day)),
    (4, 'held', (
      select coalesce(string_agg(format('%s since %s: %s', h.scope, h.since, h.error ->> 'message'), '; '), 'nothing')
      from ittybit.holds as h
    )),
    (5, 'waiting', format('%s, the oldest since %s', open.queued, coalesce(open.oldest::text, '-'))),
    (6, 'waiting from a backfill', open.backfill::text), (7, 'at ittybit', open.started::text),
    (8, 'claimed by a function', open.leased::text), (9, 'starts in doubt', open.in_doubt::text),
    (10, 'lost more than once', open.lost::text),
    (11, 'results to delete', open.deleting::text),
    (12, 'failed', (select count(*) from ittybit.jobs as j where j.state = 'failed')::text)
) as line (place, what, value)
order by line.place;

comment on view ittybit.status is 'An overview: select * from ittybit.status.';
select ittybit.close_schema();
reset search_path;
