-- How things stand with the database side, a line each; nothing where it is not installed.
select exists (
  select
  from pg_attribute as a
  where a.attrelid = to_regclass('ittybit.settings') and a.attname = 'home'
) as is_installed
\gset

\if :is_installed
  select unnest(array[
    case when s.home <> ittybit.here() then 'elsewhere' else 'home' end,
    coalesce(s.project, ''),
    (select count(*)::text from ittybit.jobs as j where j.state in ('queued', 'started')),
    coalesce(s.on_upload_url, ''),
    coalesce(s.push_back_url, ''),
    coalesce(s.migrations, ''),
    (
      3 = (
        select count(*)
        from pg_trigger as t
        where t.tgrelid = 'storage.objects'::regclass and t.tgname like 'ittybit\_object\_%' and t.tgenabled <> 'D'
      )
      and 3 <= (select count(*) from cron.job as c where c.jobname like 'ittybit-%' and c.active)
    )::text
  ])
  from (select) as once
  left join ittybit.settings as s on true;
\endif
