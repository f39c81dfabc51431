-- Undo share_status.sql: users see nothing of the ledger any more. It can run twice.

drop policy if exists "ittybit: users hear of their own files" on realtime.messages;
drop trigger if exists tell_owner on ittybit.jobs;
drop trigger if exists tell_owner_of_new on ittybit.jobs;
drop function if exists ittybit.tell_owner();
drop view if exists public.ittybit_files;
drop view if exists ittybit.shared_files;
drop index if exists ittybit.jobs_owner;
