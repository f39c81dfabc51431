-- The current second, and the running transactions that have read Vault's secrets and may still commit a call.
select
  floor(extract(epoch from clock_timestamp()))::bigint,
  coalesce(string_agg(distinct l.virtualtransaction, ','), '-')
from (select) as once
left join pg_locks as l
  on l.relation = 'vault.secrets'::regclass
  and l.database = (select d.oid from pg_database as d where d.datname = current_database())
  and l.pid <> pg_backend_pid();
