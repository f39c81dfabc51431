-- Roles, memberships and default privileges of a hosted project, after supabase/postgres: its init scripts, its
-- migrations, and the state that nix/tests/expected/roles.out records. Left out: the roles of services that have no
-- stand-in here (auth, pgbouncer, replication, the dashboard). `supabase_admin` is the bootstrap superuser.

create role postgres nosuperuser createdb createrole login replication bypassrls;
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator login noinherit;
create role supabase_storage_admin login noinherit createrole;
create role supabase_realtime_admin nologin noinherit;

grant anon, authenticated, service_role to authenticator;
grant authenticator to supabase_storage_admin;
grant anon, authenticated, service_role, pg_monitor, pg_read_all_data, pg_signal_backend to postgres;
grant supabase_realtime_admin to postgres;

-- From 16 on, CREATEROLE alone no longer lets `postgres` grant these three to others.
do $$
begin
  if current_setting('server_version_num')::integer >= 160000 then
    grant anon, authenticated, service_role to postgres with admin option;
  end if;
end
$$;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_storage_admin set search_path = storage;

alter database postgres set search_path = "$user", public, extensions;
alter database postgres owner to postgres;
grant create on database postgres to supabase_storage_admin;

create schema extensions;
grant all on schema extensions to postgres;
grant usage on schema extensions to anon, authenticated, service_role;
grant usage on schema public to postgres, anon, authenticated, service_role;

-- Everything created in public is open to the API's roles until it is revoked from them by name.
alter default privileges for role postgres, supabase_admin in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres, supabase_admin in schema public
  grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role postgres, supabase_admin in schema public
  grant all on sequences to postgres, anon, authenticated, service_role;
