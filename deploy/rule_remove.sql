-- Remove a rule: its waiting jobs are skipped, and what is at ittybit goes on.
delete from ittybit.rules as r where r.name = :'name' returning 'removed ' || r.name;
