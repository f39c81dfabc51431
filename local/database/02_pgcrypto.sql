-- pgcrypto in schema extensions: the real one if the server has it. Otherwise its hmac() for bytea with SHA-256, made
-- of PostgreSQL's built-in functions; the rest of pgcrypto is left out.

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
end
$install$;

grant execute on all routines in schema extensions to postgres, anon, authenticated, service_role;
