-- Schema net after pg_net 0.20.4: its tables, its enqueueing functions and their checks. local/pg_net.py does the work
-- of the background worker. Left out: all requests but POST, `params`, and http_collect_response (deprecated) with the
-- functions behind it.

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

-- The original wakes its worker in a commit callback. A notification is also sent at commit, once per transaction.
create function net.wake() returns void
  language sql
  set search_path = ''
as $$
  select pg_catalog.pg_notify('pg_net_wake', '')
$$;

-- The worker ends after its current batch. A second later a new one begins by looking at the queue. The original's
-- worker gets the signal at once, the stand-in's at commit.
create function net.worker_restart() returns boolean
  language sql
  set search_path = ''
as $$
  select pg_catalog.pg_notify('pg_net_wake', 'restart');
  select true
$$;

-- The stand-in's worker is an ordinary client, with the same application name as the original's.
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

-- Refuses the common mistakes among those that libcurl's URL parser refuses. Adds `/` to an address without a path.
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

  -- Null headers stay null: then the request is sent as a form.
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
