-- What there is to remove, a line each: the project, the number of rules, of jobs, of queued and of started jobs, then
-- the foreign objects that depend on the schema and would be dropped with it. Nothing if it is not installed.
select to_regclass('ittybit.settings') is not null as is_installed
\gset

\if :is_installed
  select unnest(array[
    coalesce((select s.project from ittybit.settings as s), ''),
    (select count(*)::text from ittybit.rules),
    (select count(*)::text from ittybit.jobs),
    (select count(*)::text from ittybit.jobs as j where j.state = 'queued'),
    (select count(*)::text from ittybit.jobs as j where j.state = 'started')
  ]);

  with recursive ours (classid, objid, objsubid) as (
    select d.classid, d.objid, d.objsubid
    from pg_depend as d
    where d.refclassid = 'pg_namespace'::regclass and d.refobjid = 'ittybit'::regnamespace
    union
    -- A view depends on its table through a rewrite rule, which is a part of the view.
    select
      case when w.oid is null then d.classid else 'pg_class'::regclass end,
      coalesce(w.ev_class, d.objid),
      d.objsubid
    from ours as o
    join pg_depend as d
      on d.refclassid = o.classid and d.refobjid = o.objid and (o.objsubid = 0 or d.refobjsubid = o.objsubid)
    left join pg_rewrite as w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
  )
  select distinct thing.type || ' ' || thing.identity
  from ours as o
  cross join lateral pg_identify_object(o.classid, o.objid, o.objsubid) as thing
  left join pg_trigger as t on o.classid = 'pg_trigger'::regclass and t.oid = o.objid
  where thing.type not in ('type', 'toast table', 'view column') -- a view is listed as a whole
    and not coalesce(t.tgisinternal, false)
    and coalesce(thing.schema, '') <> 'pg_toast'
    and thing.identity !~ '(^| on |for )ittybit\.'
    and thing.identity !~ '^ittybit_object_[a-z]+ on storage\.objects$'
    and thing.identity <> 'public.ittybit_files'
  order by 1;
\endif
