-- The clock: pg_cron runs the sender every five seconds. Without work it makes no call. It can run twice.

set search_path = '';

do $$
begin
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    create extension if not exists pg_cron with schema pg_catalog;
  end if;
end;
$$;

-- The same name replaces the job.
select cron.schedule('ittybit-send-due', '5 seconds', 'select ittybit.send_due()');

reset search_path;
