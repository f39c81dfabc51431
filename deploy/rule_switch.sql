-- Enable or disable a rule; no row if there is no such rule.
select exists (
  select from ittybit.rules as r where r.name = :'name' and r.enabled <> :'enabled'::boolean
) as is_changed
\gset

update ittybit.rules as r set enabled = :'enabled'::boolean where :'is_changed' and r.name = :'name';

select case
  when not :'is_changed' then 'unchanged'
  when r.enabled
    then 'enabled; for objects that were stored meanwhile, run select ittybit.backfill(''' || r.name || ''', run => true)'
  else 'disabled; queued jobs wait, and jobs at ittybit go on to their end'
end
from ittybit.rules as r
where r.name = :'name';
