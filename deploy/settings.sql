-- Store the functions' addresses and the project of this database. Empty values change nothing.

insert into ittybit.settings (singleton) values (true) on conflict do nothing;

select :'adopt' <> '' as is_adopted, case :'adopt' when 'copy' then 'skip' else 'look' end as open_jobs
\gset
\if :is_adopted
  select format(
    case :'open_jobs'
      when 'skip' then 'adopted as a copy: %s open jobs are skipped'
      else 'adopted as a move: %s jobs are searched for at ittybit first'
    end,
    ittybit.adopt(:'project', :'open_jobs')
  );
\endif

-- Only if something changes.
with wanted as (
  select
    coalesce(
      (
        select array_agg(trim(part.prefix) order by part.place)
        from unnest(string_to_array(:'output_prefixes', ',')) with ordinality as part (prefix, place)
        where trim(part.prefix) <> ''
      ),
      s.output_prefixes
    ) as output_prefixes,
    :'project' as project,
    :'migrations' as migrations,
    :'version' as version
  from ittybit.settings as s
)
update ittybit.settings as s
set output_prefixes = w.output_prefixes, project = w.project, migrations = w.migrations, version = w.version
from wanted as w
where (s.output_prefixes, s.project, s.migrations, s.version)
  is distinct from (w.output_prefixes, w.project, w.migrations, w.version);

insert into ittybit.functions (name, url)
values ('on-upload', nullif(:'on_upload_url', '')), ('push-back', nullif(:'push_back_url', ''))
on conflict (name) do update
set url = excluded.url
where excluded.url is not null and ittybit.functions.url is distinct from excluded.url;

select f.name || ' at ' || coalesce(f.url, '(no address yet: ./deploy.sh functions)')
from ittybit.functions as f
order by f.name;

select 'starting: ' || t.value from ittybit.status as t where t.what = 'starting';
