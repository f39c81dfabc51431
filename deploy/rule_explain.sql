-- Why an object was or was not processed, rule by rule. Control characters in foreign texts become
-- spaces: they could begin a new line or control the terminal.
select exists (select from ittybit.rules) or exists (
  select from ittybit.jobs as j where j.bucket_id = :'bucket' and j.name = :'object'
) as has_rules
\gset

\if :has_rules
  select e.rule || ': ' || string_agg(
    regexp_replace(line.text, '[\u0001-\u001f\u007f-\u009f\u2028\u2029]+', ' ', 'g'), E'\n  ' order by line.place
  )
  from ittybit.explain(:'bucket', :'object') with ordinality as e
  cross join lateral (
    values
      (1, e.because),
      (2, 'job ' || e.job || ' ' || concat_ws(', ', e.state, e.reason, e.error)),
      (3, 'results: ' || array_to_string(e.outputs, ', ')),
      (4, 'next step at ' || e.due_at)
  ) as line (place, text)
  group by e.ordinality, e.rule
  order by e.ordinality;
\else
  \echo 'there are no rules yet: ./deploy.sh rule add'
\endif
