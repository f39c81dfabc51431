-- The number of calls signed until :stamp that are still in pg_net's queue (it deletes a call when it is answered),
-- plus the number of the transactions :readers that are still running and may yet commit such calls.
select
  (
    select count(*)
    from net.http_request_queue as q
    where q.headers ->> 'webhook-id' like 'wake\_%'
      and (q.headers ->> 'webhook-timestamp')::bigint <= :'stamp'::bigint
  ) + (
    select count(distinct l.virtualtransaction)
    from pg_locks as l
    where l.virtualtransaction = any (string_to_array(:'readers', ','))
  );
