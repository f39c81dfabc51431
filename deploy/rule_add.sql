-- Add or replace a rule. Prints added, unchanged, replaced, or differs, then the values that differ.

create temporary table given on commit drop as
select
  :'name' as name,
  :'bucket' as bucket_id,
  :'path' as path,
  nullif(:'type', '') as mimetype,
  pg_size_bytes(nullif(:'min_size', '')) as min_size,
  pg_size_bytes(nullif(:'max_size', '')) as max_size,
  :'accept_s3'::boolean as accept_s3,
  nullif(:'output_prefix', '') as output_prefix,
  nullif(:'automation', '') as automation_id,
  case when :'task' <> '' then
    jsonb_build_object('kind', :'task', 'options', coalesce(nullif(:'options', ''), '{}')::jsonb)
    || case when :'destination' = '' then '{}' else jsonb_build_object('destination', :'destination') end
  end as task,
  nullif(:'run', '')::jsonb as run,
  :'delete_results'::boolean as delete_results;

create temporary table difference on commit drop as
select field.name, field.was, field.becomes
from pg_temp.given as g
join ittybit.rules as r on r.name = g.name
cross join lateral (
  values
    ('bucket', r.bucket_id, g.bucket_id),
    ('path', r.path, g.path),
    ('type', r.mimetype, g.mimetype),
    ('min-size', r.min_size::text, g.min_size::text),
    ('max-size', r.max_size::text, g.max_size::text),
    ('accept-s3', r.accept_s3::text, g.accept_s3::text),
    ('output-prefix', r.output_prefix, g.output_prefix),
    ('automation', r.automation_id, g.automation_id),
    ('task', r.task ->> 'kind', g.task ->> 'kind'),
    ('options', nullif(coalesce(r.task ->> 'options', '{}'), '{}'), nullif(g.task ->> 'options', '{}')),
    ('destination', r.task ->> 'destination', g.task ->> 'destination'),
    ('run', r.run::text, g.run::text),
    ('delete-results', r.delete_results::text, g.delete_results::text)
) as field (name, was, becomes)
where field.was is distinct from field.becomes;

select
  not exists (select from ittybit.rules as r where r.name = :'name') as is_new,
  exists (select from pg_temp.difference) as is_other,
  :'sample' <> '' as has_sample
\gset

\if :is_new
  insert into ittybit.rules (
    name, bucket_id, path, mimetype, min_size, max_size, accept_s3, output_prefix, automation_id, task, run,
    delete_results
  )
  table pg_temp.given;
  \echo added
\elif :is_other
  \if :replace
    update ittybit.rules as r
    set (
      name, bucket_id, path, mimetype, min_size, max_size, accept_s3, output_prefix, automation_id, task, run,
      delete_results
    ) = (table pg_temp.given)
    from pg_temp.given as g
    where r.name = g.name;
    \echo replaced
  \else
    \echo differs
    \set has_sample false
  \endif
  select format('  %s: %s -> %s', d.name, coalesce(d.was, '(none)'), coalesce(d.becomes, '(none)'))
  from pg_temp.difference as d;
\else
  \echo unchanged
\endif

select format('note: there is no bucket %s yet', g.bucket_id)
from pg_temp.given as g
where not exists (select from storage.buckets as b where b.id = g.bucket_id);

select 'note: if the automation uploads its results by itself, say where with --output-prefix'
from pg_temp.given as g
where :'is_new' and g.automation_id is not null and g.output_prefix is null;

\if :has_sample
  with object as (
    select jsonb_build_object(
      'bucket_id', r.bucket_id, 'name', :'sample', 'version', 'VERSION', 'owner_id', nullif(:'sample_owner', '')
    ) as value
    from ittybit.rules as r
    where r.name = :'name'
  ),
  verdict as (
    select
      ittybit.fill_action(r, object.value) as action,
      nullif(concat_ws(
        ', ',
        case when not ittybit.is_safe_key(:'sample') then 'Supabase Storage takes no such key' end,
        case when not r.enabled then 'the rule is disabled' end,
        case when :'sample' !~ r.path_pattern then format('the key does not fit path %s', r.path) end,
        case when lower(:'sample_type') !~ r.mimetype_pattern then format('the type is not %s', r.mimetype) end,
        case when pg_size_bytes(nullif(:'sample_size', '')) < r.min_size then format('it is under %s bytes', r.min_size) end,
        case when pg_size_bytes(nullif(:'sample_size', '')) > r.max_size then format('it is over %s bytes', r.max_size) end
      ), '') as misses,
      coalesce(
        ittybit.reason_to_skip(object.value || jsonb_build_object(
          'metadata', jsonb_build_object('size', coalesce(pg_size_bytes(nullif(:'sample_size', '')), 1))
        )),
        ittybit.reason_against_action(ittybit.fill_action(r, object.value), object.value)
      ) as skipped
    from ittybit.rules as r
    cross join object
    where r.name = :'name'
  )
  select :'sample' || ' (' || :'sample_type' || ')' || case
    when v.misses is not null then ' does not match: ' || v.misses
    when v.skipped is not null then ' matches, but triggers no job: ' || case v.skipped
      when 'folder' then 'it is a folder''s placeholder'
      when 'probe' then '.ittybit/ is for probes'
      when 'output' then 'another object''s result is written there'
      when 'output_prefix' then 'it is under an output prefix'
      when 'empty' then 'it is empty'
      when 'no_destination' then 'the destination gives no valid key; {owner_id} needs an owner (--sample-owner)'
      when 'destination_is_source' then 'its result would be written over it'
      when 'destinations_meet' then 'two uploads of its run would write one key'
      else v.skipped
    end
    when v.action ? 'automation_id' then ' matches, and runs ' || (v.action ->> 'automation_id')
    else ' matches, and its result ' || coalesce('goes to ' || (
      select string_agg(s.address, ', ') from ittybit.steps(v.action -> 'task', v.action -> 'run') as s
    ), 'stays at ittybit')
  end
  from verdict as v;
\endif
