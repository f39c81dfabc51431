-- The rules, with how many of each one's jobs wait, run and failed.
select exists (select from ittybit.rules) as has_rules
\gset

\if :has_rules
  \pset format aligned
  \pset tuples_only off
  \pset footer off
  select
    r.name as rule,
    r.bucket_id as bucket,
    r.path,
    coalesce(r.mimetype, 'any') as type,
    coalesce(r.automation_id, concat_ws(
      ' -> ',
      coalesce(r.task ->> 'kind', 'run'),
      (select string_agg(s.address, ', ') from ittybit.steps(r.task, r.run) as s)
    )) as does,
    concat_ws(
      ', ',
      case when not r.enabled then 'DISABLED' end,
      'from ' || r.min_size || ' bytes',
      'to ' || r.max_size || ' bytes',
      case when r.accept_s3 then 'also through S3' end,
      'writes under ' || r.output_prefix,
      case when r.delete_results then 'deletes results with their objects' end
    ) as and,
    count(j.id) filter (where j.state = 'queued') as waiting,
    count(j.id) filter (where j.state = 'started') as started,
    count(j.id) filter (where j.state = 'failed') as failed
  from ittybit.rules as r
  left join ittybit.jobs as j on j.rule = r.name
  group by r.name
  order by r.name;
\else
  \echo 'there are no rules yet: ./deploy.sh rule add'
\endif
