-- Remove a rule: its waiting jobs are skipped, and its jobs at ittybit go on.
delete from ittybit.rules as r where r.name = :'name' returning 'removed ' || r.name;
