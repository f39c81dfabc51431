-- What removing a rule would do; no row if there is no such rule.
select format(
  E'\nRule %s has %s jobs that wait and would be skipped, and %s at ittybit, which go on to their end.',
  r.name,
  count(j.id) filter (where j.state = 'queued'),
  count(j.id) filter (where j.state = 'started')
)
from ittybit.rules as r
left join ittybit.jobs as j on j.rule = r.name
where r.name = :'name'
group by r.name;
