-- Sending: a signed {job, attempt} to the function that does the work, through pg_net.
--
-- pg_net is only a nudge. What must not be lost is `due_at`; whatever pg_net drops is sent again when the lease ends.
-- It can run twice.

set search_path = '';

-- The extensions this needs, where the project does not have them yet.
do $$
begin
  if to_regprocedure('extensions.hmac(bytea, bytea, text)') is null then
    create extension if not exists pgcrypto with schema extensions;
  end if;
  if to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
    create extension if not exists pg_net with schema extensions;
  end if;
  if to_regclass('vault.decrypted_secrets') is null then
    create extension if not exists supabase_vault with schema vault;
  end if;
end;
$$;

-- The value of webhook-signature: Standard Webhooks 1.0.0, HMAC-SHA256 over "id.timestamp.body".
-- `secret` is whsec_<base64>; `body` is the text that goes over the wire.
create or replace function ittybit.sign(secret text, id text, stamp bigint, body text)
returns text
language plpgsql
immutable
strict
parallel safe
set search_path = ''
as $$
begin
  return 'v1,' || encode(
    extensions.hmac(
      convert_to(id || '.' || stamp || '.' || body, 'UTF8'),
      decode(regexp_replace(secret, '^whsec_', ''), 'base64'),
      'sha256'
    ),
    'base64'
  );
end;
$$;

-- Hand one message to pg_net and answer its number. Raises when the secret is not in Vault: an unsigned call would only be refused.
create or replace function ittybit.post(url text, job uuid, attempt integer)
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  secret pg_catalog.text;
  body constant pg_catalog.jsonb := jsonb_build_object('job', job, 'attempt', attempt);
  id constant pg_catalog.text := 'job_' || job || '_' || attempt;
  -- The transaction may have begun long ago: only clock_timestamp() is inside the verifier's window.
  stamp constant bigint := floor(extract(epoch from clock_timestamp()));
begin
  select s.decrypted_secret into secret
  from vault.decrypted_secrets as s
  where s.name = 'ittybit_functions_secret';
  if secret is null then
    raise exception 'no secret "ittybit_functions_secret" in Vault'
      using hint = 'Store the functions'' FUNCTIONS_SECRET with vault.create_secret(…, ''ittybit_functions_secret'').';
  end if;

  -- The jsonb's own text is what pg_net sends, so it is what is signed.
  return net.http_post(
    url := url,
    body := body,
    headers := jsonb_build_object(
      'Content-Type', 'application/json',
      'webhook-id', id,
      'webhook-timestamp', stamp::pg_catalog.text,
      'webhook-signature', ittybit.sign(secret, id, stamp, body::pg_catalog.text)
    ),
    timeout_milliseconds := 5000
  );
end;
$$;

-- How long a sent job belongs to the function that it was sent to.
create or replace function ittybit.lease()
returns interval
language sql
immutable
parallel safe
return interval '60 seconds';

-- The scopes a refusal by ittybit can have for a job; see ittybit.holds.
create or replace function ittybit.hold_scopes(rule text, automation_id text)
returns text[]
language sql
immutable
parallel safe
return array[
  'all',
  'function:' || case when automation_id is null then 'push-back' else 'on-upload' end,
  'rule:' || rule
];

-- How many more jobs may be started now: 0 when paused or tripped, else what the ceilings leave.
create or replace function ittybit.starts_left()
returns integer
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  return (
    select case
      when s.paused or s.tripped_at is not null then 0
      else greatest(0, least(
        s.starts_per_hour - coalesce(sum(c.claimed) filter (where c.hour = date_trunc('hour', now())), 0),
        s.starts_per_day - coalesce(sum(c.towards_day), 0)
      ))::integer
    end
    from ittybit.settings as s
    left join ittybit.starts as c on c.hour > now() - interval '24 hours'
    group by s.singleton
  );
end;
$$;

-- Send what is due: starts within the ceilings, status checks always. Answers how many calls were handed to pg_net.
-- Run by pg_cron every few seconds; any number of senders may run at once.
create or replace function ittybit.send_due()
returns integer
language plpgsql
security definer
set search_path = ''
-- The turns are one statement with different orders: only a plan of its own lets each go by the index.
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  settings record;
  target record;
  job record;
  request bigint;
  backlog integer;
  room integer;
  room_again integer;
  is_clogged boolean := false;
  starts integer := ittybit.starts_left();
  sent integer := 0;
begin
  select s.* into settings from ittybit.settings as s;
  if settings.home <> ittybit.here() then
    -- The functions that it knows may be another's: see the migration ittybit_origin.
    update ittybit.settings as s set copied_at = now(), nudge = false where s.copied_at is null;
    return ittybit.ask_whose_functions();
  end if;
  if exists (select from ittybit.holds as h where h.scope = 'all' and h.probe_at > now()) then
    starts := 0;
  end if;

  -- Each function has its own room: one that is gone does not hold up the other.
  for target in
    select f.name, f.url
    from (values ('on-upload', settings.on_upload_url), ('push-back', settings.push_back_url)) as f (name, url)
    where f.url is not null
  loop
    -- Calls that still wait in pg_net's queue: more of them would only grow stale there.
    select count(*) into backlog
    from (
      select from net.http_request_queue as q
      -- pg_net adds the path to an address that has none.
      where rtrim(q.url, '/') = rtrim(target.url, '/')
      limit settings.unanswered_calls
    ) as waiting;
    is_clogged := is_clogged or backlog >= settings.unanswered_calls;

    -- Calls that left and were not claimed: their lease began less than one lease ago. A tenth is kept from those that
    -- were sent before: jobs that are never answered do not keep the others from being sent at all.
    select
      settings.unanswered_calls - greatest(backlog, count(*)),
      settings.unanswered_calls * 9 / 10 - count(*) filter (where j.attempt - j.claimed > 1)
    into room, room_again
    from ittybit.jobs as j
    where j.due_at > now()
      and j.due_at <= now() + ittybit.lease()
      and j.attempt > j.claimed
      and j.function = target.name;

    -- First the oldest of what was sent just now and not answered: with the function gone for days they keep knocking,
    -- and go first when it is back. Then live uploads, the longest due first; then what a backfill made.
    for turn in 1 .. 3 loop
      for job in
        select
          j.id,
          j.state = 'queued' and j.doubt_since is null as starting,
          j.attempt + 1 as attempt,
          ittybit.hold_scopes(j.rule, j.automation_id) as scopes
        from ittybit.jobs as j
        where j.due_at <= now()
          and j.function = target.name
          and case turn
            when 1 then j.due_at > now() - ittybit.lease() * 2 and j.attempt > j.claimed
            when 2 then not j.backfill
            else j.backfill
          end
          -- A check costs nothing, nor does looking for a start in doubt: only starts are held back.
          and (
            j.state = 'started'
            or j.doubt_since is not null
            or (
              starts > 0
              and not exists (select from ittybit.rules as r where r.name = j.rule and not r.enabled)
              and not exists (
                select from ittybit.holds as h
                where h.probe_at > now() and h.scope = any (ittybit.hold_scopes(j.rule, j.automation_id))
              )
            )
          )
        order by j.backfill, case turn when 1 then j.created_at else j.due_at end, j.created_at
        limit greatest(least(room, case turn when 1 then room_again end), 0)
        for update skip locked
      loop
        if job.starting then
          continue when starts = 0;

          -- A held scope lets one job through as the probe; the next one waits for what that brings, or for its lease.
          continue when exists (
            select from ittybit.holds as h where h.scope = any (job.scopes) and h.probe_at > now()
          );
          update ittybit.holds as h
          set probe = job.id, probe_at = now() + ittybit.lease()
          where h.scope = any (job.scopes);
          starts := starts - 1;
        end if;

        request := ittybit.post(target.url, job.id, job.attempt);
        update ittybit.jobs as j
        set attempt = job.attempt, due_at = now() + ittybit.lease(), request_id = request
        where j.id = job.id;
        room := room - 1;
        sent := sent + 1;
      end loop;
    end loop;
  end loop;

  -- The trigger reads one flag; it is written only when it changes, so that no upload waits for this row.
  update ittybit.settings as s
  set nudge = not s.nudge
  where s.nudge is distinct from (
    starts > 0
    and not is_clogged
    and not exists (select from ittybit.holds as h where h.scope = 'all')
  );
  return sent;
end;
$$;

revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

reset search_path;
