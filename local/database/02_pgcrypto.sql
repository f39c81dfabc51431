-- pgcrypto in schema extensions: the real one where the server has it, else its hmac() for SHA-256 and its
-- gen_random_bytes(), over functions that PostgreSQL has built in. Left out: everything else of pgcrypto.

do $install$
begin
  if exists (select from pg_available_extensions where name = 'pgcrypto') then
    create extension pgcrypto with schema extensions;
    return;
  end if;

  -- RFC 2104: H(key ^ opad || H(key ^ ipad || data)), with blocks of 64 bytes.
  create function extensions.hmac(data bytea, key bytea, type text) returns bytea
    language plpgsql immutable strict parallel safe
    set search_path = ''
  as $$
  declare
    inner_key bytea := decode(repeat('36', 64), 'hex');
    outer_key bytea := decode(repeat('5c', 64), 'hex');
  begin
    if lower(type) <> 'sha256' then
      raise exception 'Cannot use "%": No such hash algorithm', type using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(key) > 64 then
      key := sha256(key);
    end if;
    for i in 0 .. octet_length(key) - 1 loop
      inner_key := set_byte(inner_key, i, get_byte(key, i) # 54);
      outer_key := set_byte(outer_key, i, get_byte(key, i) # 92);
    end loop;
    return sha256(outer_key || sha256(inner_key || data));
  end
  $$;

  create function extensions.hmac(data text, key text, type text) returns bytea
    language sql immutable strict parallel safe
    set search_path = ''
  as $$
    select extensions.hmac(convert_to(data, 'UTF8'), convert_to(key, 'UTF8'), type)
  $$;

  -- The strong random bits in a version 4 uuid are 122; hashing two of them leaves no fixed ones in 32 bytes.
  create function extensions.gen_random_bytes(count integer) returns bytea
    language plpgsql volatile strict
    set search_path = ''
  as $$
  declare
    bytes bytea := '';
  begin
    if count not between 1 and 1024 then
      raise exception 'Length not in range' using errcode = 'external_routine_invocation_exception';
    end if;
    while octet_length(bytes) < count loop
      bytes := bytes || sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    end loop;
    return substr(bytes, 1, count);
  end
  $$;
end
$install$;

grant execute on all routines in schema extensions to postgres, anon, authenticated, service_role;
