-- Where the functions are and whose database this is. What is not given stays as it is.

select :'adopt' <> '' as is_adopted, :'adopt' = 'copy' as is_copy
\gset
\if :is_adopted
  select case
    when :'is_copy' then format('adopted as a copy: %s open jobs are skipped', ittybit.adopt(as_copy => true))
    else format('goes on here: %s jobs are looked for first', ittybit.adopt(as_copy => false))
  end;
\endif

insert into ittybit.settings (singleton, home) values (true, ittybit.here()) on conflict do nothing;

-- Written only where something changes.
with wanted as (
  select
    coalesce(nullif(:'on_upload_url', ''), s.on_upload_url) as on_upload_url,
    coalesce(nullif(:'push_back_url', ''), s.push_back_url) as push_back_url,
    coalesce(
      (
        select array_agg(trim(part.prefix) order by part.place)
        from unnest(string_to_array(:'output_prefixes', ',')) with ordinality as part (prefix, place)
        where trim(part.prefix) <> ''
      ),
      s.output_prefixes
    ) as output_prefixes,
    :'project' as project,
    :'migrations' as migrations
  from ittybit.settings as s
)
update ittybit.settings as s
set
  on_upload_url = w.on_upload_url,
  push_back_url = w.push_back_url,
  output_prefixes = w.output_prefixes,
  project = w.project,
  migrations = w.migrations
from wanted as w
where (s.on_upload_url, s.push_back_url, s.output_prefixes, s.project, s.migrations)
  is distinct from (w.on_upload_url, w.push_back_url, w.output_prefixes, w.project, w.migrations);

select 'on-upload at ' || coalesce(s.on_upload_url, '(no address yet: ./deploy.sh functions)')
from ittybit.settings as s
union all
select 'push-back at ' || coalesce(s.push_back_url, '(no address yet: ./deploy.sh functions)')
from ittybit.settings as s
union all
select 'starting: ' || t.value from ittybit.status as t where t.what = 'starting';
