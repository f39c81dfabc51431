-- Work: what may be claimed, the claim that takes it for a time, and the report of what came of it.
--
-- The two functions in public are what the HTTP functions call over PostgREST, with service_role's key. It can run twice.

set search_path = '';


-- What may be claimed -------------------------------------------------------------------------------------------------

-- The jobs of a function that may be claimed now, in the order in which they are, `most` of them. The one definition:
-- what wakes a function asks it as well, so nothing is woken that would be given nothing.
--
-- First what is in doubt, then live uploads, then what a backfill made, then checks. An eighth is kept for checks, so that
-- a flood of uploads does not keep what has ended from being seen. What is in doubt and checks buy nothing: nothing keeps
-- them back. `now()` and not clock_timestamp(): only what is stable can be a condition of the index.
--
-- Jobs that were lost twice are claimed apart; see ittybit.lease_jobs. For the minute in which a function may be at some,
-- the others of them let everybody else pass.
create or replace function ittybit.work(function text, most integer)
returns setof uuid
language plpgsql stable security definer set search_path = ''
as $$
declare
  starts integer := ittybit.starts_left();
  closed constant pg_catalog.text[] := array(select g.scope from ittybit.gates(starts) as g);
  some_are_apart constant boolean := exists (
    select
    from ittybit.jobs as j
    where j.function = work.function and j.lost > 1 and j.claimed_at > now() - ittybit.lease(0)
  );
  room integer := most;
  given integer;
  checks integer := 0;
  turn record;
begin
  if closed && array['all', 'function:' || work.function] then
    starts := 0;
  end if;
  for turn in
    select t.priority, t.share
    from (values (1, 0, 1.0), (2, 1, 0.125), (3, 2, 1.0), (4, 3, 1.0), (5, 1, 1.0)) as t (place, priority, share)
    order by t.place
  loop
    return query
    select j.id
    from ittybit.jobs as j
    where j.function = work.function
      and j.priority = turn.priority
      and j.due_at <= now()
      and (turn.priority < 2 or 'rule:' || j.rule <> all (closed))
      and not (some_are_apart and ittybit.times_lost(j.lost, j.claimed_at) > 1)
    order by j.due_at
    offset case turn.priority when 1 then checks else 0 end
    limit case when turn.priority < 2 then ceil(room * turn.share)::integer else greatest(least(room, starts), 0) end;
    get diagnostics given = row_count;
    room := room - given;
    if turn.priority = 1 then
      checks := checks + given;
    elsif turn.priority > 1 then
      starts := starts - given;
    end if;
  end loop;
end;
$$;

-- How many leases in a row have ended without a report, of a job that is due: with the last one, if it has one.
create or replace function ittybit.times_lost(lost integer, claimed_at timestamptz)
returns integer
language sql immutable parallel safe
return lost + (claimed_at is not null)::integer;

-- What ends a job that has not started, or null while it may still start.
create or replace function ittybit.reason_to_end(job ittybit.jobs)
returns text
language sql stable
return case
  when not exists (select from ittybit.rules as r where r.name = (job).rule) then 'rule_deleted'
  when not exists (
    select from storage.objects as o where o.bucket_id = (job).bucket_id and o.name = (job).name
  ) then 'gone'
  when not exists (
    select
    from storage.objects as o
    where o.bucket_id = (job).bucket_id and o.name = (job).name and o.version is not distinct from (job).version
  ) then 'superseded'
end;


-- Claim ---------------------------------------------------------------------------------------------------------------

-- How long a claim lasts: a minute, and twice as long after each that ended without a report, up to an hour.
create or replace function ittybit.lease(lost integer)
returns interval
language sql immutable parallel safe
return least(interval '1 minute' * 2 ^ least(lost, 6), interval '1 hour');

-- A plan is kept as long as its session, also one that was made while the tables were empty: `enable_seqscan` is off, so that
-- it goes by the indexes all the same.
--
-- Lease up to `jobs` of a function's due jobs, and learn what to do with each. `reports` is what the last ones came to:
-- it is applied first, so that a batch costs one round trip.
--
-- `project` is the SUPABASE_URL of the function that asks. A ledger that was set up for another project refuses: functions
-- of the original never do the work of a copy, nor a copy's functions the original's.
--
-- Answers {"jobs": […], "reports": […]}. A job is {"job", "generation", "attempt", "step": "check", "ittybit_id"}, or one
-- with "step": "start", its object, its action, and the mark that its source address carries. `look_since` is set when an
-- earlier attempt may have started it: then it is looked for first, and `otherwise` is what to report when nothing is
-- found, if the job is not to be started any more, or not now.
create or replace function public.ittybit_claim(function text, project text, jobs integer, reports jsonb default '[]')
returns jsonb
language plpgsql security definer set search_path = '' set enable_seqscan = 'off' set plan_cache_mode = 'force_generic_plan'
as $$
declare
  owner pg_catalog.text;
  applied pg_catalog.jsonb;
  ids pg_catalog.uuid[];
  claimed pg_catalog.jsonb := '[]';
  woken pg_catalog.timestamptz;
begin
  if not exists (select from ittybit.functions as f where f.name = ittybit_claim.function) then
    raise exception 'there is no function "%"', ittybit_claim.function
      using errcode = 'invalid_parameter_value', hint = 'The functions are on-upload and push-back.';
  elsif jobs is null or jobs not between 1 and 100 then
    raise exception 'jobs must be 1 to 100, not %', coalesce(jobs::pg_catalog.text, 'null')
      using errcode = 'invalid_parameter_value';
  end if;

  update ittybit.settings as s
  set project = ittybit_claim.project
  where s.singleton and s.project is null;
  select s.project into owner from ittybit.settings as s;
  if owner is distinct from ittybit_claim.project then
    raise exception 'this ledger was set up for %, and the function works for %', owner, ittybit_claim.project
      using hint = 'Correct the function''s SUPABASE_URL, or say what this database is: ./deploy.sh database.';
  end if;

  -- Claims take turns: a ceiling is never passed by several at once, and of two jobs for one output the second sees the
  -- first. Whoever waits for the turn holds no job, for which an upload would wait in vain. Whoever has it waits for
  -- nobody for long: jobs that an upload holds are passed over.
  perform pg_advisory_xact_lock(hashtextextended('ittybit claim', 0));

  applied := ittybit.apply_reports(reports);

  woken := to_timestamp(ittybit.last_woken(ittybit_claim.function) / 1000.0);
  update ittybit.functions as f
  set claimed_at = clock_timestamp()
  where f.name = ittybit_claim.function
    and coalesce(f.claimed_at, '-infinity') <= greatest(f.knocked_at, woken);

  -- By an array: a join with what a function returns would be planned for a thousand rows, and read the whole ledger.
  ids := array(select w from ittybit.work(ittybit_claim.function, ittybit_claim.jobs) as w);
  ids := array(
    select j.id
    from ittybit.jobs as j
    where j.id = any (ids) and j.due_at <= clock_timestamp()
    order by array_position(ids, j.id)
    for update skip locked
  );
  if cardinality(ids) > 0 then
    claimed := ittybit.lease_jobs(ids);
  end if;

  if cardinality(ids) < jobs then
    -- Nothing is left: the next upload wakes again at once.
    perform ittybit.set_last_woken(ittybit_claim.function, 0);
  end if;
  return jsonb_build_object('jobs', claimed, 'reports', applied);
end;
$$;

comment on function public.ittybit_claim is 'Take due jobs for a time and learn what to do. For service_role alone.';

-- Lease the jobs, in their order, and answer what to do with each. Those that cannot start are skipped or put off.
create or replace function ittybit.lease_jobs(ids uuid[])
returns jsonb
language plpgsql security definer set search_path = '' set plan_cache_mode = 'force_generic_plan'
as $$
declare
  claimed pg_catalog.jsonb;
begin
  -- A job that was lost twice may be what kills the function. It is claimed with none but its like, and with fewer each
  -- time: seven, then one, then none. So many at a time, because whatever took the functions away may have left hundreds.
  ids := array(
    select s.id
    from (
      select
        c.id,
        c.place,
        ittybit.times_lost(j.lost, j.claimed_at) > 1 as is_suspect,
        row_number() over its_like as turn,
        max(ittybit.times_lost(j.lost, j.claimed_at)) over its_like as most_lost,
        first_value(ittybit.times_lost(j.lost, j.claimed_at) > 1) over (order by c.place) as first_is_suspect
      from unnest(ids) with ordinality as c (id, place)
      join ittybit.jobs as j on j.id = c.id
      window its_like as (partition by ittybit.times_lost(j.lost, j.claimed_at) > 1 order by c.place)
    ) as s
    where s.is_suspect = s.first_is_suspect
      and s.turn <= case when s.most_lost < 2 then 100 when s.most_lost = 2 then 8 when s.most_lost = 3 then 2 else 1 end
    order by s.place
  );

  with candidate as (
    select
      j.id,
      c.place,
      j.action,
      j.state = 'queued' as is_start,
      j.in_doubt_since,
      case when j.state = 'queued' then ittybit.reason_to_end(j) end as ends,
      ittybit.scopes(j.rule, j.function) as scopes
    from unnest(ids) with ordinality as c (id, place)
    join ittybit.jobs as j on j.id = c.id
  ),
  -- What a start writes, and whose turn it is where several write one place.
  wanted as (
    select c.id, d.bucket_id, d.name, row_number() over (partition by d.bucket_id, d.name order by c.place) as turn
    from candidate as c
    cross join lateral ittybit.destinations(c.action) as d
    where c.is_start and c.ends is null
  ),
  busy as (
    select w.id
    from wanted as w
    where w.turn > 1
      or exists (
        select
        from ittybit.outputs as o
        join ittybit.jobs as other on other.id = o.job
        where o.bucket_id = w.bucket_id
          and o.name = w.name
          and o.job <> w.id
          and (other.state = 'started' or other.priority = 0)
      )
  ),
  -- A scope that ittybit refuses lets one job through as the probe, and the next one when that has had its time.
  held as (
    select h.scope, (array_agg(c.id order by c.place) filter (where c.in_doubt_since is null and c.ends is null))[1] as probe
    from ittybit.holds as h
    join candidate as c on c.is_start and h.scope = any (c.scopes)
    where not exists (select from busy as b where b.id = c.id)
    group by h.scope
  ),
  probing as (
    update ittybit.holds as h
    set probe_at = clock_timestamp() + ittybit.lease(0)
    from (
      -- What a report is changing is passed over: that report may be of a claim that waits for this one's turn.
      select k.scope
      from ittybit.holds as k
      join held on held.scope = k.scope
      where held.probe is not null
      for update of k skip locked
    ) as probed
    where h.scope = probed.scope
  ),
  verdict as (
    select
      c.id,
      c.place,
      c.is_start,
      c.in_doubt_since,
      c.ends,
      case
        when not c.is_start or c.ends is not null then null
        when exists (select from held where held.scope = any (c.scopes) and held.probe is distinct from c.id) then 'held'
        when exists (select from busy as b where b.id = c.id) then 'output_busy'
        when c.in_doubt_since is not null then (
          select g.reason
          from ittybit.gates() as g
          -- It counts towards the ceiling itself.
          where g.scope = any (c.scopes) and (g.reason <> 'ceiling' or ittybit.starts_left() < 0)
          limit 1
        )
      end as waits
    from candidate as c
  ),
  reserved as (
    insert into ittybit.outputs (bucket_id, name, job)
    select w.bucket_id, w.name, w.id
    from wanted as w
    join verdict as v on v.id = w.id and v.waits is null
    on conflict do nothing
  ),
  moved as (
    update ittybit.jobs as j
    set
      state = case when v.ends is not null and v.in_doubt_since is null then 'skipped' else j.state end,
      reason = case when v.in_doubt_since is null then coalesce(v.ends, j.reason) else j.reason end,
      finished_at = case when v.ends is not null and v.in_doubt_since is null then now() end,
      attempt = j.attempt + case when v.leased then 1 else 0 end,
      lost = case when v.leased then ittybit.times_lost(j.lost, j.claimed_at) else j.lost end,
      claimed_at = case when v.leased then clock_timestamp() end,
      -- From here on ittybit is told the name that it has.
      former_name = case when v.leased and v.is_start and v.in_doubt_since is null then null else j.former_name end,
      in_doubt_since = case when v.leased and v.is_start then coalesce(j.in_doubt_since, clock_timestamp()) else j.in_doubt_since end,
      due_at = case
        when v.leased then clock_timestamp() + ittybit.lease(ittybit.times_lost(j.lost, j.claimed_at))
        when v.waits = 'output_busy' then now() + interval '15 seconds'
        -- Held: work() keeps it back until the scope's next probe.
        when v.waits is not null then now()
      end
    from (
      select w.*, not w.is_start or w.in_doubt_since is not null or coalesce(w.ends, w.waits) is null as leased
      from verdict as w
    ) as v
    where j.id = v.id
    returning j.*, v.place, v.leased, v.in_doubt_since as look_since, v.ends, v.waits
  )
  select
    coalesce(jsonb_agg(
      jsonb_build_object('job', m.id, 'generation', m.generation, 'attempt', m.attempt)
      || case
        when m.state = 'started' then jsonb_build_object('step', 'check', 'ittybit_id', m.ittybit_id)
        else jsonb_build_object(
          'step', 'start',
          'mark', m.id || '.' || m.generation,
          'look_since', m.look_since,
          'now', clock_timestamp(),
          'otherwise', case
            when m.ends is not null then jsonb_build_object('outcome', 'skipped', 'reason', m.ends)
            when m.waits is not null then jsonb_build_object('outcome', 'retry', 'reason', m.waits)
          end,
          'bucket', m.bucket_id,
          'name', m.name,
          'version', m.version,
          'public', coalesce((select b.public from storage.buckets as b where b.id = m.bucket_id), false),
          'action', m.action
        )
      end
      order by m.place
    ) filter (where m.leased), '[]')
  into claimed
  from moved as m;
  return claimed;
end;
$$;


-- Report --------------------------------------------------------------------------------------------------------------

-- Record what attempts came to: an array of {"job", "generation", "attempt", "outcome", …}, each applied by itself.
-- Wakes the function again when there is more to do: a drain's last call is this one. Answers, for each report,
-- {"job", "state"}, with "refused" and why where it changed nothing.
create or replace function public.ittybit_report(reports jsonb)
returns jsonb
language plpgsql security definer set search_path = '' set enable_seqscan = 'off'
as $$
declare
  applied constant pg_catalog.jsonb := ittybit.apply_reports(reports);
  target record;
begin
  for target in
    select f.name, f.url
    from ittybit.functions as f
    where f.url is not null
      and f.name in (
        select j.function
        from jsonb_array_elements(applied) as a
        join ittybit.jobs as j on j.id = case when a ->> 'job' ~ '^[0-9a-f-]{36}$' then (a ->> 'job')::pg_catalog.uuid end
      )
      and exists (select from ittybit.work(f.name, 1))
  loop
    begin
      perform ittybit.post_wake_up(target.url);
      perform ittybit.set_last_woken(target.name, (extract(epoch from clock_timestamp()) * 1000)::bigint);
    exception when others then
      raise warning 'ittybit: no wake-up for %: % (%)', target.name, sqlerrm, sqlstate;
    end;
  end loop;
  return applied;
end;
$$;

comment on function public.ittybit_report is 'Record what attempts of jobs came to. For service_role alone.';

-- Apply an array of reports in the order of their jobs, so that two callers cannot wait for each other. One that is bad,
-- or whose job another transaction holds, loses no other. Such a job is waited for once, and half as long as an upload
-- waits for those that are held meanwhile.
create or replace function ittybit.apply_reports(reports jsonb)
returns jsonb
language plpgsql security definer set search_path = '' set lock_timeout = '100ms'
as $$
declare
  report pg_catalog.jsonb;
  refused pg_catalog.text;
  is_new_start boolean;
  new_starts integer := 0;
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
      if sqlstate = '55P03' then
        -- One lock is waited for, not each.
        perform set_config('lock_timeout', '1ms', true);
      end if;
    end;
    answers := answers || jsonb_strip_nulls(jsonb_build_object('job', report ->> 'job', 'refused', refused));
  end loop;

  if new_starts > 0 then
    insert into ittybit.starts as c (hour, started, towards_day)
    values (date_trunc('hour', now()), new_starts, new_starts)
    on conflict (hour) do update
    set started = c.started + excluded.started, towards_day = c.towards_day + excluded.towards_day;
    update ittybit.settings as s
    set tripped_at = now()
    where s.singleton
      and s.tripped_at is null
      and s.starts_per_day <= (
        select sum(c.towards_day) from ittybit.starts as c where c.hour > now() - interval '24 hours'
      );
  end if;
  return to_jsonb(answers);
end;
$$;

-- Apply one report. `refused` says why it changed nothing; `is_new_start` that it made a start known, or one that nobody
-- can tell about.
--
-- `outcome` is started, succeeded or failed with the id of what runs at ittybit; or failed, skipped, retry, hold or
-- undecided of a start (undecided: whether an earlier attempt started it cannot be found out). A report with an id is a
-- fact about what ittybit does and moves the state forward, however late it comes; one without speaks for its attempt
-- alone, while that holds the job.
create or replace function ittybit.apply_report(report jsonb, out refused text, out is_new_start boolean)
language plpgsql security definer set search_path = '' set plan_cache_mode = 'force_generic_plan'
as $$
declare
  mine record;
  outcome pg_catalog.text := report ->> 'outcome';
  started_as constant pg_catalog.text := report ->> 'ittybit_id';
  why pg_catalog.text := report ->> 'reason';
  said constant pg_catalog.jsonb := nullif(report -> 'error', 'null');
  percent constant pg_catalog.float4 := report ->> 'progress';
  in_doubt constant boolean := coalesce((report ->> 'in_doubt')::boolean, false);
  -- A start that may not happen yet: nothing has failed.
  was_kept_back constant boolean := why in ('paused', 'tripped', 'ceiling', 'disabled', 'held', 'output_busy');
  is_holder boolean;
  went_on boolean;
begin
  is_new_start := false;
  if outcome is null or outcome not in ('started', 'succeeded', 'failed', 'skipped', 'retry', 'hold', 'undecided') then
    refused := format('unknown outcome "%s"', outcome);
    return;
  elsif outcome in ('started', 'succeeded') and started_as is null then
    refused := format('outcome "%s" without its ittybit_id', outcome);
    return;
  end if;

  select j.* into mine from ittybit.jobs as j where j.id = (report ->> 'job')::pg_catalog.uuid for update;
  if not found then
    refused := 'there is no such job';
    return;
  elsif (report ->> 'generation')::integer is distinct from mine.generation then
    refused := 'of another generation';
    return;
  end if;
  is_holder := mine.claimed_at is not null and mine.attempt = (report ->> 'attempt')::integer;

  if started_as is not null and outcome in ('started', 'succeeded', 'failed') then
    if mine.ittybit_id <> started_as then
      -- Two starts after all: the first one known is followed, the other is named.
      is_new_start := mine.reason is distinct from 'also started as ' || started_as;
      refused := 'started as ' || mine.ittybit_id;
      update ittybit.jobs as j set reason = 'also started as ' || started_as where j.id = mine.id;
      return;
    elsif mine.finished_at is not null and mine.ittybit_id is not null then
      refused := mine.state;
      return;
    elsif mine.ittybit_id is not null and not is_holder then
      refused := 'not leased';
      return;
    end if;

    -- Something was started: whatever held it back no longer does, and it writes where it was told to.
    if mine.ittybit_id is null then
      is_new_start := true;
      insert into ittybit.outputs (bucket_id, name, job)
      select d.bucket_id, d.name, mine.id from ittybit.destinations(mine.action) as d
      on conflict do nothing;
      delete from ittybit.holds as h where h.scope = any (ittybit.scopes(mine.rule, mine.function));
    end if;
    went_on := mine.started_at is null or coalesce(percent, mine.progress, 0) > coalesce(mine.progress, 0);
    if outcome = 'started' and not went_on and mine.progressed_at < now() - interval '24 hours' then
      outcome := 'failed';
      why := 'no_progress';
    end if;

    if outcome = 'started' then
      update ittybit.jobs as j
      set
        state = 'started',
        ittybit_id = started_as,
        progress = coalesce(percent, j.progress),
        reason = case when j.reason like 'also started as %' then j.reason end,
        error = null,
        failures = 0,
        failing_since = null,
        in_doubt_since = null,
        lost = 0,
        claimed_at = case when is_holder then null else j.claimed_at end,
        finished_at = null,
        started_at = coalesce(j.started_at, now()),
        progressed_at = case when went_on then now() else j.progressed_at end,
        -- A tenth of the run's age until the next check, and sooner when a result is there already.
        due_at = case
          when j.claimed_at is not null and not is_holder then j.due_at
          else now() + least(
            greatest(
              (now() - coalesce(j.started_at, now())) / 10,
              case when ittybit.has_result(j.action, j.started_at) then interval '1 second' else interval '5 seconds' end
            ),
            interval '1 minute'
          )
        end
      where j.id = mine.id;
      return;
    end if;
  elsif not is_holder then
    refused := case when mine.claimed_at is null then 'not leased' else 'claimed again since' end;
    return;
  elsif mine.state = 'started' and outcome <> 'retry' then
    refused := 'started as ' || mine.ittybit_id;
    return;
  end if;

  if outcome = 'skipped' then
    -- Nobody but the ledger knows whether an object is there: what is not so is tried again.
    why := case when why in ('gone', 'superseded', 'rule_deleted')
      then (select ittybit.reason_to_end(j) from ittybit.jobs as j where j.id = mine.id)
      else why
    end;
    outcome := case when why is null then 'retry' else outcome end;
  elsif outcome = 'undecided' then
    -- It may have been started, and nobody will ever know: it counts as a start, and is started once more.
    is_new_start := true;
    outcome := case when mine.undecided then 'failed' else 'again' end;
    why := 'undecided';
  elsif outcome = 'retry'
    and said ->> 'status' is not null
    and mine.failing_since < now() - interval '3 days'
    -- The account's or the key's trouble is not the job's.
    and said ->> 'status' not in ('401', '402', '403')
  then
    outcome := 'failed';
    why := 'gave_up';
  elsif outcome = 'hold' then
    insert into ittybit.holds as h (scope, error, probe_at)
    values (
      (ittybit.scopes(mine.rule, mine.function))[
        case said ->> 'status' when '402' then 1 when '401' then 2 else 3 end
      ],
      said,
      now() + interval '5 minutes'
    )
    on conflict (scope) do update set error = excluded.error, probe_at = excluded.probe_at;
  end if;
  if outcome = 'failed' then
    why := coalesce(why, 'ittybit_failed');
    if mine.former_name is not null and why = 'ittybit_failed' then
      -- ittybit was told a name that the object does not have any more.
      outcome := 'again';
      why := null;
    end if;
  end if;

  update ittybit.jobs as j
  set
    state = case when outcome in ('succeeded', 'failed', 'skipped') then outcome when outcome = 'again' then 'queued' else j.state end,
    generation = j.generation + case when outcome = 'again' and why is null then 1 else 0 end,
    former_name = case when outcome = 'again' then null else j.former_name end,
    undecided = j.undecided or (outcome = 'again' and why is not distinct from 'undecided'),
    ittybit_id = case when outcome = 'again' then null else coalesce(started_as, j.ittybit_id) end,
    progress = case outcome when 'succeeded' then 100 when 'again' then null else coalesce(percent, j.progress) end,
    outputs = coalesce(
      (select array_agg(address) from jsonb_array_elements_text(nullif(report -> 'outputs', 'null')) as address), j.outputs
    ),
    reason = case
      when outcome in ('failed', 'skipped') then why
      when j.reason like 'also started as %' then j.reason
      when outcome in ('retry', 'hold') then coalesce(why, j.reason)
    end,
    error = case when outcome = 'succeeded' then null else coalesce(said, j.error) end,
    lost = 0,
    claimed_at = null,
    failures = case
      when outcome = 'retry' and was_kept_back is not true then j.failures + 1
      when outcome in ('retry', 'hold') then j.failures
      else 0
    end,
    failing_since = case
      when outcome = 'retry' and said ->> 'status' is not null then coalesce(j.failing_since, now())
      when outcome in ('retry', 'hold') then j.failing_since
    end,
    in_doubt_since = case when in_doubt and outcome in ('retry', 'hold') then j.in_doubt_since end,
    started_at = case
      when outcome = 'again' then null
      when outcome in ('succeeded', 'failed') and started_as is not null then coalesce(j.started_at, now())
      else j.started_at
    end,
    progressed_at = case when outcome = 'again' then null else j.progressed_at end,
    finished_at = case when outcome in ('succeeded', 'failed', 'skipped') then now() end,
    due_at = case
      when outcome = 'again' then now()
      when outcome = 'retry' and was_kept_back
        then now() + case why when 'output_busy' then interval '15 seconds' else interval '0' end
      -- 15 s doubling to 1 h, +-20 %, and never before the service said; in doubt a minute at the least, as a call
      -- that got no answer may still take effect.
      when outcome = 'retry' then now() + greatest(
        case when in_doubt then interval '1 minute' end,
        least(interval '15 seconds' * 2 ^ least(j.failures, 10), interval '1 hour') * (0.8 + 0.4 * random()),
        interval '1 second' * least(coalesce((report ->> 'retry_after')::integer, 0), 86400)
      )
      -- work() keeps a start until the scope's next probe; it does not keep what is to be looked for.
      when outcome = 'hold' then now() + case when in_doubt then interval '5 minutes' else interval '0' end
    end
  where j.id = mine.id;

  -- What ended, and what certainly did not start, writes nothing more, and what it never wrote is no output. Not so where
  -- it was given up without ittybit's word that the run is over: that may still write. Whether a folder is empty is asked
  -- by ittybit.tidy().
  if not mine.undecided
    and (
      (outcome in ('failed', 'skipped') and coalesce(why, '') not in ('no_progress', 'gave_up', 'undecided'))
      or (outcome in ('retry', 'hold') and mine.state = 'queued' and not in_doubt and mine.generation = 1)
    )
  then
    delete from ittybit.outputs as o
    using ittybit.destinations(mine.action) as d
    where (o.bucket_id, o.name, o.job) = (d.bucket_id, d.name, mine.id)
      and o.name not like '%/'
      and not exists (
        select from storage.objects as stored where stored.bucket_id = o.bucket_id and stored.name = o.name
      );
  end if;
end;
$$;

-- Whether something lies where an action writes, stored since it was started.
create or replace function ittybit.has_result(action jsonb, since timestamptz)
returns boolean
language plpgsql stable security definer set search_path = ''
as $$
begin
  return exists (
    select
    from ittybit.destinations(has_result.action) as d
    join storage.objects as o on o.bucket_id = d.bucket_id and o.name = d.name
    where o.updated_at >= coalesce(since, now() - interval '1 minute')
  );
end;
$$;

revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

-- Hosted projects grant new functions in public to anon and authenticated by default: each is revoked by name.
revoke execute on function public.ittybit_claim(text, text, integer, jsonb) from public, anon, authenticated;
revoke execute on function public.ittybit_report(jsonb) from public, anon, authenticated;
grant execute on function public.ittybit_claim(text, text, integer, jsonb) to service_role;
grant execute on function public.ittybit_report(jsonb) to service_role;

reset search_path;
