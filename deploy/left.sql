-- The remains of an installation in the database, a line each, and those of the extensions that it used.

select 'schema ittybit'
where to_regnamespace('ittybit') is not null
union all
select 'function ' || p.oid::regprocedure
from pg_proc as p
where p.pronamespace = 'public'::regnamespace and p.proname in ('ittybit_claim', 'ittybit_report')
union all
select 'trigger ' || t.tgname
from pg_trigger as t
where t.tgname like 'ittybit\_object\_%';

select to_regclass('cron.job') is not null as has_cron, to_regclass('vault.secrets') is not null as has_vault
\gset
\if :has_cron
  select 'schedule ' || c.jobname from cron.job as c where c.jobname like 'ittybit-%';
\endif
\if :has_vault
  select 'Vault''s ' || s.name from vault.secrets as s where s.name = 'ittybit_functions_secret';
\endif

select 'extension ' || e.extname
from pg_extension as e
where e.extname in ('pg_net', 'pg_cron', 'supabase_vault', 'pgcrypto')
order by e.extname;
