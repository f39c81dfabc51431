-- The rest: the RPCs, the schema, the secret, and the calls that still wait in pg_net's queue.

drop schema if exists ittybit cascade;

select format('drop function %s', p.oid::regprocedure)
from pg_proc as p
where p.pronamespace = 'public'::regnamespace and p.proname in ('ittybit_claim', 'ittybit_report')
\gexec

select to_regclass('vault.secrets') is not null as has_vault
\gset
\if :has_vault
  delete from vault.secrets as s where s.name = 'ittybit_functions_secret';
\endif

select coalesce(has_table_privilege(to_regclass('net.http_request_queue'), 'delete'), false) as has_queue
\gset
\if :has_queue
  delete from net.http_request_queue as q where q.headers ->> 'webhook-id' like 'wake\_%';
\endif
