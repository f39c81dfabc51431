-- Schema auth: only auth.uid(), which policies and views call. Left out: users, sessions, the service.

create schema auth;
grant usage on schema auth to postgres, anon, authenticated, service_role;

-- The signed-in user of the request, as PostgREST and the storage server set it, or null.
create function auth.uid() returns uuid
  language sql stable
as $$
  select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
