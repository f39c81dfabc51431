-- Wake-ups: a signed {"type": "jobs.due"} to a function, through pg_net. The function then claims what is due.
--
-- A wake-up carries no job. It may be lost, doubled, late, replayed or sent by a copy of this database: all it does is
-- make the function look into the ledger. Uploads wake an idle function at once; reports and pg_cron, if jobs are due.
set search_path = '';

-- Install the extensions that are missing.
do $$ begin
  if to_regprocedure('extensions.hmac(bytea, bytea, text)') is null then
    create extension if not exists pgcrypto with schema extensions;
  end if;
  if to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
    create extension if not exists pg_net with schema extensions;
  end if;
  if to_regclass('vault.decrypted_secrets') is null then
    create extension if not exists supabase_vault with schema vault;
  end if;
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    create extension if not exists pg_cron with schema pg_catalog;
  end if;
end $$;

-- The value of webhook-signature: Standard Webhooks 1.0.0, HMAC-SHA256 over "id.timestamp.body". `secret` is
-- whsec_<base64>; `body` is the text as it is sent.
create or replace function ittybit.sign(secret text, id text, stamp bigint, body text)
returns text language plpgsql immutable strict parallel safe set search_path = '' as $$ begin
  return 'v1,' || encode(extensions.hmac(
    convert_to(concat_ws('.', id, stamp, body), 'UTF8'), decode(replace(secret, 'whsec_', ''), 'base64'), 'sha256'
  ), 'base64');
end $$;

-- Queue one wake-up in pg_net and return its id. Fails without a secret, because the function would refuse the call.
create or replace function ittybit.post_wake_up(url text, timeout_milliseconds integer default 5000)
returns bigint language plpgsql security definer set search_path = '' as $$
declare
  secret pg_catalog.text;
  -- pg_net sends the text of this jsonb, so that text is signed.
  body constant pg_catalog.jsonb := '{"type": "jobs.due"}';
  id constant pg_catalog.text := 'wake_' || gen_random_uuid();
  -- Not now(): the transaction may have begun long ago, and the function accepts only recent signatures.
  stamp constant bigint := floor(extract(epoch from clock_timestamp()));
begin
  select s.decrypted_secret into secret from vault.decrypted_secrets as s where s.name = 'ittybit_functions_secret';
  if secret is null then
    raise exception 'no secret "ittybit_functions_secret" in Vault'
      using hint = 'Store the functions'' FUNCTIONS_SECRET with vault.create_secret(…, ''ittybit_functions_secret'').';
  end if;
  return net.http_post(
    url := url, body := body, timeout_milliseconds := timeout_milliseconds,
    headers := jsonb_build_object(
      'Content-Type', 'application/json', 'webhook-id', id, 'webhook-timestamp', stamp::pg_catalog.text,
      'webhook-signature', ittybit.sign(secret, id, stamp, body::pg_catalog.text)
    )
  );
end $$;

-- When a function was last woken, in milliseconds since 1970.
create or replace function ittybit.last_woken(function text)
returns bigint language sql volatile
return coalesce(pg_sequence_last_value(
  case function when 'on-upload' then 'ittybit.on_upload_woken'::regclass else 'ittybit.push_back_woken'::regclass end
), 0);

-- Whether a function was woken within the last 50 milliseconds. PostgreSQL inlines this and the function above.
create or replace function ittybit.is_just_woken(function text)
returns boolean language sql volatile
return extract(epoch from clock_timestamp()) * 1000 - ittybit.last_woken(function) between 0 and 49;

-- Record that a function was woken, now or at `moment`.
create or replace function ittybit.set_last_woken(
  function text, moment bigint default extract(epoch from clock_timestamp()) * 1000
) returns bigint language sql volatile
return setval(
  case function when 'on-upload' then 'ittybit.on_upload_woken'::regclass else 'ittybit.push_back_woken'::regclass end,
  moment
);

-- Wake a function for a job of this transaction, if it could claim something. For a start, the caller passes the rule:
-- while the start is kept back, the function is not woken. When the wake-up fails, a warning names the object, and the
-- job stays recorded. pg_cron wakes the function within seconds after the cause is fixed.
--
-- The caller first checks ittybit.is_just_woken. So uploads wake each function at most twenty times a second, and the
-- claims that follow find the other uploads' jobs too. After a wake-up, no upload wakes the function again until it has
-- claimed, or pg_net has stopped waiting for its answer (5 s). A rollback undoes the wake-up, but not its time: pg_cron
-- then wakes the function. After a claim that leaves no due job, the next upload wakes it at once.
create or replace function ittybit.wake_from_upload(function text, bucket_id text, name text, rule text default null)
returns void language plpgsql security definer set search_path = '' as $$
declare
  address pg_catalog.text;
  woken constant bigint := ittybit.last_woken(function);
  moment constant bigint := extract(epoch from clock_timestamp()) * 1000;
begin
  select f.url into address from ittybit.functions as f
  where f.name = wake_from_upload.function
    -- Only pg_cron wakes a function that is down: a call that hangs holds up the other calls in pg_net.
    and (f.awaited_since > coalesce(f.claimed_at, '-infinity')) is not true
    and not (to_timestamp(woken / 1000.0) > coalesce(f.claimed_at, '-infinity') and moment - woken between 0 and 4999)
    -- Like ittybit.kept_back(), but without counting the starts in doubt: an unnecessary wake-up is harmless.
    and (rule is null or exists (
      select from ittybit.settings as s cross join ittybit.recent_starts() as c
      where not s.paused and s.tripped_at is null and c.this_hour < s.starts_per_hour and c.today < s.starts_per_day
    ) and not exists (
      select from ittybit.holds as h where h.probe_at > now() and h.scope = any (ittybit.scopes(rule, function))
    ));
  if address is null then return; end if;
  perform ittybit.post_wake_up(address);
  perform ittybit.set_last_woken(function, moment);
exception when others then
  raise warning 'ittybit: no wake-up for %/%: % (%)', bucket_id, wake_from_upload.name, sqlerrm, sqlstate;
end $$;

-- Wake each function that has work, with as many calls as the work needs. Returns how many calls were queued in pg_net.
--
-- A function that has claimed nothing since it was woken is down. It gets one call after 5, 10, 20, 40 and 80 s, then
-- one a minute. pg_net waits for the slowest call of a batch, so a function that hangs would hold up every webhook of
-- the project: while a function has not claimed since its last wake-up, pg_net waits only 2 s for its answer.
create or replace function ittybit.wake_functions()
returns integer language plpgsql security definer set search_path = '' as $$
declare target record; calls integer; sent integer := 0; request bigint;
begin
  for target in
    select f.name, f.url, f.awaited_since, f.awaited_since > c.claimed_at as is_down, w.woken_at,
      w.woken_at > c.claimed_at as is_silent
    from ittybit.functions as f
    cross join lateral (select coalesce(f.claimed_at, '-infinity') as claimed_at) as c
    cross join lateral (select to_timestamp(ittybit.last_woken(f.name) / 1000.0) as woken_at) as w
    where f.url is not null
    order by f.name
  loop
    -- One call for each 50 jobs that may be claimed now, and at most parallel_calls.
    select ceil(count(*) / 50.0) into calls
    from ittybit.work(target.name, 50 * (select s.parallel_calls from ittybit.settings as s));
    continue when calls = 0;

    if target.is_down then
      -- Wait as long as it had been down at the last call: 5 s to 1 minute, less 1 s, because ticks are not exact.
      continue when now() < target.woken_at - interval '1 second'
        + least(greatest(target.woken_at - target.awaited_since, interval '5 seconds'), interval '1 minute');
      calls := 1;
    else
      -- Less the calls that still wait in pg_net's queue. pg_net adds a slash to an address that has no path.
      calls := calls - (
        select count(*) from (
          select from net.http_request_queue as q where rtrim(q.url, '/') = rtrim(target.url, '/') limit calls
        ) as waiting
      );
      if calls <= 0 and target.is_silent then
        -- It was woken, and its call is still in the queue: pg_net may be waiting for it. Now it counts as down.
        update ittybit.functions as f set awaited_since = target.woken_at where f.name = target.name;
      end if;
    end if;

    for turn in 1 .. calls loop
      request := ittybit.post_wake_up(target.url, case when target.is_silent then 2000 else 5000 end);
    end loop;
    sent := sent + greatest(calls, 0);
    if calls > 0 then
      perform ittybit.set_last_woken(target.name);
      update ittybit.functions as f
      set awaited_since = case when target.is_down then f.awaited_since else clock_timestamp() end, request_id = request
      where f.name = target.name;
    end if;
  end loop;
  return sent;
end $$;
select ittybit.close_schema();
reset search_path;
