-- Housekeeping, so that no table grows for ever while nothing is uploaded. And the schedule of what pg_cron runs.
set search_path = '';

-- Delete rows that are no longer needed, a limited number at a time. Returns how many.
--
-- A job's row stays until its content has been gone for `keep`, because it keeps the content from being paid for again.
-- An output stays longer than its job's row when an object lies under it.
create or replace function ittybit.tidy(keep interval default interval '30 days', most integer default 5000)
returns bigint language plpgsql security definer set search_path = '' as $$
declare folder record; is_used boolean; gone bigint; total bigint := 0;
begin
  with trimmed as (
    delete from ittybit.jobs as j
    where j.id in (
      select k.id from ittybit.jobs as k
      where k.orphaned_at < now() - keep and k.finished_at is not null and k.due_at is null and not exists (
        select from storage.objects as o
        where o.bucket_id = k.bucket_id and o.name = k.name and coalesce(o.version, '') = coalesce(k.version, '')
      )
      -- The results of an overwritten content are deleted with the object, however late: their job's row must stay.
      and not (k.orphaned_by = 'superseded' and exists (select from ittybit.results_to_delete(k.id)))
      limit most
    )
    returning j.id, j.action
  )
  select count(*), count(ittybit.free_output(t.id, t.action)) into total from trimmed as t;

  -- Empty folders that no job writes to any more, and outputs of an unknown job without an object. In random order, so
  -- that each has its turn.
  for folder in
    select o.bucket_id, o.name, o.job
    from ittybit.outputs as o
    where (o.name like '%/' or o.job = '00000000-0000-0000-0000-000000000000') and not exists (
      select from ittybit.jobs as j
      where j.id = o.job and (
        j.finished_at is null
        -- The ledger gave the job up: ittybit may still write.
        or (j.reason in ('no_progress', 'gave_up', 'undecided') and j.finished_at > now() - keep)
      )
    )
    order by random() limit least(most, 100)
  loop
    -- With the prefix as a constant, PostgreSQL uses storage's index for searching by prefix.
    execute format(
      'select exists (select from storage.objects where bucket_id = %L and name like %L)',
      folder.bucket_id, regexp_replace(folder.name, '([%_\\])', '\\\1', 'g') || '%'
    ) into is_used;
    if not is_used then
      delete from ittybit.outputs as o where (o.bucket_id, o.name, o.job) = (folder.bucket_id, folder.name, folder.job);
      total := total + 1;
    end if;
  end loop;

  delete from ittybit.starts as c where c.hour < now() - interval '2 days';
  get diagnostics gone = row_count;
  total := total + gone;

  -- pg_cron keeps a row for every run, and these schedules run every few seconds.
  delete from cron.job_run_details as d
  where d.runid in (
    select e.runid from cron.job_run_details as e
    where e.jobid in (select c.jobid from cron.job as c where c.jobname like 'ittybit-%')
      -- A run that a restart of the database interrupted has no end_time.
      and coalesce(e.end_time, e.start_time) < now() - interval '1 hour'
    limit most * 10
  );
  get diagnostics gone = row_count;
  return total + gone;
end $$;

-- What pg_cron runs. The doctor asks whether each has run within `every`.
create or replace function ittybit.schedules()
returns table (name text, schedule text, command text, every interval) language sql immutable set search_path = '' as $$
  values
    -- Without work it makes no call.
    ('ittybit-wake-up', '5 seconds', 'select ittybit.wake_functions()', interval '2 minutes'),
    ('ittybit-sweep', '10 seconds', 'select ittybit.sweep_page(), ittybit.backfill_page()', interval '2 minutes'),
    -- Null: it runs hourly and deletes records that are an hour old, so the doctor does not check when it ran.
    ('ittybit-tidy', '17 * * * *', 'select ittybit.tidy()', null);
$$;

-- Scheduling an existing name again would write its row, so one that is as it should be is left alone.
select cron.schedule(s.name, s.schedule, s.command)
from ittybit.schedules() as s
where not exists (
  select from cron.job as j where (j.jobname, j.schedule, j.command, j.active) = (s.name, s.schedule, s.command, true)
);
select ittybit.close_schema();
reset search_path;
