-- Why an object was or was not processed, rule by rule.
select exists (select from ittybit.rules) or exists (
  select from ittybit.jobs as j where j.bucket_id = :'bucket' and j.name = :'object'
) as has_rules
\gset

\if :has_rules
  select e.rule || ': ' || concat_ws(
    E'\n  ',
    e.because,
    'job ' || e.job || ' ' || concat_ws(', ', e.state, e.reason, e.error),
    'written: ' || array_to_string(e.outputs, ', '),
    'next at ' || e.due_at
  )
  from ittybit.explain(:'bucket', :'object') as e;
\else
  \echo 'there are no rules yet: ./deploy.sh rule add'
\endif
