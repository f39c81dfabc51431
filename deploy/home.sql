-- The state of the database side, one value a line; nothing if it is not installed.
select to_regclass('ittybit.functions') is not null as is_installed
\gset

\if :is_installed
  select unnest(array[
    coalesce(s.project, ''),
    (select count(*)::text from ittybit.jobs as j where j.state in ('queued', 'started')),
    coalesce((select f.url from ittybit.functions as f where f.name = 'on-upload'), ''),
    coalesce((select f.url from ittybit.functions as f where f.name = 'push-back'), ''),
    coalesce(s.migrations, ''),
    (
      3 = (
        select count(*)
        from pg_trigger as t
        where t.tgrelid = 'storage.objects'::regclass and t.tgname like 'ittybit\_object\_%' and t.tgenabled <> 'D'
      )
      and 3 <= (select count(*) from cron.job as c where c.jobname like 'ittybit-%' and c.active)
      and 2 = (
        select count(*)
        from pg_proc as p
        where p.pronamespace = 'public'::regnamespace and p.proname in ('ittybit_claim', 'ittybit_report')
          and has_function_privilege('service_role', p.oid, 'execute')
          and not has_function_privilege('anon', p.oid, 'execute')
          and not has_function_privilege('authenticated', p.oid, 'execute')
      )
    )::text
  ])
  from (select) as once
  left join ittybit.settings as s on true;
\endif
