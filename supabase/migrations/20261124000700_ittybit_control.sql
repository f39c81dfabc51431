-- What a person does and asks: pause and resume, try again, why, and how things stand. It can run twice.

set search_path = '';

-- Stop starting: uploads go on being recorded, what runs at ittybit is still followed to its end.
create or replace function ittybit.pause()
returns void
language sql
security definer
set search_path = ''
as $$
  update ittybit.settings as s set paused = true, nudge = false where s.singleton;
$$;

-- Go on, after pause() or after the day's ceiling tripped: the day's count begins anew.
create or replace function ittybit.resume()
returns void
language sql
security definer
set search_path = ''
as $$
  update ittybit.starts as c set towards_day = 0 where c.towards_day > 0;
  update ittybit.settings as s set paused = false, tripped_at = null where s.singleton;
$$;

-- Ask for a job's work again: a new generation, which never takes a former one's run for its own.
-- Answers whether there was anything to do: a job that waits or runs is left alone.
create or replace function ittybit.retry(job uuid)
returns boolean
language plpgsql
security definer
set search_path = ''
as $$
declare
  mine record;
begin
  select j.* into mine from ittybit.jobs as j where j.id = retry.job for update;
  if not found then
    raise exception 'there is no job %', retry.job using errcode = 'no_data_found';
  elsif ittybit.reason_against_task(mine.task, to_jsonb(mine)) is not null then
    raise exception 'job % has no place for its result: the rule''s destination does not fit this object', retry.job
      using errcode = 'invalid_parameter_value', hint = 'Change the rule and upload the object again.';
  elsif mine.state not in ('failed', 'skipped', 'succeeded') then
    return false;
  end if;

  update ittybit.jobs as j
  set
    state = 'queued',
    generation = j.generation + 1,
    -- Whatever an attempt of the former generation still reports is no longer about this one.
    attempt = j.attempt + 1,
    claimed = j.attempt + 1,
    former_attempts = j.attempt + 1,
    due_at = clock_timestamp(),
    ittybit_id = null,
    progress = null,
    outputs = null,
    reason = null,
    error = null,
    failures = 0,
    failing_since = null,
    doubt_since = null,
    restart = null,
    started_at = null,
    progressed_at = null,
    finished_at = null
  where j.id = mine.id;

  perform ittybit.reserve_output(mine.id, mine.task);
  return true;
end;
$$;

-- Ask again for all failed jobs of a rule; answers how many.
create or replace function ittybit.retry_failed(rule text)
returns bigint
language sql
security definer
set search_path = ''
as $$
  select count(*) filter (where ittybit.retry(failed.id))
  from (
    select j.id
    from ittybit.jobs as j
    where j.rule = retry_failed.rule
      and j.state = 'failed'
      and ittybit.reason_against_task(j.task, to_jsonb(j)) is null
    for update skip locked
  ) as failed;
$$;

-- What pg_net last said of a call, or null: its answers are kept for six hours, and it may not be there at all.
create or replace function ittybit.last_answer(request_id bigint)
returns text
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  answer record;
begin
  select r.status_code, r.error_msg into answer from net._http_response as r where r.id = last_answer.request_id;
  return coalesce(answer.error_msg, 'HTTP ' || answer.status_code);
exception when others then
  return null;
end;
$$;

-- Why an object was or was not processed: for each rule whether it matches and what became of it, and what became of
-- earlier contents. The object need not exist any more.
create or replace function ittybit.explain(bucket_id text, name text)
returns table (
  rule text,
  matches boolean,
  because text,
  state text,
  reason text,
  error text,
  outputs text[],
  attempts integer,
  unanswered integer,
  last_answer text,
  due_at timestamptz,
  job uuid
)
language sql
stable
security definer
set search_path = ''
as $$
  with object as (
    select o.name, o.version, o.metadata
    from storage.objects as o
    where o.bucket_id = explain.bucket_id and o.name = explain.name
  ),
  verdict as (
    select
      r.name as rule,
      object.version,
      nullif(concat_ws(
        ', ',
        case when r.bucket_id <> explain.bucket_id then format('the rule is for bucket %s', r.bucket_id) end,
        case when not r.enabled then 'the rule is disabled' end,
        case when length(explain.name) > 1024 then 'the key is longer than 1024 characters' end,
        case when explain.name !~ r.path_pattern then format('the key does not fit path %s', r.path) end,
        case
          when object.name is null then 'there is no such object'
          when not coalesce(object.metadata ? 'size', false) then 'the object has no final metadata'
        end,
        case
          when object.metadata ? 'size' and coalesce(lower((object.metadata ->> 'mimetype') collate "C"), '') !~ r.mimetype_pattern
            then format('its type is %s, not %s', coalesce(object.metadata ->> 'mimetype', 'unknown'), r.mimetype)
        end,
        case
          when (object.metadata ->> 'size')::bigint < r.min_size then format('it is smaller than %s bytes', r.min_size)
          when (object.metadata ->> 'size')::bigint > r.max_size then format('it is larger than %s bytes', r.max_size)
        end
      ), '') as misses
    from ittybit.rules as r
    left join object on true
  )
  select
    coalesce(v.rule, j.rule),
    v.rule is not null and v.misses is null,
    case
      when v.rule is null and not exists (select from ittybit.rules as r where r.name = j.rule) then 'the rule is deleted'
      when v.rule is null then 'an earlier content of this key'
      when v.misses is not null then v.misses
      when j.id is null then 'not seen yet: older than the rule, or the sweep has not come by'
      when j.state = 'queued' and j.doubt_since is not null then 'an earlier start is in doubt and is looked for first'
      when j.state = 'queued' then coalesce(
        case
          when ittybit.is_copy()
            then 'this database is not the one it was set up in, and starts nothing until its functions claim here'
        end,
        (
          select 'held: ' || coalesce(h.error ->> 'message', 'ittybit refuses')
          from ittybit.holds as h
          where h.scope = any (ittybit.hold_scopes(j.rule, j.automation_id))
          limit 1
        ),
        (
          select case
            when s.paused then 'paused'
            when s.tripped_at is not null then 'the day''s ceiling tripped'
            when ittybit.starts_left() = 0 then 'a ceiling on starts is reached'
          end
          from ittybit.settings as s
        ),
        case
          when j.restart = 'due' then 'whether an earlier start happened could not be found out: it is started once more'
          when j.attempt > j.claimed then 'sent, and not answered yet'
          else 'waiting to be sent'
        end
      )
      when j.restart = 'done' then 'started again after a start whose outcome could not be found out'
      else 'it matches'
    end,
    j.state,
    j.reason,
    j.error ->> 'message',
    j.outputs,
    j.attempt - j.former_attempts,
    case when j.due_at is not null then j.attempt - j.claimed end,
    ittybit.last_answer(j.request_id),
    j.due_at,
    j.id
  from verdict as v
  full join (
    select k.* from ittybit.jobs as k where k.bucket_id = explain.bucket_id and k.name = explain.name
  ) as j on j.rule = v.rule and coalesce(j.version, '') = coalesce(v.version, '')
  order by 1, j.created_at desc;
$$;

-- How things stand, a line each, for a person.
create or replace view ittybit.status as
select line.what, line.value
from ittybit.settings as s
cross join lateral (
  select
    count(*) filter (where j.state = 'queued' and not j.backfill) as queued,
    count(*) filter (where j.state = 'queued' and j.backfill) as backfill,
    count(*) filter (where j.state = 'started') as started,
    count(*) filter (where j.doubt_since is not null and j.state = 'queued' and j.attempt = j.claimed) as doubt,
    count(*) filter (where j.attempt > j.claimed and j.due_at > now()) as unanswered,
    min(j.created_at) filter (where j.state = 'queued' and not j.backfill) as oldest
  from ittybit.jobs as j
  where j.due_at is not null
) as open
cross join lateral (
  select
    coalesce(sum(c.claimed) filter (where c.hour = date_trunc('hour', now())), 0) as hour,
    coalesce(sum(c.towards_day), 0) as day
  from ittybit.starts as c
  where c.hour > now() - interval '24 hours'
) as started
cross join lateral (
  values
    (1, 'starting', case
      when ittybit.is_copy() then format(
        'COPY, restored or moved from where it was set up (%s): nothing starts until its functions are found to work for'
        ' this database, or ./deploy.sh database is told what it is',
        coalesce(s.project, 'an unknown project')
      )
      when s.paused then 'PAUSED: select ittybit.resume() to go on'
      when s.tripped_at is not null
        then format('TRIPPED at %s by starts_per_day: select ittybit.resume() to go on', s.tripped_at)
      when s.on_upload_url is null and s.push_back_url is null then 'NOT SET UP: the functions'' addresses are missing'
      when s.on_upload_url is null and exists (select from ittybit.rules as r where r.automation_id is not null)
        then 'NOT SET UP: on_upload_url is missing'
      when s.push_back_url is null and exists (select from ittybit.rules as r where r.task is not null)
        then 'NOT SET UP: push_back_url is missing'
      when started.hour >= s.starts_per_hour then 'waiting for the next hour: starts_per_hour is reached'
      when started.day >= s.starts_per_day then 'waiting for starts of a day ago to count no more: starts_per_day is reached'
      else 'yes'
    end),
    (2, 'starts this hour', format('%s of %s', started.hour, s.starts_per_hour)),
    (3, 'starts in 24 hours', format('%s of %s', started.day, s.starts_per_day)),
    (4, 'held', coalesce(
      (select string_agg(format('%s since %s: %s', h.scope, h.since, h.error ->> 'message'), '; ') from ittybit.holds as h),
      'nothing'
    )),
    (5, 'waiting', format('%s, the oldest since %s', open.queued, coalesce(open.oldest::text, '-'))),
    (6, 'waiting from a backfill', open.backfill::text),
    (7, 'at ittybit', open.started::text),
    (8, 'calls without an answer', format('%s of %s', open.unanswered, s.unanswered_calls)),
    (9, 'starts in doubt', open.doubt::text),
    (10, 'failed', (select count(*) from ittybit.jobs as j where j.state = 'failed')::text)
) as line (place, what, value)
order by line.place;

comment on view ittybit.status is 'How things stand: select * from ittybit.status.';

revoke all on ittybit.status from public, anon, authenticated, service_role;
revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

reset search_path;
