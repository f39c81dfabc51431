-- Store the secret that the database signs its calls with in Vault. It comes over standard input and is never in the
-- text of a statement: neither pg_stat_statements nor the server's log has it.

create temporary table given (
  place integer generated always as identity,
  secret text
) on commit drop;
\copy pg_temp.given (secret) from pstdin

select
  count(s.id) > 0 as is_stored,
  coalesce(bool_or(s.decrypted_secret = g.secret), false) as is_known
from pg_temp.given as g
left join vault.decrypted_secrets as s on s.name = 'ittybit_functions_secret'
\gset

\if :is_known
  \echo unchanged
\elif :is_stored
  select 'replaced'
  from (
    select vault.update_secret(s.id, g.secret)
    from vault.secrets as s, pg_temp.given as g
    where s.name = 'ittybit_functions_secret' and g.place = 1
  ) as done;
\else
  select 'stored'
  from (
    select vault.create_secret(
      g.secret, 'ittybit_functions_secret', 'Signs the calls of schema ittybit: the functions'' FUNCTIONS_SECRET.'
    )
    from pg_temp.given as g
    where g.place = 1
  ) as done;
\endif
