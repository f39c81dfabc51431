-- The triggers, by dropping their functions.
--
-- On a hosted project DROP TRIGGER locks every table that supautils lets `postgres` drop triggers on, auth.users among
-- them. Dropping the function locks storage.objects alone: wholly, as removing a trigger must, and for milliseconds. The
-- lock comes first, in the order in which an upload takes its own, so that the two never wait for one another.

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
