-- Show signed-in users the state of their own files. ./deploy.sh database --share-status runs this, --unshare-status
-- undoes it. It can run twice.
--
-- A job belongs to the owner of the content that it processes (ittybit.jobs.owner_id). A user who takes over a file
-- name from another sees none of the other's jobs. Shown are the user's own file names, states, results, times and
-- reasons in words: no ids of others, no ids at ittybit, and no error texts of ittybit or of the database.

do $$
begin
  -- The index finds a user's rows without reading those of others. While it is built on a large ledger, uploads go on
  -- unrecorded, and the sweep records them afterwards.
  if to_regclass('ittybit.jobs_owner') is null then
    create index jobs_owner on ittybit.jobs (owner_id, created_at) where owner_id is not null;
  end if;
end;
$$;

-- The rows as users see them, plus their owner. Closed to the API's roles, like the whole schema.
create or replace view ittybit.shared_files as
select
  j.owner_id,
  j.id,
  j.bucket_id,
  j.name,
  j.rule,
  coalesce(j.action -> 'task' ->> 'kind', case when j.action ? 'run' then 'run' else 'automation' end) as kind,
  j.state,
  floor(j.progress)::integer as progress,
  case
    when j.state = 'failed' then case j.reason
      when 'ittybit_failed' then 'This file could not be processed. Check that it opens on your device, then upload it again.'
      when 'no_progress' then 'Processing stopped on its way. Upload the file again.'
      when 'gave_up' then 'Processing was tried for three days without success. Upload the file again.'
      when 'undecided' then 'Nobody can tell whether this file was processed. Upload it again.'
      else 'This file could not be processed. Upload it again.'
    end
    when j.state = 'skipped' then case j.reason
      when 's3_write' then 'Files that are uploaded in this way are not processed.'
      when 'no_destination' then 'There is no place for the result under this name. Give the file another name, and upload it again.'
      when 'destination_is_source' then 'The result would overwrite the file. Upload it to another folder.'
      when 'destinations_meet' then 'There would be two results of one name. Give the file another name, and upload it again.'
      when 'not_addressable' then 'This name cannot be processed. Give the file another name, and upload it again.'
      when 'rule_deleted' then 'Files like this one are no longer processed.'
      else 'This file was not processed. Upload it again.'
    end
  end as reason,
  j.outputs as results,
  j.created_at,
  j.started_at,
  j.finished_at
from ittybit.jobs as j
where j.orphaned_at is null;

revoke all on ittybit.shared_files from public, anon, authenticated, service_role;

-- The view reads with its owner's rights, because users have none on the ledger. Its condition selects the caller's
-- rows, and security_barrier applies it before any condition of the caller's.
create or replace view public.ittybit_files with (security_barrier = true, security_invoker = false) as
select f.id, f.bucket_id, f.name, f.rule, f.kind, f.state, f.progress, f.reason, f.results, f.created_at, f.started_at, f.finished_at
from ittybit.shared_files as f
where f.owner_id = (select auth.uid())::text;

comment on view public.ittybit_files is 'The state of the signed-in user''s own files (supabase-ittybit).';
comment on column public.ittybit_files.kind is 'video, image, audio, …, automation or run.';
comment on column public.ittybit_files.progress is 'In percent; null before the start.';
comment on column public.ittybit_files.reason is 'Why it failed or was skipped, in words for the user; else null.';
comment on column public.ittybit_files.results is 'Addresses: s3://bucket/key, to be signed by the Storage API, or https.';

revoke all on public.ittybit_files from public, anon, authenticated, service_role;
grant select on public.ittybit_files to authenticated;

-- Live: when a job changes, its row is broadcast to its owner's private channel `ittybit:<the user's id>`. A message
-- never delays the change or makes it fail: one that cannot be sent at once is dropped, and the view still has the row.
create or replace function ittybit.tell_owner()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  lock table realtime.messages in row exclusive mode nowait;
  perform realtime.send(to_jsonb(f) - 'owner_id', 'file', 'ittybit:' || f.owner_id, true)
  from ittybit.shared_files as f
  where f.id = new.id;
  return null;
exception when others then
  return null;
end;
$$;

revoke execute on function ittybit.tell_owner() from public, anon, authenticated, service_role;

create or replace trigger tell_owner_of_new
after insert on ittybit.jobs
for each row when (new.owner_id is not null) execute function ittybit.tell_owner();

create or replace trigger tell_owner
after update on ittybit.jobs
for each row when (
  new.owner_id is not null
  and (old.owner_id, old.bucket_id, old.name, old.state, floor(old.progress), old.outputs)
    is distinct from (new.owner_id, new.bucket_id, new.name, new.state, floor(new.progress), new.outputs)
)
execute function ittybit.tell_owner();

-- If the project has Realtime, each user may read their own channel, and may not send to it.
do $$
begin
  if to_regclass('realtime.messages') is not null
    and not exists (
      select
      from pg_policies as p
      where (p.schemaname, p.tablename, p.policyname) = ('realtime', 'messages', 'ittybit: users hear of their own files')
    )
  then
    create policy "ittybit: users hear of their own files" on realtime.messages for select to authenticated
    using (
      realtime.messages.extension = 'broadcast'
      and (select realtime.topic()) = 'ittybit:' || (select auth.uid())::text
    );
  end if;
end;
$$;
