-- Schema ittybit: the rules say which objects are processed, and how.
--
-- A rule is a row that people edit in Studio or with SQL. This file creates their table, translates their patterns, and
-- refuses rules that could never work. Like every file it can run twice, and closes what it creates to the API's roles.
--
-- The search_path is empty, here and in each function: a name without a schema is always PostgreSQL's own. Inside
-- functions, a type whose name is no keyword is written with pg_catalog. Without it, PostgreSQL would look among the
-- session's temporary types first.
set search_path = '';

create schema if not exists ittybit;
comment on schema ittybit is 'Supabase Storage x ittybit: rules, the ledger of jobs, and wake-ups.';
revoke all on schema ittybit from public, anon, authenticated, service_role;

-- Close the whole schema to the API's roles. A table that has row level security is not locked, so uploads go on.
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
  -- `**` becomes `[^/]*[^/]*`, and that becomes `.*`. A glob cannot contain that text: its own brackets are escaped.
  select '^' || replace(
    replace(regexp_replace(glob, '[][\\.^$+?(){}|]', '\\\&', 'g'), '*', '[^/]*'), '[^/]*[^/]*', '.*'
  ) || '$';
$$;

-- The regular expression of a media type such as `video/*`. It ignores parameters after `;`. It also ignores the case
-- of ASCII letters, and of those only, in every locale.
create or replace function ittybit.mimetype_pattern(mimetype text)
returns text language sql immutable strict parallel safe set search_path = '' as $$
  select '^'
    || replace(regexp_replace(lower(mimetype collate "C"), '[][\\.^$+?(){}|]', '\\\&', 'g'), '*', '[^/; ]+')
    || ' *(;.*)?$';
$$;

-- The LIKE pattern of a path's or media type's glob. A single `*` matches too much, so a regular expression follows.
-- LIKE costs a tenth of one and compiles nothing: a session keeps only 32 compiled regular expressions.
create or replace function ittybit.glob_like(glob text)
returns text language sql immutable strict parallel safe set search_path = '' as $$
  select regexp_replace(regexp_replace(glob, '[\\%_]', '\\\&', 'g'), '\*+', '%', 'g');
$$;

-- Whether Supabase Storage accepts the key (isValidKey in storage-api), no part is `.`, `..` or, before a `/`, empty.
create or replace function ittybit.is_safe_key(key text)
returns boolean language plpgsql immutable strict parallel safe set search_path = '' as $$ begin
  return length(key) between 1 and 1024
    and key ~ '^[A-Za-z0-9_/!.*''() &$@=;:+,?-]+$' and key !~ '(^/|//|(^|/)\.\.?(/|$))';
end $$;

-- Fill in a template for one object and return the address. Null when a placeholder has no value or the key is not
-- safe. Each placeholder is replaced once: a value that looks like a placeholder stays as it is.
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

-- The steps of an action; a task is one step. `place` is where the step is. For a step that writes a result, `field` is
-- where its address is, and `maker` is the step that makes the result, or null when the object itself is uploaded.
create or replace function ittybit.steps(task jsonb, run jsonb)
returns table (place text[], step jsonb, field text[], address text, maker jsonb)
language plpgsql immutable parallel safe rows 3 set search_path = '' as $$ begin
  if task is not null then
    place := '{task}'; step := task; maker := task; address := task ->> 'destination';
    field := case when task ? 'destination' then '{task,destination}'::pg_catalog.text[] end;
    return next;
  end if;
  if task is not null or run is null then return; end if;
  return query
  with recursive walk (place, step, maker) as (
    select array['run', 'tasks', (t.number - 1)::pg_catalog.text], t.step, null::pg_catalog.jsonb
    from jsonb_array_elements(jsonb_path_query_array(run, '$.tasks[*]')) with ordinality as t (step, number)
    union all
    select w.place || array['next', (t.number - 1)::pg_catalog.text], t.step, w.step
    from walk as w
    cross join jsonb_array_elements(jsonb_path_query_array(w.step, '$.next[*]')) with ordinality as t (step, number)
  )
  select w.place, w.step, case when u.field is not null then w.place || u.field end, w.step #>> u.field, w.maker
  from walk as w
  left join (values ('{options,url}'::pg_catalog.text[])) as u (field) on w.step ->> 'kind' = 'upload';
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
  task jsonb, run jsonb,
  function text not null generated always as (
    case when run is not null or task ? 'destination' then 'push-back' else 'on-upload' end
  ) stored,
  path_pattern text not null generated always as (ittybit.glob_pattern(path)) stored,
  path_like text not null generated always as (ittybit.glob_like(path)) stored,
  mimetype_pattern text generated always as (ittybit.mimetype_pattern(mimetype)) stored,
  mimetype_like text generated always as (ittybit.glob_like(lower(mimetype collate "C")) || '%') stored,
  constraint one_action check (num_nonnulls(automation_id, task, run) = 1)
);
comment on table ittybit.rules is 'Which objects are processed, and how. An edit applies to later uploads.';
comment on column ittybit.rules.path is 'Glob over the whole key: * stops at /, ** does not, nothing else is special.';
comment on column ittybit.rules.mimetype is 'Such as video/* or image/png; null for any. The uploader sets the type.';
comment on column ittybit.rules.accept_s3 is 'Whether uploads through S3 are processed; ittybit writes that way.';
comment on column ittybit.rules.delete_results is 'Whether results are deleted when their object is deleted.';
comment on column ittybit.rules.active_since is 'Only content stored after this is processed automatically.';
comment on column ittybit.rules.output_prefix is 'Where an automation uploads by itself: objects there are results.';
comment on column ittybit.rules.task is
  'The ittybit task to make. on-upload makes {"kind", "options"}, and the result stays at ittybit. push-back makes one '
  'with "destination": "s3://bucket/key". The key may use {dir} {stem} {ext} {name} {version} {owner_id}.';
comment on column ittybit.rules.run is
  'The ittybit run that push-back makes: {"tasks": [{"kind", "options", "next": […]}]}. Uploads write to options.url.';

-- Whether a rule matches an object of its bucket. PostgreSQL resolves its operators at its creation, so it needs no
-- search_path, and queries inline it. Keys over 1,024 characters, S3's limit, never match: that bounds uploads' cost.
create or replace function ittybit.fits(rule ittybit.rules, name text, metadata jsonb)
returns boolean language sql immutable parallel safe
return length(name) <= 1024
  and name like (rule).path_like
  and ((rule).mimetype_like is null or lower((metadata ->> 'mimetype') collate "C") like (rule).mimetype_like)
  and name ~ (rule).path_pattern
  and ((rule).mimetype_pattern is null or lower((metadata ->> 'mimetype') collate "C") ~ (rule).mimetype_pattern)
  and ((rule).min_size is null or (metadata ->> 'size')::bigint >= (rule).min_size)
  and ((rule).max_size is null or (metadata ->> 'size')::bigint <= (rule).max_size);

-- Whether two rules can write the same key, for any two objects. It tries objects in the root, in a folder, and in the
-- folders that the rules name. For a/b/ it also tries b/, because the other rule's destination may add the a/.
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

-- Refuse a rule that could never work. Set active_since when the rule begins to match other objects.
create or replace function ittybit.check_rule()
returns trigger language plpgsql security definer set search_path = '' as $$
declare
  part record; written pg_catalog.text[] := '{}';
  -- `at`: the wrong field. `fault`: what is wrong with it, and a hint. `rival`: a rule that can write the same key.
  at pg_catalog.text := case
    when new.delete_results and not exists (
      select from ittybit.steps(new.task, new.run) as s where s.address is not null
    ) then 'delete_results' else 'run'
  end;
  fault pg_catalog.text[]; rival pg_catalog.text;
begin
  -- A glob that is too complex for a regular expression fails here, not at an upload.
  perform '' ~ ittybit.glob_pattern(new.path);

  fault := case
    when at = 'delete_results' then array[
      ' is for results in the project, and this rule writes none there',
      'Write a task with a destination or a run with an upload, or leave delete_results out.'
    ]
    when new.run is null then null
    when jsonb_typeof(new.run -> 'tasks') is distinct from 'array'
      or new.run <> jsonb_build_object('tasks', new.run -> 'tasks')
    then array[' must be {"tasks": [{"kind", "options", "next"}]}', 'Write JSON, not text in JSON.']
    when (select count(*) from ittybit.steps(null, new.run)) not between 1 and 64
      then array['.tasks must be 1 to 64 steps', 'Those in next count as well.']
  end;

  for part in
    select s.*, s.place[1] = 'run' and s.field is not null as is_upload, (case
      when s.place[1] = 'task' then '{kind,options,destination}'
      when s.field is not null then '{kind,options}' else '{kind,options,next}'
    end)::pg_catalog.text[] as known, replace(s.address, '{dir}{stem}.{ext}', '{name}') as plain, (
      select string_agg(p.m[1], ', ') from regexp_matches(s.address, '\{[^}]*\}?', 'g') as p (m)
      where p.m[1] not in ('{dir}', '{stem}', '{ext}', '{name}', '{version}', '{owner_id}')
    ) as unknown_placeholders
    from ittybit.steps(new.task, new.run) as s
  loop
    exit when fault is not null;
    at := array_to_string(part.place, '.');
    fault := case
      when jsonb_typeof(part.step) <> 'object' then array[' must be an object', 'Write JSON, not text in JSON.']
      when part.step - part.known <> '{}' then array[' has unknown fields: ' || (
        select string_agg(f, ', ') from jsonb_object_keys(part.step - part.known) as f
      ), 'It has ' || array_to_string(part.known, ', ') || '.']
      when jsonb_typeof(part.step -> 'kind') is distinct from 'string' or part.step ->> 'kind' !~ '^[a-z_]{1,40}$'
        then array['.kind must be a kind of ittybit task, such as "video"', 'Others are image and audio.']
      when jsonb_typeof(part.step -> 'options') <> 'object' then array['.options must be an object', '{} for none.']
      when jsonb_typeof(part.step -> 'next') <> 'array' then array['.next must be an array of steps', 'Such as [].']
      when part.is_upload and ((part.step -> 'options') - '{url,connection_id}'::pg_catalog.text[] <> '{}'
        or (part.step -> 'options' -> 'connection_id')::pg_catalog.text !~ '^"[A-Za-z0-9_-]{1,128}"$')
        then array['.options of an upload must be url, and connection_id for another connection', 'Leave out the rest.']
    end;
    continue when fault is not null or part.field is null;
    at := array_to_string(part.field, '.');
    fault := case
      when part.unknown_placeholders is not null then array[' has unknown placeholders: ' || part.unknown_placeholders,
        'Known are {dir} {stem} {ext} {name} {version} {owner_id}.']
      when ittybit.render_destination(coalesce(part.address, ''), 'dir/stem.ext', 'version', 'owner') is null
        or part.address !~ '^s3://[A-Za-z0-9][A-Za-z0-9._-]{0,99}/.+' then array[
        ' must be s3://bucket/key with a bucket name that S3 allows and a key that Supabase accepts',
        'For example s3://results/{dir}{stem}.mp4. A bucket has letters, digits, dots, hyphens and underscores.'
      ]
      when part.plain = 's3://' || new.bucket_id || '/{name}'
        then array[' is the object itself', 'Write under another key, such as processed/{name}.']
      when part.plain = any (written) then array[' is the address of another upload too', 'Name them differently.']
      -- A job reserves the whole folder, so each object needs its own.
      when part.maker ->> 'kind' = 'adaptive_video'
        and coalesce(substring(part.address from '^s3://[^/]+/(.*)/'), '') !~ '\{(stem|name|version)\}'
        then array[' needs a folder for each object: adaptive_video writes many files', 'Such as {dir}{stem}/hls.m3u8.']
    end;
    written := written || part.plain;
  end loop;
  if fault is not null then
    raise exception 'rule "%": %', new.name, at || fault[1] using errcode = 'invalid_parameter_value', hint = fault[2];
  end if;

  select min(r.name) into rival
  from ittybit.rules as r
  cross join ittybit.steps(r.task, r.run) as theirs
  join ittybit.steps(new.task, new.run) as mine
    on substring(mine.address from '^s3://[^/]+/') = substring(theirs.address from '^s3://[^/]+/')
  where new.enabled and r.enabled and r.name <> new.name
    and ittybit.can_meet(new.path, mine.address, r.path, theirs.address);
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
