-- Schema net after pg_net 0.20.4: its tables, its enqueueing functions and their checks. What the background worker
-- does is local/pg_net.py. Left out: everything but POST requests, their `params`, http_collect_response (deprecated) and
-- the functions behind it.

create schema net;

create domain net.http_method as text
  check (value ilike 'get' or value ilike 'post' or value ilike 'delete');

-- Unlogged, as in the original: a crash empties both tables and starts the request ids at 1 again.
create unlogged table net.http_request_queue (
  id bigserial,
  method net.http_method not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds integer not null
);

create unlogged table net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);
create index _http_response_created_idx on net._http_response (created);

-- The original wakes its worker by a commit callback; a notification too leaves at commit, once per transaction.
create function net.wake() returns void
  language sql
  set search_path = ''
as $$
  select pg_catalog.pg_notify('pg_net_wake', '')
$$;

-- The worker ends after the batch under way. A second later a new one begins by looking at the queue. The original is
-- told at once, the stand-in at commit.
create function net.worker_restart() returns boolean
  language sql
  set search_path = ''
as $$
  select pg_catalog.pg_notify('pg_net_wake', 'restart');
  select true
$$;

-- The stand-in's worker is an ordinary client, known by the application name that the original sets as well.
create function net.check_worker_is_up() returns void
  language plpgsql
  set search_path = ''
as $$
begin
  if not exists (select from pg_stat_activity where application_name like 'pg\_net %') then
    raise exception 'the pg_net background worker is not up' using
      detail = 'the pg_net background worker is down due to an internal error and cannot process requests',
      hint = 'make sure that you didn''t modify any of pg_net internal tables';
  end if;
end
$$;

-- Refuses, of what libcurl's URL parser refuses, what is met in practice; completes a bare origin with its path.
create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds integer default 5000
) returns bigint
  language plpgsql
  set search_path = ''
as $$
declare
  problem constant text := case
    when url !~ '^[A-Za-z][A-Za-z0-9+.-]*://' then 'Bad scheme'
    when url ~ '^[^:]*://(/|$)' then 'No host part in the URL'
    when url ~ '[^!-~]' then 'Bad path'
  end;
  content_type text;
  request_id bigint;
begin
  if params <> '{}' then
    raise exception 'the embedded stack has no params: write them into the url' using errcode = 'feature_not_supported';
  elsif problem is not null then
    raise exception 'invalid URL "%": %', url, problem using errcode = 'internal_error';
  end if;

  select value into content_type
  from jsonb_each_text(coalesce(headers, '{}'))
  where lower(key) = 'content-type'
  limit 1;

  -- Null headers stay null, so that the request goes out as a form.
  if content_type is null then
    headers := headers || '{"Content-Type": "application/json"}';
  elsif content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;

  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values (
    'POST', regexp_replace(url, '^([^:]*://[^/?#]+)($|[?#])', '\1/\2'), headers, convert_to(body::text, 'UTF8'),
    timeout_milliseconds
  )
  returning id into request_id;

  perform net.wake();
  return request_id;
end
$$;

grant usage on schema net to public;
grant all on all sequences in schema net to public;
grant all on all tables in schema net to public;
