-- Schema net after pg_net 0.20.4: its tables, its enqueueing functions and their checks. What the background worker
-- does is local/pg_net.py. Left out: http_collect_response (deprecated) and the functions behind it.

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

create function net.wait_until_running() returns void
  language plpgsql
  set search_path = ''
as $$
begin
  while not exists (select from pg_stat_activity where application_name like 'pg\_net %') loop
    perform pg_sleep(0.05);
    perform pg_stat_clear_snapshot();
  end loop;
end
$$;

-- Percent-encodes every byte but RFC 3986's unreserved characters.
create function net._urlencode_string(string varchar) returns text
  language sql immutable
  set search_path = ''
as $$
  select coalesce(string_agg(
    case
      when chr(get_byte(bytes, i)) ~ '[A-Za-z0-9._~-]' then chr(get_byte(bytes, i))
      else '%' || upper(lpad(to_hex(get_byte(bytes, i)), 2, '0'))
    end, '' order by i), '')
  from convert_to(string, 'UTF8') bytes, generate_series(0, octet_length(bytes) - 1) i
$$;

-- Refuses, of what libcurl's URL parser refuses, what is met in practice; completes a bare origin with its path; and
-- puts the parameters at the end of the query.
create function net._encode_url_with_params_array(url text, params_array text[]) returns text
  language plpgsql immutable strict
  set search_path = ''
as $$
declare
  problem text;
begin
  problem := case
    when url !~ '^[A-Za-z][A-Za-z0-9+.-]*://' then 'Bad scheme'
    when url ~ '^[^:]*://(/|$)' then 'No host part in the URL'
    when url ~ '[^!-~]' then 'Bad path'
  end;
  if problem is not null then
    raise exception 'invalid URL "%": %', url, problem using errcode = 'internal_error';
  end if;
  url := regexp_replace(url, '^([^:]*://[^/?#]+)($|[?#])', '\1/\2');
  if cardinality(params_array) > 0 then
    url := regexp_replace(
      url, '^([^#]*)',
      '\1' || case when split_part(url, '#', 1) like '%?%' then '&' else '?' end
      || replace(array_to_string(params_array, '&'), '\', '\\')
    );
  end if;
  return url;
end
$$;

create function net._enqueue(
  method text, url text, params jsonb, headers jsonb, timeout_milliseconds integer, body bytea default null
) returns bigint
  language plpgsql
  set search_path = ''
as $$
declare
  pairs text[];
  request_id bigint;
begin
  select coalesce(array_agg(net._urlencode_string(key) || '=' || net._urlencode_string(value)), '{}')
  into pairs
  from jsonb_each_text(params);

  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values (method, net._encode_url_with_params_array(url, pairs), headers, body, timeout_milliseconds)
  returning id into request_id;

  perform net.wake();
  return request_id;
end
$$;

create function net.http_get(
  url text,
  params jsonb default '{}',
  headers jsonb default '{}',
  timeout_milliseconds integer default 5000
) returns bigint
  language sql
as $$
  select net._enqueue('GET', url, params, headers, timeout_milliseconds)
$$;

create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds integer default 5000
) returns bigint
  language plpgsql
as $$
declare
  content_type text;
begin
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
  return net._enqueue('POST', url, params, headers, timeout_milliseconds, convert_to(body::text, 'UTF8'));
end
$$;

create function net.http_delete(
  url text,
  params jsonb default '{}',
  headers jsonb default '{}',
  timeout_milliseconds integer default 5000,
  body jsonb default null
) returns bigint
  language sql
as $$
  select net._enqueue('DELETE', url, params, headers, timeout_milliseconds, convert_to(body::text, 'UTF8'))
$$;

grant usage on schema net to public;
grant all on all sequences in schema net to public;
grant all on all tables in schema net to public;
