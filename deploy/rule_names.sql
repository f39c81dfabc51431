-- The rules' names in one line.
select string_agg(r.name, ', ' order by r.name) from ittybit.rules as r;
