-- The schedule first, so that no scheduled call uses what is removed next.

select to_regclass('cron.job') is not null as has_cron
\gset
\if :has_cron
  select 'unscheduled ' || c.jobname
  from cron.job as c
  cross join lateral (select cron.unschedule(c.jobid)) as done
  where c.jobname like 'ittybit-%'
  order by c.jobname;

  delete from cron.job_run_details as d where d.command like 'select ittybit.%';
\endif
