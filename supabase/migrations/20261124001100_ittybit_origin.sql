-- Where this was set up: a database restored or branched from another starts nothing at the other's functions.
--
-- Three things keep it so, each by itself:
--
-- 1. A message is {job, attempt} and nothing else, and a function claims it at the SUPABASE_URL of its own environment.
--    What a copy sends is claimed in the original's ledger: a job of the copy's own is unknown there, and one that both
--    have is won only at the attempt that the original itself has sent, which does what the original asked for.
-- 2. settings.home says where it was set up. In a database that is another, the sender sends nothing but a question, one
--    due job every ten minutes, nor, once it has run for the first time, does the trigger nudge; uploads go on being
--    recorded, and ittybit.status says why nothing happens. To ask at each upload would cost each upload of every
--    project. A dump that was restored, a database made from a template and one that pg_upgrade made are another; a copy
--    of the cluster's files cannot be told from the original, and is kept safe by the first.
-- 3. A branch that only has the migrations has no addresses and no rules.
--
-- By the first, a claim that arrives in such a database is the answer to the question: the functions work for it, so it
-- has taken the original's place, and goes on. A copy beside the original never gets one; `./deploy.sh database` calls
-- ittybit.adopt for it, as it does for whoever does not want to wait. It can run twice.

set search_path = '';

-- Make this the database that the ledger belongs to. Answers how many jobs it changed.
--
-- As a copy, what was open at the copying is skipped: the original does it, and no file is paid for twice. The addresses
-- are the original's functions', and go. Otherwise the original is no more and this goes on in its place: what had not
-- started when it was saved may have started since, and is looked for at ittybit first.
create or replace function ittybit.adopt(as_copy boolean)
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  changed bigint;
begin
  -- Before the jobs, as whoever claims one does.
  perform from ittybit.settings as s where s.singleton for update;
  if as_copy then
    -- What was uploaded since the sender found this to be a copy is its own.
    update ittybit.jobs as j
    set state = 'skipped', reason = 'copied', due_at = null, doubt_since = null, finished_at = now()
    where j.state in ('queued', 'started')
      and j.created_at < coalesce((select s.copied_at from ittybit.settings as s), 'infinity');
    get diagnostics changed = row_count;

    update ittybit.backfills as b set state = 'stopped', ended_at = now() where b.state = 'running';
    delete from ittybit.holds;
    delete from ittybit.starts;
    update ittybit.settings as s set on_upload_url = null, push_back_url = null where s.singleton;
  else
    -- Counted as any start in doubt is: what turns out not to have started is given back.
    with doubted as (
      update ittybit.jobs as j
      set doubt_since = j.created_at
      where j.state = 'queued' and j.doubt_since is null and j.restart is null
      returning j.created_at
    )
    insert into ittybit.starts as c (hour, claimed, towards_day)
    select date_trunc('hour', d.created_at), count(*), count(*)
    from doubted as d
    group by 1
    on conflict (hour) do update
    set claimed = c.claimed + excluded.claimed, towards_day = c.towards_day + excluded.towards_day;

    select count(*) into changed from ittybit.jobs as j where j.state = 'queued' and j.doubt_since is not null;
  end if;

  update ittybit.settings as s set home = ittybit.here(), copied_at = null where s.singleton;
  return changed;
end;
$$;

-- Ask whose functions these are: send one due job to its own, every ten minutes at the most. If they are this database's,
-- they claim it here, and ittybit_claim adopts. Answers how many calls were handed to pg_net.
create or replace function ittybit.ask_whose_functions()
returns integer
language plpgsql
security definer
set search_path = ''
as $$
declare
  question record;
begin
  -- A message is sent for one lease; only a question waits longer.
  if exists (select from ittybit.jobs as j where j.due_at > now() + ittybit.lease() and j.attempt > j.claimed) then
    return 0;
  end if;

  select j.id, j.attempt + 1 as attempt, f.url into question
  from ittybit.jobs as j
  cross join ittybit.settings as s
  join lateral (values ('on-upload', s.on_upload_url), ('push-back', s.push_back_url)) as f (name, url)
    on f.name = j.function and f.url is not null
  where j.due_at <= now()
  limit 1
  for update of j skip locked;
  if not found then
    return 0;
  end if;

  update ittybit.jobs as j
  set attempt = question.attempt, due_at = now() + interval '10 minutes' + ittybit.lease()
  where j.id = question.id;
  begin
    perform ittybit.post(question.url, question.id, question.attempt);
  exception when others then
    -- A copy may lack the key that Vault is encrypted with.
    raise warning 'ittybit: could not ask whose functions these are: % (%)', sqlerrm, sqlstate;
    return 0;
  end;
  return 1;
end;
$$;

update ittybit.settings as s set home = ittybit.here() where s.home is null;

revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;

reset search_path;
