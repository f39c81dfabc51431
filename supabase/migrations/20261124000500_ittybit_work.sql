-- Work: which jobs may be claimed, the claim that leases them, and the reports of how each attempt ended.
-- The HTTP functions call the two functions in schema public, over PostgREST, with service_role's key.
set search_path = '';

-- What may be claimed -------------------------------------------------------------------------------------------------
-- How long a lease lasts: a minute, doubled for each one before it that ended without a report, up to an hour. Those of
-- searches do not count, and last a minute: each search reads the same list, and the later it is, the more of it.
create or replace function ittybit.lease(lost integer)
returns interval language sql immutable parallel safe
return least(interval '1 minute' * 2 ^ least(lost, 6), interval '1 hour');

-- The jobs of a function that may be claimed now, in order, at most `most`. pg_cron and reports call this before they
-- wake a function, so that they wake none that would get nothing.
--
-- The order: starts in doubt, an eighth of the rest for checks, uploads, a backfill's jobs, more checks. Without the
-- eighth, a flood of uploads would hide the jobs that ended. Starts in doubt and checks cost nothing, so they are never
-- kept back. Jobs lost twice come before all others, but apart, because one of them may be what kills the function:
-- eight at a time after two losses, two after three, one after more. Eight first, because an outage may have left
-- hundreds. While some are claimed, the rest wait, for 10 s at the most: a function reports within 8 s, or never.
create or replace function ittybit.work(function text, most integer)
returns setof uuid language plpgsql stable security definer set search_path = '' as $$
declare
  starts integer := ittybit.starts_left();
  closed constant pg_catalog.text[] := array(select g.scope from ittybit.kept_back(starts) as g);
  room integer := most; given integer; checks integer := 0; turn record;
begin
  if closed && array['all', 'function:' || work.function] then starts := 0; end if;
  if not exists (
    select from ittybit.jobs as j
    where j.function = work.function and j.lost > 1 and j.searched is null and j.claimed_at > now() - interval '10 s'
  ) then
    return query select o.id from (
      select d.id, d.lost, row_number() over (order by d.lost, d.due_at) as place from (
        select j.id, j.due_at, j.lost + (j.claimed_at is not null)::integer as lost from ittybit.jobs as j
        where j.function = work.function and j.due_at <= now()
          and ittybit.kind(j.state, j.in_doubt_since, j.backfill, j.lost, j.claimed_at) = 4
          and (j.state <> 'queued' or (starts > 0 and 'rule:' || j.rule <> all (closed)))
        order by j.due_at limit least(most, 8, greatest(starts, 1))
      ) as d
    ) as o
    where o.place <= (array[8, 2, 1])[least(o.lost, 4) - 1] order by o.place;
    if found then return; end if;
  end if;
  for turn in
    select t.kind, t.share
    from (values (1, 0, 1.0), (2, 1, 0.125), (3, 2, 1.0), (4, 3, 1.0), (5, 1, 1.0)) as t (place, kind, share)
    order by t.place
  loop
    return query
    select j.id from ittybit.jobs as j
    -- Not clock_timestamp(): a condition of the index must be stable.
    where j.function = work.function and j.due_at <= now()
      and ittybit.kind(j.state, j.in_doubt_since, j.backfill, j.lost, j.claimed_at) = turn.kind
      and (turn.kind < 2 or 'rule:' || j.rule <> all (closed))
    order by j.due_at
    offset case turn.kind when 1 then checks else 0 end
    limit case when turn.kind < 2 then ceil(room * turn.share)::integer else greatest(least(room, starts), 0) end;
    get diagnostics given = row_count;
    room := room - given;
    checks := checks + case turn.kind when 1 then given else 0 end;
    starts := starts - case when turn.kind > 1 then given else 0 end;
  end loop;
end $$;

-- Why a job that has not started must not start any more, or null while it may.
create or replace function ittybit.reason_to_end(job ittybit.jobs)
returns text language sql stable
return case
  when not exists (select from ittybit.rules as r where r.name = (job).rule) then 'rule_deleted'
  else (
    select case bool_or(o.version is not distinct from (job).version) when false then 'superseded' when true then null
      else 'gone' end
    from storage.objects as o where o.bucket_id = (job).bucket_id and o.name = (job).name
  )
end;

-- Claim ---------------------------------------------------------------------------------------------------------------
-- Lease up to `jobs` of a function's due jobs, and return what to do with each. `reports` has the outcomes of the last
-- batch: the claim applies them first, so that a batch costs one round trip.
--
-- `project` is the SUPABASE_URL of the calling function. A ledger that was set up for another project refuses the call.
-- So when a database is copied, the original's functions never claim the copy's jobs, nor the copy's the original's.
--
-- Returns {"jobs": […], "reports": […]}, and "more" when other jobs may be due now. A job has "job", "generation",
-- "attempt" and "step". Step "check" has the "ittybit_id", and step "delete" up to 250 "results". Step "start" has the
-- object, its action and the "mark" that goes into the source's address. Step "search" has the "mark" of a start that
-- may have happened "since" then, and how far it was "searched". If it did not, the function reports "not_started".
--
-- A session keeps its plans, even those that it made for empty tables. With `enable_seqscan` off they use the indexes.
-- A table without an index then looks so expensive that PostgreSQL would add parallel workers and JIT, so both are off.
create or replace function public.ittybit_claim(function text, project text, jobs integer, reports jsonb default '[]')
returns jsonb language plpgsql security definer set search_path = ''
set enable_seqscan = 'off' set max_parallel_workers_per_gather = 0 set jit = 'off'
set plan_cache_mode = 'force_generic_plan' as $$
declare
  owner pg_catalog.text; applied pg_catalog.jsonb; ids pg_catalog.uuid[];
  claimed pg_catalog.jsonb := '[]'; woken pg_catalog.timestamptz;
begin
  if not exists (select from ittybit.functions as f where f.name = ittybit_claim.function) then
    raise exception 'there is no function "%"', ittybit_claim.function
      using errcode = 'invalid_parameter_value', hint = 'The functions are on-upload and push-back.';
  elsif jobs is null or jobs not between 1 and 100 then
    raise exception 'jobs must be 1 to 100, not %', coalesce(jobs::pg_catalog.text, 'null')
      using errcode = 'invalid_parameter_value';
  end if;

  update ittybit.settings as s set project = ittybit_claim.project where s.singleton and s.project is null;
  select s.project into owner from ittybit.settings as s;
  if owner is distinct from ittybit_claim.project then
    raise exception 'this ledger was set up for %, and the function works for %', owner, ittybit_claim.project
      using hint = 'Correct the function''s SUPABASE_URL, or say what this database is: ./deploy.sh database.';
  end if;

  -- Claims take turns: together they never exceed a ceiling, and the second of two jobs for one output sees the first.
  -- A waiting claim has locked no job. The claim whose turn it is skips the jobs that an upload has locked.
  perform pg_advisory_xact_lock(hashtextextended('ittybit claim', 0));
  applied := ittybit.apply_reports(reports);

  woken := to_timestamp(ittybit.last_woken(ittybit_claim.function) / 1000.0);
  update ittybit.functions as f set claimed_at = clock_timestamp()
  where f.name = ittybit_claim.function and coalesce(f.claimed_at, '-infinity') <= greatest(f.awaited_since, woken);

  -- An array: PostgreSQL plans a join with a function for a thousand rows, and would read the whole ledger.
  ids := array(select w from ittybit.work(ittybit_claim.function, ittybit_claim.jobs) as w);
  ids := array(
    select j.id from ittybit.jobs as j
    where j.id = any (ids) and j.due_at <= clock_timestamp()
    order by array_position(ids, j.id) for update skip locked
  );
  if cardinality(ids) > 0 then claimed := ittybit.lease_jobs(ids); end if;
  if cardinality(ids) < jobs then
    -- No other job can be claimed now: the next upload wakes the function at once.
    perform ittybit.set_last_woken(ittybit_claim.function, 0);
  end if;
  return jsonb_build_object(
    'jobs', claimed, 'reports', applied,
    'more', cardinality(ids) = jobs or exists (select from ittybit.jobs as j where j.id = any (ids) and j.lost > 1)
  );
end $$;
comment on function public.ittybit_claim is 'Lease due jobs and say what to do with each. For service_role only.';

-- Lease the jobs, in this order, and return what to do with each. Jobs that cannot start are skipped or put off.
create or replace function ittybit.lease_jobs(ids uuid[])
returns jsonb language plpgsql security definer set search_path = '' set plan_cache_mode = 'force_generic_plan' as $$
declare claimed pg_catalog.jsonb;
begin
  with candidate as materialized (
    select
      j.id, c.place, j.lost + (j.claimed_at is not null and j.searched is null)::integer as lost, j.action,
      case
        when j.finished_at is not null then 'delete' when j.state = 'started' then 'check'
        when j.in_doubt_since is null then 'start' else 'search'
      end as step,
      case when j.state = 'queued' and j.in_doubt_since is null then ittybit.reason_to_end(j) end as ends,
      ittybit.scopes(j.rule, j.function) as scopes
    from unnest(ids) with ordinality as c (id, place) join ittybit.jobs as j on j.id = c.id
  ),
  written as materialized (
    select
      c.id, c.step, d.bucket_id, d.name,
      rank() over (partition by d.bucket_id, d.name, c.step order by c.place) as turn,
      bool_or(c.step = 'start') over (partition by d.bucket_id, d.name) as is_written
    from candidate as c cross join lateral ittybit.destinations(c.action) as d
    where c.ends is null and c.step in ('start', 'delete')
  ),
  -- `is_busy`: another job writes the same key or folder: it has started or may have, or comes earlier in this batch.
  -- Starts and deletions there wait for each other, so that no new result is deleted.
  judged as (
    select c.*, c.id in (
      select w.id from written as w
      where case when w.step = 'start' then w.turn > 1 else w.is_written end or exists (
        select from ittybit.outputs as o
        join ittybit.jobs as other on other.id = o.job
        where o.bucket_id = w.bucket_id and o.name = w.name and o.job <> w.id
          and (other.state = 'started' or other.claimed_at is not null
            or (other.state = 'queued' and other.in_doubt_since is not null))
      )
    ) as is_busy
    from candidate as c
  ),
  -- In a scope that ittybit refuses, one job may start as a probe. The next probe may start a minute later.
  held as (
    select h.scope, (array_agg(c.id order by c.place) filter (where c.ends is null))[1] as probe
    from ittybit.holds as h
    join judged as c on c.step = 'start' and not c.is_busy and h.scope = any (c.scopes)
    group by h.scope
  ),
  probing as (
    update ittybit.holds as h set probe_at = clock_timestamp() + ittybit.lease(0)
    from (
      -- Skip a hold that a report has locked: the report may be waiting for a job that this claim has locked.
      select k.scope from ittybit.holds as k join held on held.scope = k.scope where held.probe is not null
      for update of k skip locked
    ) as probed
    where h.scope = probed.scope
  ),
  verdict as (
    select c.*, case
      when c.ends is not null then null
      when c.step = 'start' and exists (
        select from held as h where h.scope = any (c.scopes) and h.probe is distinct from c.id
      ) then 'held'
      when c.is_busy then 'output_busy'
    end as waits
    from judged as c
  ),
  reserved as (
    insert into ittybit.outputs (bucket_id, name, job)
    select w.bucket_id, w.name, w.id
    from written as w join verdict as v on v.id = w.id
    where w.step = 'start' and v.waits is null
    on conflict do nothing
  ),
  put_off as (
    update ittybit.jobs as j
    set
      state = case when v.ends is null then j.state else 'skipped' end,
      reason = case v.step when 'start' then coalesce(v.ends, v.waits) else j.reason end,
      finished_at = case when v.ends is null then j.finished_at else now() end, claimed_at = null,
      due_at = case when v.ends is null then now() end -- a held job stays due: work() keeps it back until its probe
        + case v.waits when 'output_busy' then interval '15 seconds' else interval '0' end
    from verdict as v
    where j.id = v.id and coalesce(v.ends, v.waits) is not null
  ),
  leased as (
    update ittybit.jobs as j
    set
      attempt = j.attempt + 1, lost = v.lost, searched = case v.step when 'search' then coalesce(j.searched, '{}') end,
      claimed_at = clock_timestamp(),
      due_at = clock_timestamp() + ittybit.lease(case v.step when 'search' then 0 else v.lost end),
      failing_since = case when j.due_at > now() - interval '1 hour' then j.failing_since end, -- an idle hour ends it
      in_doubt_since = case v.step when 'start' then clock_timestamp() else j.in_doubt_since end,
      former_name = case when v.step <> 'start' then j.former_name end -- ittybit now gets the present name
    from verdict as v
    where j.id = v.id and coalesce(v.ends, v.waits) is null
    returning j.*, v.place, v.step
  )
  select coalesce(jsonb_agg(
    jsonb_build_object('job', l.id, 'generation', l.generation, 'attempt', l.attempt, 'step', l.step) || case l.step
      when 'start' then jsonb_build_object(
        'mark', l.id || '.' || l.generation, 'action', l.action,
        'bucket', l.bucket_id, 'name', l.name, 'version', l.version,
        'public', coalesce((select b.public from storage.buckets as b where b.id = l.bucket_id), false)
      )
      when 'search' then jsonb_build_object(
        'mark', l.id || '.' || l.generation, 'action', l.action,
        'since', l.in_doubt_since, 'now', clock_timestamp(), 'searched', l.searched
      )
      when 'check' then jsonb_build_object('ittybit_id', l.ittybit_id)
      when 'delete' then jsonb_build_object('results', (
        select coalesce(jsonb_agg(r), '[]') from (select d.* from ittybit.results_to_delete(l.id) as d limit 250) as r
      ))
    end order by l.place
  ), '[]') into claimed from leased as l;
  return claimed;
end $$;

-- Report --------------------------------------------------------------------------------------------------------------
-- Record how attempts ended: an array of {"job", "generation", "attempt", "outcome", …}, each applied by itself. The
-- drain calls it when it does not claim next, so it wakes the function again when jobs are due. Returns {"job"} for
-- each report, with the reason as "refused" if the report was not applied.
create or replace function public.ittybit_report(reports jsonb)
returns jsonb language plpgsql security definer set search_path = ''
set enable_seqscan = 'off' set max_parallel_workers_per_gather = 0 set jit = 'off' as $$
declare
  applied constant pg_catalog.jsonb := ittybit.apply_reports(reports);
  target record;
begin
  for target in
    select f.name, f.url from ittybit.functions as f
    where f.url is not null and exists (select from ittybit.work(f.name, 1)) and f.name in (
      select j.function
      from jsonb_array_elements(applied) as a
      join ittybit.jobs as j on j.id = case when a ->> 'job' ~ '^[0-9a-f-]{36}$' then (a ->> 'job')::pg_catalog.uuid end
    )
  loop
    begin
      perform ittybit.post_wake_up(target.url);
      perform ittybit.set_last_woken(target.name);
    exception when others then
      raise warning 'ittybit: no wake-up for %: % (%)', target.name, sqlerrm, sqlstate;
    end;
  end loop;
  return applied;
end $$;
comment on function public.ittybit_report is 'Record how attempts of jobs ended. For service_role only.';

-- Apply an array of reports in the order of their jobs, so that two callers cannot deadlock. A bad report fails alone.
-- So does one that waits over 100 ms for a lock: an upload may wait for this transaction, and gives up after 200 ms.
create or replace function ittybit.apply_reports(reports jsonb)
returns jsonb language plpgsql security definer set search_path = '' set lock_timeout = '100ms' as $$
declare
  report pg_catalog.jsonb; refused pg_catalog.text; is_new_start boolean; new_starts integer := 0;
  answers pg_catalog.jsonb[] := '{}';
begin
  if jsonb_typeof(reports) is distinct from 'array' then
    raise exception 'reports must be an array' using errcode = 'invalid_parameter_value';
  end if;

  for report in select r from jsonb_array_elements(reports) as r order by r ->> 'job' loop
    begin
      select a.refused, a.is_new_start into refused, is_new_start from ittybit.apply_report(report) as a;
      new_starts := new_starts + is_new_start::integer;
    exception when others then
      raise warning 'ittybit: a report of job % could not be applied: % (%)', report ->> 'job', sqlerrm, sqlstate;
      refused := sqlerrm;
      -- After one time-out for a lock, do not wait for the other locks.
      perform set_config('lock_timeout', '1ms', true) where sqlstate = '55P03';
    end;
    answers := answers || jsonb_strip_nulls(jsonb_build_object('job', report ->> 'job', 'refused', refused));
  end loop;

  if new_starts > 0 then
    insert into ittybit.starts as c (hour, started, towards_day)
    values (date_trunc('hour', now()), new_starts, new_starts)
    on conflict (hour) do update
    set started = c.started + excluded.started, towards_day = c.towards_day + excluded.towards_day;
    update ittybit.settings as s set tripped_at = now()
    where s.singleton and s.tripped_at is null and s.starts_per_day <= (select c.today from ittybit.recent_starts() c);
  end if;
  return to_jsonb(answers);
end $$;

-- How long to wait after so many failures: 15 s doubling to 1 h, +-20 %, and at least Retry-After, up to a day.
create or replace function ittybit.backoff(failures integer, retry_after integer)
returns interval language sql volatile parallel safe
return greatest(
  least(interval '15 seconds' * 2 ^ least(failures, 10), interval '1 hour') * (0.8 + 0.4 * random()),
  interval '1 second' * least(coalesce(retry_after, 0), 86400)
);

-- Apply one report. `refused` says why it was not applied, `is_new_start` that the ceilings count one more start.
-- The outcomes started, succeeded and failed are facts if they have an ittybit_id. A job's first fact counts, however
-- late it comes. All other reports count only while their attempt holds the job. For a start they are failed, skipped,
-- retry, hold, or undecided if no search can tell whether an earlier attempt started it. For a check: retry. For a
-- deletion: deleted or retry, until the ledger sees no result left.
create or replace function ittybit.apply_report(report jsonb, out refused text, out is_new_start boolean)
language plpgsql security definer set search_path = '' set plan_cache_mode = 'force_generic_plan' as $$
declare
  mine record; -- the job's row: as it is, then as it will be
  outcome pg_catalog.text := report ->> 'outcome';
  started_as constant pg_catalog.text := report ->> 'ittybit_id';
  why pg_catalog.text := report ->> 'reason';
  said constant pg_catalog.jsonb := nullif(report -> 'error', 'null');
  percent constant pg_catalog.float4 := report ->> 'progress';
  in_doubt constant boolean := coalesce((report ->> 'in_doubt')::boolean, false);
  status constant pg_catalog.text := said ->> 'status';
  -- A search that takes longer, or finds nothing, is no failure.
  has_not_failed constant boolean := coalesce(why in ('searching', 'not_started'), false);
  is_fact constant boolean := started_as is not null and outcome in ('started', 'succeeded', 'failed');
  is_holder boolean; waits boolean; fails boolean;
begin
  is_new_start := false;
  select j.* into mine from ittybit.jobs as j where j.id = (report ->> 'job')::pg_catalog.uuid for update;
  is_holder := mine.claimed_at is not null and mine.attempt is not distinct from (report ->> 'attempt')::integer;
  if coalesce(outcome, '') <> all ('{started,succeeded,failed,skipped,retry,hold,undecided,deleted}') then
    refused := format('unknown outcome "%s"', outcome);
  elsif outcome in ('started', 'succeeded') and started_as is null then
    refused := format('outcome "%s" without its ittybit_id', outcome);
  elsif mine.id is null then
    refused := 'there is no such job';
  elsif (report ->> 'generation')::integer is distinct from mine.generation then
    refused := 'of another generation';
  elsif is_fact then
    if mine.ittybit_id <> started_as then
      -- It was started twice: the ledger follows the start that it knew first, and names the other.
      is_new_start := mine.reason is distinct from 'also started as ' || started_as;
      refused := 'started as ' || mine.ittybit_id;
      update ittybit.jobs as j set reason = 'also started as ' || started_as where j.id = mine.id;
    elsif mine.finished_at is not null and mine.ittybit_id is not null then
      refused := mine.state;
    elsif mine.ittybit_id is not null and not is_holder then
      refused := 'not leased';
    end if;
  elsif not is_holder then
    refused := case when mine.claimed_at is null then 'not leased' else 'claimed again since' end;
  elsif mine.state = 'started' and outcome <> 'retry' then
    refused := 'started as ' || mine.ittybit_id;
  elsif (mine.finished_at is null and outcome = 'deleted')
    or (mine.finished_at is not null and outcome not in ('deleted', 'retry'))
  then
    refused := mine.state;
  end if;
  if refused is not null then return; end if;

  if mine.finished_at is not null and not is_fact then
    waits := exists (select from ittybit.results_to_delete(mine.id));
    fails := waits and outcome = 'retry';
    update ittybit.jobs as j
    set
      lost = 0, claimed_at = null, failures = case when fails then j.failures + 1 else 0 end,
      error = case when j.state = 'succeeded' then case when fails then said end else j.error end,
      due_at = case
        when fails then now() + ittybit.backoff(j.failures, (report ->> 'retry_after')::integer) when waits then now()
      end,
      results_deleted_at = case when not waits then now() end
    where j.id = mine.id;
    return;
  end if;

  if is_fact then
    -- ittybit has accepted the job: this ends its holds, and its outputs are reserved if they were not.
    if mine.ittybit_id is null then
      is_new_start := true;
      insert into ittybit.outputs (bucket_id, name, job)
      select d.bucket_id, d.name, mine.id from ittybit.destinations(mine.action) as d on conflict do nothing;
      delete from ittybit.holds as h where h.scope = any (ittybit.scopes(mine.rule, mine.function));
    end if;
    if outcome = 'started' and (mine.started_at is null or percent > coalesce(mine.progress, 0)) then
      mine.progressed_at := now();
    elsif outcome = 'started' and mine.progressed_at < now() - interval '24 hours' then
      outcome := 'failed'; why := 'no_progress';
    end if;
  elsif outcome = 'skipped' then
    -- The ledger checks for itself. If nothing ends the job, it is retried.
    if why in ('gone', 'superseded', 'rule_deleted') then
      select ittybit.reason_to_end(j) into why from ittybit.jobs as j where j.id = mine.id;
    end if;
    outcome := case when why is null then 'retry' else outcome end;
  elsif outcome = 'undecided' then
    -- Whether it was started cannot be found out: it counts as a start. The job starts once more; then it fails.
    is_new_start := true;
    outcome := case when mine.undecided then 'failed' else 'again' end;
    why := 'undecided';
  elsif outcome = 'retry' and mine.failing_since < now() - interval '3 days' and status <> all ('{401,402,403}') then
    -- A service's first error came three days ago, and now another, which is not about the account or the key.
    outcome := 'failed'; why := 'gave_up';
  elsif outcome = 'hold' then
    insert into ittybit.holds as h (scope, error, probe_at)
    values (
      (ittybit.scopes(mine.rule, mine.function))[case status when '402' then 1 when '401' then 2 else 3 end],
      said, now() + interval '5 minutes'
    )
    on conflict (scope) do update set error = excluded.error, probe_at = excluded.probe_at;
  end if;
  if outcome = 'failed' then
    why := coalesce(why, 'ittybit_failed');
    if mine.former_name is not null and why = 'ittybit_failed' then
      -- The run used a former name of the object: the job starts again under the present one.
      outcome := 'again'; why := null;
    end if;
  end if;

  waits := outcome in ('retry', 'hold');
  fails := outcome = 'retry' and not has_not_failed;
  if outcome = 'again' then
    mine.state := 'queued';
    mine.generation := mine.generation + (why is null)::integer;
    mine.undecided := mine.undecided or why is not null;
    mine.former_name := null; mine.ittybit_id := null; mine.progress := null;
    mine.started_at := null; mine.progressed_at := null; mine.due_at := now();
  else
    mine.ittybit_id := coalesce(started_as, mine.ittybit_id);
    mine.progress := case outcome when 'succeeded' then 100 else coalesce(percent, mine.progress) end;
    mine.state := case when waits then mine.state else outcome end;
    -- A late report of a start leaves the job's lease with the function that holds it.
    if outcome <> 'started' or mine.claimed_at is null or is_holder then
      mine.due_at := now() + case
        -- The next check: after a tenth of the run's age, from 5 s (1 s once all results are stored) to 1 minute.
        when outcome = 'started' then least(interval '1 minute', greatest(
          (now() - coalesce(mine.started_at, now())) / 10,
          interval '1 second' * case when ittybit.has_results(mine.action, mine.started_at) then 1 else 5 end
        ))
        -- At least a minute when in doubt: the call may still take effect.
        when fails then greatest(
          case when in_doubt then interval '1 minute' end,
          ittybit.backoff(mine.failures, (report ->> 'retry_after')::integer)
        )
        -- work() keeps back held starts until the scope's next probe, but not those in doubt: they wait 5 minutes.
        when outcome = 'hold' and in_doubt then interval '5 minutes'
        when outcome = 'retry' and why = 'searching' then interval '15 seconds'
        when waits then interval '0'
      end;
    end if;
    mine.started_at := case when is_fact then coalesce(mine.started_at, now()) else mine.started_at end;
  end if;
  mine.claimed_at := case when outcome = 'started' and not is_holder then mine.claimed_at end;
  mine.finished_at := case when outcome in ('succeeded', 'failed', 'skipped') then now() end;
  if mine.finished_at is not null and mine.orphaned_by = 'gone'
    and exists (select from ittybit.results_to_delete(mine.id))
  then
    mine.due_at := now();
  end if;
  mine.in_doubt_since := case when waits and in_doubt then mine.in_doubt_since end;
  -- A start that kills its function reports nothing. The search for it does, but is no proof that a start survives.
  mine.lost := case when waits and mine.searched is not null then mine.lost else 0 end;
  mine.searched := case when waits and in_doubt then coalesce(report -> 'searched', mine.searched) end;
  mine.failures := case when waits then mine.failures + fails::integer else 0 end;
  mine.failing_since := case
    when outcome = 'retry' and status <> all ('{401,402,403}') then coalesce(mine.failing_since, now())
    when outcome = 'retry' and status is null then mine.failing_since
  end;
  mine.reason := case
    when outcome in ('failed', 'skipped') then why
    when mine.reason like 'also started as %' then mine.reason
    when waits then why
  end;
  mine.error := case when outcome not in ('started', 'succeeded') then coalesce(said, mine.error) end;
  select coalesce(array_agg(a), mine.outputs) into mine.outputs
  from jsonb_array_elements_text(nullif(report -> 'outputs', 'null')) as a;

  update ittybit.jobs as j
  set
    (state, generation, lost, due_at, claimed_at, undecided, former_name)
      = (mine.state, mine.generation, mine.lost, mine.due_at, mine.claimed_at, mine.undecided, mine.former_name),
    (in_doubt_since, ittybit_id, progress, outputs, reason, error)
      = (mine.in_doubt_since, mine.ittybit_id, mine.progress, mine.outputs, mine.reason, mine.error),
    (searched, failures, failing_since, started_at, progressed_at, finished_at) = (
      mine.searched, mine.failures, mine.failing_since, mine.started_at, mine.progressed_at, mine.finished_at)
  where j.id = mine.id;

  -- A job that failed, was skipped or did not start writes no more. But one that the ledger gave up still may.
  if not mine.undecided and (
    (outcome in ('failed', 'skipped') and coalesce(why, '') not in ('no_progress', 'gave_up', 'undecided'))
    or (waits and mine.state = 'queued' and not in_doubt and mine.generation = 1)
  ) then
    perform ittybit.free_output(mine.id, mine.action);
  end if;
end $$;

-- Delete the outputs of a job where no object is. ittybit.tidy() does it for folders.
create or replace function ittybit.free_output(job uuid, action jsonb)
returns void language plpgsql security definer set search_path = '' as $$ begin
  delete from ittybit.outputs as o
  using ittybit.destinations(free_output.action) as d
  where (o.bucket_id, o.name, o.job) = (d.bucket_id, d.name, free_output.job) and o.name not like '%/'
    and not exists (select from storage.objects as s where s.bucket_id = o.bucket_id and s.name = o.name);
end $$;

-- Whether every result of an action was stored since its start. Never true for a folder: its files are unknown.
create or replace function ittybit.has_results(action jsonb, since timestamptz)
returns boolean language plpgsql stable security definer set search_path = '' as $$ begin
  return (
    select bool_and(coalesce(o.updated_at >= coalesce(since, now() - interval '1 minute'), false))
    from ittybit.destinations(has_results.action) as d
    left join storage.objects as o on o.bucket_id = d.bucket_id and o.name = d.name
  );
end $$;
select ittybit.close_schema();
-- Hosted projects grant new functions in public to anon and authenticated by default: revoke from each by name.
revoke execute on function public.ittybit_claim, public.ittybit_report from public, anon, authenticated;
grant execute on function public.ittybit_claim, public.ittybit_report to service_role;
reset search_path;
