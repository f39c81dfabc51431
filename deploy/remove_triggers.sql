-- The triggers, by dropping their functions.
--
-- On a hosted project DROP TRIGGER locks every table that supautils lets `postgres` drop triggers on, auth.users among
-- them. Dropping the function locks only storage.objects: exclusively, as removing a trigger must, for milliseconds.
-- The lock is taken first, in the order in which an upload takes its locks, so that the two cannot deadlock.

select to_regclass('storage.objects') is not null as has_storage
\gset
\if :has_storage
  lock table storage.objects in access exclusive mode;
\endif

select to_regnamespace('ittybit') is not null as is_installed
\gset
\if :is_installed
  drop function if exists ittybit.object_stored() cascade;
  drop function if exists ittybit.object_removed() cascade;
\endif
