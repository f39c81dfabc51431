-- How many calls signed by :stamp wait for pg_net or are in its hands, which deletes them when they are answered; and
-- how many of the transactions :readers have still to commit theirs.
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
