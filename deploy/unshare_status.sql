-- Users see nothing of the ledger any more: the undoing of share_status.sql. It can run twice.

drop view if exists public.ittybit_files;
drop view if exists ittybit.shared_files;
drop index if exists ittybit.jobs_owner;
