-- Schema ittybit: which object is processed, and how.
--
-- A rule is data, edited in Studio or by SQL. This file holds the rules, what their patterns mean, and the checks that
-- refuse a rule which could never work. Like every file it can run twice, and closes what it makes to the API's roles.
--
-- Names mean the same whatever else the project holds. Names without a schema are PostgreSQL's own, when a body is
-- bound as it is made and when it is run. Types that are no keywords are written with pg_catalog inside functions,
-- where a session's temporary types would come before them.
set search_path = '';

create schema if not exists ittybit;
comment on schema ittybit is 'Supabase Storage x ittybit: rules, the ledger of jobs, and wake-ups.';
revoke all on schema ittybit from public, anon, authenticated, service_role;

-- Close the whole schema to the API's roles. It locks no table whose row level security is on: uploads go on.
create or replace function ittybit.close_schema()
returns void language plpgsql set search_path = '' as $$
declare relation pg_catalog.regclass;
begin
  for relation in
    select c.oid from pg_catalog.pg_class as c
    where c.relnamespace = 'ittybit'::pg_catalog.regnamespace and c.relkind = 'r' and not c.relrowsecurity
  loop
    execute format('alter table %s enable row level security', relation);
  end loop;
  revoke all on all tables in schema ittybit from public, anon, authenticated, service_role;
  revoke all on all sequences in schema ittybit from public, anon, authenticated, service_role;
  revoke execute on all functions in schema ittybit from public, anon, authenticated, service_role;
end $$;

-- Patterns ------------------------------------------------------------------------------------------------------------
-- The regular expression of a path glob: `*` stops at `/`, `**` does not, nothing else is special.
create or replace function ittybit.glob_pattern(glob text)
returns text language sql immutable strict parallel safe set search_path = '' as $$
  -- Two stars that have become two of these are told from what the glob says itself: its brackets are escaped.
  select '^' || replace(
    replace(regexp_replace(glob, '[][\\.^$+?(){}|]', '\\\&', 'g'), '*', '[^/]*'), '[^/]*[^/]*', '.*'
  ) || '$';
$$;

-- The regular expression of a media type such as `video/*`; parameters after `;` are not part of the type. Only ASCII
-- has upper and lower case here, whatever the database's locale says.
create or replace function ittybit.mimetype_pattern(mimetype text)
returns text language sql immutable strict parallel safe set search_path = '' as $$
  select '^'
    || replace(regexp_replace(lower(mimetype collate "C"), '[][\\.^$+?(){}|]', '\\\&', 'g'), '*', '[^/; ]+')
    || ' *(;.*)?$';
$$;

-- What a glob, of a path or of a media type, lets through by LIKE: all that it matches, and more where it has a single
-- `*`. LIKE costs a tenth of a regular expression, and compiles nothing: a session keeps only 32 compiled ones.
create or replace function ittybit.glob_like(glob text)
returns text language sql immutable strict parallel safe set search_path = '' as $$
  select regexp_replace(regexp_replace(glob, '[\\%_]', '\\\&', 'g'), '\*+', '%', 'g');
$$;

-- Whether Supabase Storage accepts the key (isValidKey in storage-api) and no part of it climbs or is empty.
create or replace function ittybit.is_safe_key(key text)
returns boolean language plpgsql immutable strict parallel safe set search_path = '' as $$ begin
  return length(key) between 1 and 1024
    and key ~ '^[A-Za-z0-9_/!.*''() &$@=;:+,?-]+$' and key !~ '(^/|//|(^|/)\.\.?(/|$))';
end $$;

-- The address a template gives for one object, or null when the object has no place there: an owner is missing, or the
-- key would not be a safe one. Each placeholder is replaced once: a name that looks like a template stays a name.
create or replace function ittybit.render_destination(template text, name text, version text, owner_id text)
returns text language plpgsql immutable parallel safe set search_path = '' as $$
declare
  dir constant pg_catalog.text := coalesce(substring(name from '^.*/'), '');
  base constant pg_catalog.text := substr(name, length(dir) + 1);
  piece pg_catalog.text; address pg_catalog.text := '';
begin
  foreach piece in array regexp_split_to_array(template, '(?={)|(?<=})') loop
    address := address || case piece
      when '{dir}' then dir
      when '{stem}' then regexp_replace(base, '(.)\.[^.]*$', '\1')
      when '{ext}' then coalesce(substring(base from '.\.([^.]*)$'), '')
      when '{name}' then name
      when '{version}' then version
      when '{owner_id}' then case when owner_id ~ '^[A-Za-z0-9_-]+$' then owner_id end
      else piece
    end;
  end loop;
  return case when ittybit.is_safe_key(substring(address from '^s3://[^/]+/(.*[^/])$')) then address end;
end $$;

-- Rules ---------------------------------------------------------------------------------------------------------------
create table if not exists ittybit.rules (
  name text primary key check (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$'),
  bucket_id text not null check (bucket_id <> ''),
  path text not null default '**' check (path <> ''),
  mimetype text check (mimetype ~ '^[^/ ]+/[^/ ]+$'),
  min_size bigint check (min_size >= 0), max_size bigint check (max_size >= coalesce(min_size, 0)),
  accept_s3 boolean not null default false, enabled boolean not null default true,
  delete_results boolean not null default false,
  active_since timestamptz not null default now(),
  output_prefix text check (output_prefix ~ '^[^/].*/$'),
  automation_id text check (automation_id ~ '^[A-Za-z0-9_-]{1,128}$'),
  task jsonb,
  function text not null generated always as (case when task ? 'destination' then 'push-back' else 'on-upload' end) stored,
  path_pattern text not null generated always as (ittybit.glob_pattern(path)) stored,
  path_like text not null generated always as (ittybit.glob_like(path)) stored,
  mimetype_pattern text generated always as (ittybit.mimetype_pattern(mimetype)) stored,
  mimetype_like text generated always as (ittybit.glob_like(lower(mimetype collate "C")) || '%') stored,
  constraint one_action check (num_nonnulls(automation_id, task) = 1)
);
comment on table ittybit.rules is 'Which object starts what. An edit concerns later uploads: a job keeps its own copy.';
comment on column ittybit.rules.path is 'Glob over the whole key: * stops at /, ** does not, nothing else is special.';
comment on column ittybit.rules.mimetype is 'Such as video/* or image/png; null for any. The uploader claims the type.';
comment on column ittybit.rules.accept_s3 is 'Whether uploads through the S3 protocol count: ittybit writes that way.';
comment on column ittybit.rules.delete_results is 'Whether what ittybit wrote is deleted when its source is deleted.';
comment on column ittybit.rules.active_since is 'Only content newer than this is bought without being asked.';
comment on column ittybit.rules.output_prefix is 'Where an automation that uploads by itself writes. Starts nothing.';
comment on column ittybit.rules.task is
  'The ittybit task to make: {"kind", "options"} by on-upload, its result staying at ittybit; or with "destination": '
  '"s3://bucket/key" by push-back, where the key may use {dir} {stem} {ext} {name} {version} {owner_id}.';

-- Whether an object of the rule's bucket is one that the rule is for. It is bound to its operators as it is made
-- instead of by a search_path of its own, so that it is inlined where it is asked of many. No key is longer than S3
-- lets it be: that bounds what a name costs an upload.
create or replace function ittybit.fits(rule ittybit.rules, name text, metadata jsonb)
returns boolean language sql immutable parallel safe
return length(name) <= 1024
  and name like (rule).path_like
  and ((rule).mimetype_like is null or lower((metadata ->> 'mimetype') collate "C") like (rule).mimetype_like)
  and name ~ (rule).path_pattern
  and ((rule).mimetype_pattern is null or lower((metadata ->> 'mimetype') collate "C") ~ (rule).mimetype_pattern)
  and ((rule).min_size is null or (metadata ->> 'size')::bigint >= (rule).min_size)
  and ((rule).max_size is null or (metadata ->> 'size')::bigint <= (rule).max_size);

-- Whether two rules' destinations can be one key, of whatever objects. They are tried with objects in the root, in a
-- folder, and in the folders that the rules name: of a/b/ also b/, as a/ may be in the other rule's words.
create or replace function ittybit.can_meet(path text, destination text, other_path text, other_destination text)
returns boolean language sql immutable set search_path = '' as $$
  with sample as (
    select f.folder || b.base as name
    from (
      values ('') union values ('folder/') union
      select substr(part, place)
      from unnest(array[
        substring(path from '^([^*]*/)'), substring(other_path from '^([^*]*/)'),
        substring(destination from '^s3://[^/]+/([^{]*/)'), substring(other_destination from '^s3://[^/]+/([^{]*/)')
      ]) as part
      cross join lateral generate_series(1, length(part)) as place
      where place = 1 or substr(part, place - 1, 1) = '/'
    ) as f (folder)
    cross join (values ('stem'), ('stem.ext'), ('stem.mp4')) as b (base)
  )
  select exists (
    select from sample as mine
    join sample as theirs
      on ittybit.render_destination(destination, mine.name, 'version', 'owner')
        = ittybit.render_destination(other_destination, theirs.name, 'version', 'owner')
    where mine.name ~ ittybit.glob_pattern(path) and theirs.name ~ ittybit.glob_pattern(other_path)
  );
$$;

-- Refuse a task that could never work, and let active_since follow what the rule newly reaches.
create or replace function ittybit.check_rule()
returns trigger language plpgsql security definer set search_path = '' as $$
declare
  task constant pg_catalog.jsonb := case when jsonb_typeof(new.task) = 'object' then new.task end;
  destination constant pg_catalog.text := task ->> 'destination';
  unknown_fields constant pg_catalog.text := (
    select string_agg(f, ', ') from jsonb_object_keys(task) as f where f not in ('kind', 'options', 'destination')
  );
  unknown_placeholders constant pg_catalog.text := (
    select string_agg(p.m[1], ', ') from regexp_matches(destination, '\{[^}]*\}?', 'g') as p (m)
    where p.m[1] not in ('{dir}', '{stem}', '{ext}', '{name}', '{version}', '{owner_id}')
  );
  -- What is wrong, and a hint.
  fault pg_catalog.text[]; rival pg_catalog.text;
begin
  -- A glob too complex for a pattern must not be found out by an upload.
  perform '' ~ ittybit.glob_pattern(new.path);

  fault := case
    when new.delete_results and destination is null then array[
      'delete_results is for results in the project, and this rule writes none there',
      'Give the task a destination, or leave delete_results out.'
    ]
    when new.task is null then null
    when task is null
      then array['task must be an object {"kind", "options", "destination"}', 'Write JSON, not text in JSON.']
    when unknown_fields is not null
      then array['task has unknown fields: ' || unknown_fields, 'A task has kind, options and destination.']
    when jsonb_typeof(task -> 'kind') is distinct from 'string' or task ->> 'kind' !~ '^[a-z_]{1,40}$'
      then array['task.kind must be a kind of ittybit task, such as "video"', 'Others are image and audio.']
    when jsonb_typeof(task -> 'options') <> 'object' then array['task.options must be an object', 'Write {} for none.']
    when unknown_placeholders is not null then array[
      'task.destination has unknown placeholders: ' || unknown_placeholders,
      'Known are {dir} {stem} {ext} {name} {version} {owner_id}.'
    ]
    when task ? 'destination' and (
      destination is null
      or destination !~ '^s3://[A-Za-z0-9][A-Za-z0-9._-]{0,99}/.+'
      or ittybit.render_destination(destination, 'dir/stem.ext', 'version', 'owner') is null
    ) then array[
      'task.destination must be s3://bucket/key with a bucket that S3 has a name for and a key that Supabase accepts',
      'For example s3://results/{dir}{stem}.mp4. A bucket has letters, digits, dots, hyphens and underscores.'
    ]
    when replace(destination, '{dir}{stem}.{ext}', '{name}') = 's3://' || new.bucket_id || '/{name}'
      then array['task.destination is the object itself', 'Write under another key, such as processed/{name}.']
    -- The whole folder is reserved, so it must be the object's own.
    when task ->> 'kind' = 'adaptive_video'
      and coalesce(substring(destination from '^s3://[^/]+/(.*)/'), '') !~ '\{(stem|name|version)\}'
    then array[
      'adaptive_video writes many files and needs a folder for each object',
      'For example s3://results/{dir}{stem}/master.m3u8.'
    ]
  end;
  if fault is not null then
    raise exception 'rule "%": %', new.name, fault[1] using errcode = 'invalid_parameter_value', hint = fault[2];
  end if;

  select min(r.name) into rival
  from ittybit.rules as r
  where new.enabled and r.enabled and r.name <> new.name
    and substring(r.task ->> 'destination' from '^s3://[^/]+/') = substring(destination from '^s3://[^/]+/')
    and ittybit.can_meet(new.path, destination, r.path, r.task ->> 'destination');
  if rival is not null then
    raise exception 'rules "%" and "%" can write one key: both would be paid for, and one result lost', new.name, rival
      using errcode = 'invalid_parameter_value', hint = 'Name the results differently, such as {dir}{stem}-720p.mp4.';
  end if;

  if tg_op = 'UPDATE' and (
    (new.enabled and not old.enabled)
    or (new.bucket_id, new.path, new.mimetype, new.min_size, new.max_size, new.accept_s3)
      is distinct from (old.bucket_id, old.path, old.mimetype, old.min_size, old.max_size, old.accept_s3)
  ) then
    new.active_since := now();
  end if;
  return new;
end $$;

create or replace trigger check_rule before insert or update on ittybit.rules
for each row execute function ittybit.check_rule();
select ittybit.close_schema();
reset search_path;
