-- The parts of a Supabase project that this database lacks, a line each; nothing if it is a Supabase project's.
select 'role ' || name as lacking
from unnest(array['anon', 'authenticated', 'service_role']) as name
where to_regrole(name) is null
union all
select 'table storage.objects'
where not exists (
  select
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where n.nspname = 'storage' and c.relname = 'objects'
);
