-- What the functions call: claim a job, and report what became of it. For service_role alone, over PostgREST.
-- It can run twice.

set search_path = '';

-- What ends a job that has not started, or null while it may still start.
create or replace function ittybit.reason_to_end(job ittybit.jobs)
returns text
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return case
    when not exists (select from ittybit.rules as r where r.name = job.rule) then 'rule_deleted'
    when not exists (
      select from storage.objects as o where o.bucket_id = job.bucket_id and o.name = job.name
    ) then 'gone'
    when not exists (
      select
      from storage.objects as o
      where o.bucket_id = job.bucket_id and o.name = job.name and o.version is not distinct from job.version
    ) then 'superseded'
  end;
end;
$$;

-- What makes a start wait, or null when it may go ahead. Whoever asks holds the locks that make claims take turns.
create or replace function ittybit.reason_to_wait(job ittybit.jobs)
returns text
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  if exists (select from ittybit.rules as r where r.name = job.rule and not r.enabled) then
    return 'disabled';
  elsif exists (select from ittybit.settings as s where s.paused) then
    return 'paused';
  elsif exists (
    select
    from ittybit.holds as h
    where h.scope = any (ittybit.hold_scopes(job.rule, job.automation_id)) and h.probe is distinct from job.id
  ) then
    return 'held';
  elsif coalesce(ittybit.starts_left(), 0) = 0 then
    return 'ceiling';
  -- Only a task has reserved anything.
  elsif job.task is not null and exists (
    select
    from ittybit.outputs as mine
    join ittybit.outputs as theirs on theirs.bucket_id = mine.bucket_id and theirs.name = mine.name
    join ittybit.jobs as other on other.id = theirs.job
    where mine.job = job.id
      and other.id <> job.id
      and (other.state = 'started' or (other.state = 'queued' and other.doubt_since is not null))
  ) then
    return 'output_busy';
  end if;
  return null;
end;
$$;

-- Win (job, attempt) and learn what to do, fresh from the ledger. One caller wins an attempt, ever: pg_net does deliver
-- a message twice.
--
-- Answers {"claimed": false, "reason"}, or {"claimed": true, "step": "check", "ittybit_id"}, or {"claimed": true,
-- "step": "start", …} with the object, the action and the mark that its source address carries. `look_since` is set
-- when an earlier attempt may have started it: then it is looked for first, and `otherwise` is what to report when nothing
-- is found, if the job is not to be started any more, or not now.
create or replace function public.ittybit_claim(job uuid, attempt integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  mine ittybit.jobs;
  ends pg_catalog.text;
  waits pg_catalog.text;
begin
  -- In a copy: the functions claim here, and not where it was copied from, so it goes on in the original's place. One of
  -- several claims sees to it, and before any of them holds its own job, for which the others would wait.
  perform
  from ittybit.settings as s
  where s.home <> ittybit.here()
    and exists (
      select
      from ittybit.jobs as j
      where j.id = ittybit_claim.job
        and j.attempt = ittybit_claim.attempt
        and j.claimed < ittybit_claim.attempt
    )
  for update of s;
  if found then
    perform ittybit.adopt(as_copy => false);
  end if;

  select j.* into mine from ittybit.jobs as j where j.id = ittybit_claim.job for update;
  if not found then
    return jsonb_build_object('claimed', false, 'reason', 'unknown');
  elsif mine.attempt <> ittybit_claim.attempt or mine.claimed >= ittybit_claim.attempt then
    return jsonb_build_object('claimed', false, 'reason', 'lost');
  elsif mine.state not in ('queued', 'started') then
    update ittybit.jobs as j set due_at = null where j.id = mine.id;
    return jsonb_build_object('claimed', false, 'reason', mine.state);
  end if;

  if mine.state = 'started' then
    update ittybit.jobs as j
    set claimed = ittybit_claim.attempt, due_at = clock_timestamp() + ittybit.lease()
    where j.id = mine.id;
    return jsonb_build_object('claimed', true, 'step', 'check', 'ittybit_id', mine.ittybit_id);
  end if;

  -- Claims of starts take turns: a ceiling is never passed by several at once, and of two for one output the second
  -- sees the first.
  perform pg_advisory_xact_lock(hashtextextended('ittybit starts', 0));
  ends := ittybit.reason_to_end(mine);
  if ends is null then
    waits := ittybit.reason_to_wait(mine);
  end if;

  if mine.doubt_since is null and coalesce(ends, waits) is not null then
    -- The attempt is used up: delivered again, it must not win beside the next one.
    update ittybit.jobs as j
    set
      claimed = ittybit_claim.attempt,
      state = case when ends is null then j.state else 'skipped' end,
      reason = coalesce(ends, j.reason),
      finished_at = case when ends is not null then now() end,
      -- The sender keeps back what is paused, held or over a ceiling; a busy output is asked for again.
      due_at = case when ends is null then now() + case waits when 'output_busy' then interval '15 s' else '0' end end
    where j.id = mine.id;
    return jsonb_build_object('claimed', false, 'reason', coalesce(ends, waits));
  end if;

  -- The lease begins anew: pg_net may have kept the message for most of it, and nobody else may start meanwhile.
  update ittybit.jobs as j
  set
    claimed = ittybit_claim.attempt,
    due_at = clock_timestamp() + ittybit.lease(),
    doubt_since = coalesce(j.doubt_since, now()),
    restart = case j.restart when 'due' then 'done' else j.restart end
  where j.id = mine.id;

  -- A start in doubt was counted when it came into doubt.
  if mine.doubt_since is null then
    insert into ittybit.starts as c (hour, claimed, towards_day)
    values (date_trunc('hour', now()), 1, 1)
    on conflict (hour) do update set claimed = c.claimed + 1, towards_day = c.towards_day + 1;
    update ittybit.settings as s
    set tripped_at = now(), nudge = false
    where s.tripped_at is null
      and s.starts_per_day <= (
        select sum(c.towards_day) from ittybit.starts as c where c.hour > now() - interval '24 hours'
      );
  end if;

  return jsonb_build_object(
    'claimed', true,
    'step', 'start',
    'mark', mine.id || '.' || mine.generation,
    'look_since', mine.doubt_since,
    'now', clock_timestamp(),
    'otherwise', case
      when ends is not null then jsonb_build_object('outcome', 'skipped', 'reason', ends)
      when waits is not null then jsonb_build_object('outcome', 'retry', 'reason', waits)
    end,
    'bucket', mine.bucket_id,
    'name', mine.name,
    'public', coalesce((select b.public from storage.buckets as b where b.id = mine.bucket_id), false),
    'automation_id', mine.automation_id,
    'task', mine.task
  );
end;
$$;

comment on function public.ittybit_claim is 'Win one attempt of a job and learn what to do. For service_role alone.';


-- Record what an attempt came to.
--
-- `outcome` is started, succeeded or failed with the run's or task's id; or failed, skipped, retry, hold or undecided of
-- a start (undecided: whether an earlier attempt started it cannot be found out).
-- A report with an id is a fact about what ittybit does and moves the state forward, however late it comes; one without
-- speaks for its attempt alone and counts only while that is the last. Answers {"applied", "state"}.
create or replace function public.ittybit_report(
  job uuid,
  attempt integer,
  outcome text,
  ittybit_id text default null,
  progress real default null,
  outputs jsonb default null,
  reason text default null,
  error jsonb default null,
  retry_after integer default null,
  in_doubt boolean default false
)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  mine record;
  is_last boolean;
  went_on boolean;
begin
  if outcome not in ('started', 'succeeded', 'failed', 'skipped', 'retry', 'hold', 'undecided')
    or (outcome in ('started', 'succeeded') and ittybit_report.ittybit_id is null)
  then
    raise exception 'unknown outcome "%", or one without its ittybit_id', outcome
      using errcode = 'invalid_parameter_value';
  end if;

  select j.* into mine from ittybit.jobs as j where j.id = ittybit_report.job for update;
  if not found then
    return jsonb_build_object('applied', false, 'state', null);
  elsif ittybit_report.attempt <= mine.former_attempts then
    -- Of a generation that a person has given up on.
    return jsonb_build_object('applied', false, 'state', mine.state);
  end if;
  is_last := mine.attempt = ittybit_report.attempt;

  if outcome in ('started', 'succeeded', 'failed') and ittybit_report.ittybit_id is not null then
    if mine.ittybit_id <> ittybit_report.ittybit_id then
      -- Two starts after all: the first one known is followed, the other is named.
      update ittybit.jobs as j set reason = 'also started as ' || ittybit_report.ittybit_id where j.id = mine.id;
      return jsonb_build_object('applied', false, 'state', mine.state);
    elsif mine.finished_at is not null and mine.ittybit_id is not null then
      return jsonb_build_object('applied', false, 'state', mine.state);
    end if;

    -- Something was started: whatever held it back no longer does, and it will write where it was told to.
    if mine.ittybit_id is null then
      if outcome <> 'failed' then
        perform ittybit.reserve_output(mine.id, mine.task);
      end if;
      delete from ittybit.holds as h where h.scope = any (ittybit.hold_scopes(mine.rule, mine.automation_id));
    end if;
    went_on := mine.started_at is null
      or coalesce(ittybit_report.progress, mine.progress, 0) > coalesce(mine.progress, 0);

    if outcome = 'started' and not went_on and mine.progressed_at < now() - interval '24 hours' then
      outcome := 'failed';
      reason := 'no_progress';
    end if;

    update ittybit.jobs as j
    set
      state = outcome,
      ittybit_id = ittybit_report.ittybit_id,
      progress = case outcome when 'succeeded' then 100 else coalesce(ittybit_report.progress, j.progress) end,
      outputs = coalesce(
        (select array_agg(address) from jsonb_array_elements_text(ittybit_report.outputs) as address), j.outputs
      ),
      reason = case
        when outcome = 'failed' then coalesce(ittybit_report.reason, 'ittybit_failed')
        when j.reason like 'also started as %' then j.reason
      end,
      error = case when outcome = 'failed' then ittybit_report.error end,
      failures = 0,
      failing_since = null,
      doubt_since = null,
      started_at = coalesce(j.started_at, now()),
      progressed_at = case when went_on then now() else j.progressed_at end,
      finished_at = case when outcome <> 'started' then now() end,
      due_at = case
        when outcome <> 'started' then null
        -- As old as the run is, so much longer until the next check: the interval doubles.
        when is_last or j.due_at is null
          then now() + least(greatest(now() - coalesce(j.started_at, now()), interval '5 seconds'), interval '5 minutes')
        else j.due_at
      end
    where j.id = mine.id;
    return jsonb_build_object('applied', true, 'state', outcome);
  end if;

  if not is_last
    or mine.reported = ittybit_report.attempt
    or mine.state not in ('queued', 'started')
    or (mine.state = 'started' and outcome <> 'retry')
  then
    return jsonb_build_object('applied', false, 'state', mine.state);
  end if;

  if outcome = 'undecided' then
    in_doubt := true;
    if mine.restart is null then
      -- Looking again would not help: from here on it waits like any other, and counts as a start of its own.
      update ittybit.jobs as j
      set
        restart = 'due',
        reported = ittybit_report.attempt,
        error = ittybit_report.error,
        doubt_since = null,
        due_at = now()
      where j.id = mine.id;
      return jsonb_build_object('applied', true, 'state', mine.state);
    end if;
    outcome := 'failed';
    reason := 'undecided';
  end if;

  if outcome = 'retry'
    and ittybit_report.error ->> 'status' is not null
    and mine.failing_since < now() - interval '3 days'
    -- The account's or the key's trouble is not the job's.
    and ittybit_report.error ->> 'status' not in ('401', '402', '403')
  then
    outcome := 'failed';
    reason := 'gave_up';
  end if;

  if mine.state = 'queued' and mine.doubt_since is not null and not in_doubt then
    -- Nothing was started after all: give the start back to the ceiling, once.
    update ittybit.starts as c
    set claimed = greatest(0, c.claimed - 1), towards_day = greatest(0, c.towards_day - 1)
    where c.hour = date_trunc('hour', mine.doubt_since);
  end if;

  if outcome = 'hold' then
    insert into ittybit.holds as h (scope, error, probe_at)
    values (
      (ittybit.hold_scopes(mine.rule, mine.automation_id))[
        case ittybit_report.error ->> 'status' when '402' then 1 when '401' then 2 else 3 end
      ],
      ittybit_report.error,
      now() + interval '5 minutes'
    )
    on conflict (scope) do update set error = excluded.error, probe_at = excluded.probe_at, probe = null;
  end if;

  update ittybit.jobs as j
  set
    state = case when outcome in ('failed', 'skipped') then outcome else j.state end,
    reason = coalesce(ittybit_report.reason, j.reason),
    error = coalesce(ittybit_report.error, j.error),
    reported = ittybit_report.attempt,
    failures = j.failures + case when outcome = 'retry' then 1 else 0 end,
    failing_since = case
      when outcome = 'retry' and ittybit_report.error ->> 'status' is not null then coalesce(j.failing_since, now())
      else j.failing_since
    end,
    doubt_since = case when in_doubt then j.doubt_since end,
    finished_at = case when outcome in ('failed', 'skipped') then now() end,
    due_at = case outcome
      -- 15 s doubling to 1 h, +-20 %, and never before the service said; in doubt a minute at the least, as a call
      -- that got no answer may still take effect.
      when 'retry' then now() + greatest(
        case when in_doubt then interval '1 minute' end,
        least(interval '15 seconds' * 2 ^ least(j.failures, 10), interval '1 hour') * (0.8 + 0.4 * random()),
        interval '1 second' * least(coalesce(ittybit_report.retry_after, 0), 86400)
      )
      -- The sender keeps a start until the scope's probe has passed; it does not keep what is to be looked for.
      when 'hold' then now() + case when in_doubt then interval '5 minutes' else interval '0' end
    end
  where j.id = mine.id
  returning j.state into mine.state;
  return jsonb_build_object('applied', true, 'state', mine.state);
end;
$$;

comment on function public.ittybit_report is 'Record what an attempt of a job came to. For service_role alone.';

-- Hosted projects grant new functions in public to anon and authenticated by default: each is revoked by name.
revoke execute on function public.ittybit_claim(uuid, integer) from public, anon, authenticated;
revoke execute on function public.ittybit_report(
  uuid, integer, text, text, real, jsonb, text, jsonb, integer, boolean
) from public, anon, authenticated;
grant execute on function public.ittybit_claim(uuid, integer) to service_role;
grant execute on function public.ittybit_report(
  uuid, integer, text, text, real, jsonb, text, jsonb, integer, boolean
) to service_role;

reset search_path;
