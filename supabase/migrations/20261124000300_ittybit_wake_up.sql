-- Wake-ups: a signed {"type": "jobs.due"} to a function, through pg_net. The function then claims what is due.
--
-- A wake-up carries no job. It may be lost, doubled, late, replayed or sent by a copy of this database: the function looks
-- into the ledger, and nothing else comes of it. Uploads wake an idle system at once; pg_cron wakes what they do not.

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
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    create extension if not exists pg_cron with schema pg_catalog;
  end if;
end;
$$;


-- Signing -------------------------------------------------------------------------------------------------------------

-- The value of webhook-signature: Standard Webhooks 1.0.0, HMAC-SHA256 over "id.timestamp.body".
-- `secret` is whsec_<base64>; `body` is the text that goes over the wire.
create or replace function ittybit.sign(secret text, id text, stamp bigint, body text)
returns text
language plpgsql immutable strict parallel safe set search_path = ''
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

-- Hand one wake-up to pg_net and answer its number. Raises when the secret is not in Vault: the function would refuse an
-- unsigned call.
create or replace function ittybit.post_wake_up(url text, timeout_milliseconds integer default 5000)
returns bigint
language plpgsql security definer set search_path = ''
as $$
declare
  secret pg_catalog.text;
  body constant pg_catalog.jsonb := '{"type": "jobs.due"}';
  id constant pg_catalog.text := 'wake_' || gen_random_uuid();
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
    timeout_milliseconds := timeout_milliseconds
  );
end;
$$;


-- Waking by an upload -------------------------------------------------------------------------------------------------

-- When an upload last woke a function, in milliseconds since 1970.
create or replace function ittybit.last_woken(function text)
returns bigint
language plpgsql security definer set search_path = ''
as $$
begin
  return case last_woken.function
    when 'on-upload' then (select s.last_value from ittybit.on_upload_woken as s)
    when 'push-back' then (select s.last_value from ittybit.push_back_woken as s)
  end;
end;
$$;

create or replace function ittybit.set_last_woken(function text, milliseconds bigint)
returns void
language plpgsql security definer set search_path = ''
as $$
begin
  perform setval(
    case set_last_woken.function
      when 'on-upload' then 'ittybit.on_upload_woken'::pg_catalog.regclass
      when 'push-back' then 'ittybit.push_back_woken'::pg_catalog.regclass
    end,
    milliseconds
  );
end;
$$;

-- Wake a function for a job of this transaction, unless that would bring nothing. For a start its rule is given: what keeps
-- starts back keeps its wake-up back as well.
--
-- However many uploads commit, each function is woken twenty times a second at the most: the claims that follow find the
-- others' jobs as well. The moment of the last wake-up is in a sequence, which two uploads can set at once without
-- waiting for each other. It is not rolled back, which leaves the others to pg_cron at the worst: a wake-up that no claim
-- has followed silences them for as long as pg_net waits for its answer. A claim that empties the ledger sets it to 0, so
-- that the next upload wakes again at once.
create or replace function ittybit.wake_from_upload(function text, rule text default null)
returns void
language plpgsql security definer set search_path = ''
as $$
declare
  target record;
  woken constant bigint := ittybit.last_woken(function);
  moment constant bigint := extract(epoch from clock_timestamp()) * 1000;
  claimed bigint;
begin
  if moment - woken between 0 and 49 then
    return;
  end if;

  select f.url, f.knocked_at, f.claimed_at into target
  from ittybit.functions as f
  where f.name = wake_from_upload.function;
  claimed := extract(epoch from target.claimed_at) * 1000;
  if target.url is null
    -- pg_cron has knocked, and goes on: a function that is down holds up nobody's calls in pg_net.
    or target.knocked_at > coalesce(target.claimed_at, '-infinity')
    or (woken > coalesce(claimed, 0) and moment - woken between 0 and 4999)
    or (
      wake_from_upload.rule is not null
      and exists (
        select
        from ittybit.gates() as g
        where g.scope = any (ittybit.scopes(wake_from_upload.rule, wake_from_upload.function))
      )
    )
  then
    return;
  end if;

  perform ittybit.post_wake_up(target.url);
  perform ittybit.set_last_woken(function, moment);
end;
$$;


-- Waking by pg_cron ---------------------------------------------------------------------------------------------------

-- Wake each function that has work, with as many calls as the work needs. Answers how many calls were handed to pg_net.
--
-- A function that has claimed nothing since it was woken is down: it is woken by one call, after 5 s, 10 s, 20 s and 40 s,
-- then once a minute, and is given 2 s for its answer, which nobody needs. pg_net waits for the slowest call of a batch, so a function that
-- hangs would otherwise hold up every webhook of the project.
create or replace function ittybit.wake_functions()
returns integer
language plpgsql security definer set search_path = ''
as $$
declare
  target record;
  calls integer;
  sent integer := 0;
  last_woken pg_catalog.timestamptz;
  request bigint;
begin
  for target in
    select
      f.name,
      f.url,
      f.knocked_at,
      to_timestamp(ittybit.last_woken(f.name) / 1000.0) as woken_at,
      coalesce(f.claimed_at, '-infinity') as claimed_at,
      f.knocked_at > coalesce(f.claimed_at, '-infinity') as is_down
    from ittybit.functions as f
    where f.url is not null
    order by f.name
  loop
    -- As many calls as a claim's most often fits into the work.
    select ceil(count(*) / 50.0) into calls
    from (
      select from ittybit.work(target.name, 50 * (select s.parallel_calls from ittybit.settings as s))
    ) as due;
    continue when calls = 0;

    if target.is_down then
      -- The next call when as much time has passed again as between the first and the last, within a minute; less a
      -- second, as pg_cron's ticks are not exact.
      last_woken := to_timestamp(ittybit.last_woken(target.name) / 1000.0);
      continue when now() < last_woken - interval '1 second' + least(
        greatest(last_woken - target.knocked_at, interval '5 seconds'), interval '1 minute'
      );
      calls := 1;
    else
      -- Those that wait in pg_net's queue are under way. pg_net adds the path to an address that has none.
      calls := calls - (
        select count(*)
        from (
          select from net.http_request_queue as q where rtrim(q.url, '/') = rtrim(target.url, '/') limit calls
        ) as waiting
      );
      if calls <= 0 and target.woken_at > target.claimed_at then
        -- An upload has knocked, and pg_net may be waiting for the answer: what it waits for is still in its queue.
        update ittybit.functions as f set knocked_at = target.woken_at where f.name = target.name;
      end if;
    end if;

    for turn in 1 .. calls loop
      request := ittybit.post_wake_up(target.url, case when target.woken_at > target.claimed_at then 2000 else 5000 end);
      sent := sent + 1;
    end loop;
    if calls > 0 then
      perform ittybit.set_last_woken(target.name, (extract(epoch from clock_timestamp()) * 1000)::bigint);
      update ittybit.functions as f
      set
        knocked_at = case when target.is_down then f.knocked_at else clock_timestamp() end,
        request_id = request
      where f.name = target.name;
    end if;
  end loop;
  return sent;
end;
$$;

revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

-- Without work it makes no call. The same name would replace the job, so one that is as it should be is left alone.
select cron.schedule('ittybit-wake-up', '5 seconds', 'select ittybit.wake_functions()')
where not exists (
  select
  from cron.job as j
  where j.jobname = 'ittybit-wake-up'
    and (j.schedule, j.command) = ('5 seconds', 'select ittybit.wake_functions()')
    and j.active
);

reset search_path;
