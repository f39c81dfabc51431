from __future__ import annotations

import httpx
import pytest

from tests.local.storage_server.conftest import Site


@pytest.mark.usefixtures("own_folder")
def test_a_user_writes_and_reads_where_a_policy_allows(site: Site, user: tuple[httpx.Client, str], bucket: str) -> None:
    client, sub = user
    client.post(f"/object/{bucket}/{sub}/a", content=b"mine").raise_for_status()
    (trial, real) = site.fires()
    assert (trial["role"], trial["committed"]) == ("authenticated", False)
    assert (real["role"], real["committed"]) == ("service_role", True)
    (row,) = site.rows()
    assert (row["rec"]["owner"], row["rec"]["owner_id"]) == (sub, sub)
    assert client.get(f"/object/{bucket}/{sub}/a").content == b"mine"
    assert client.delete(f"/object/{bucket}/{sub}/a").status_code == 200


@pytest.mark.usefixtures("own_folder")
def test_a_user_is_refused_before_a_byte_is_stored(
    site: Site, client: httpx.Client, user: tuple[httpx.Client, str], bucket: str
) -> None:
    theirs, _ = user
    refused = theirs.post(f"/object/{bucket}/another/a", content=b"x")
    assert refused.status_code == 400
    assert refused.json() == {
        "statusCode": "403",
        "error": "Unauthorized",
        "code": "AccessDenied",
        "message": "new row violates row-level security policy",
    }
    assert site.stored_files() == []
    client.post(f"/object/{bucket}/another/a", content=b"x").raise_for_status()
    for hidden in (theirs.get(f"/object/{bucket}/another/a"), theirs.delete(f"/object/{bucket}/another/a")):
        assert (hidden.status_code, hidden.json()["code"]) == (400, "NoSuchKey")
    signed = theirs.post(f"/object/sign/{bucket}", json={"expiresIn": 9, "paths": ["another/a"]}).json()
    assert signed[0]["signedURL"] is None


@pytest.mark.usefixtures("own_folder")
def test_an_overwrite_with_the_service_key_keeps_the_owner(
    site: Site, client: httpx.Client, user: tuple[httpx.Client, str], bucket: str
) -> None:
    theirs, sub = user
    theirs.post(f"/object/{bucket}/{sub}/a", content=b"x").raise_for_status()
    client.put(f"/object/{bucket}/{sub}/a", content=b"y").raise_for_status()
    assert [row["rec"]["owner_id"] for row in site.rows()] == [sub, sub]


@pytest.mark.usefixtures("own_folder")
def test_a_trigger_of_the_committed_write_sees_no_user(site: Site, user: tuple[httpx.Client, str], bucket: str) -> None:
    theirs, sub = user
    site.sql("""
        create table public.uids (uid uuid);
        create function public.note_uid() returns trigger language plpgsql security definer set search_path = '' as
          $$ begin insert into public.uids values (auth.uid()); return null; end $$;
        create trigger note_uid after insert on storage.objects for each row execute function public.note_uid()
    """)
    try:
        theirs.post(f"/object/{bucket}/{sub}/a", content=b"x").raise_for_status()
        assert site.sql("select uid from public.uids") == [(None,)]
    finally:
        site.sql("drop function public.note_uid cascade; drop table public.uids")


def test_rows_cannot_be_deleted_with_sql(site: Site, client: httpx.Client, bucket: str) -> None:
    client.post(f"/object/{bucket}/a", content=b"x").raise_for_status()
    with pytest.raises(Exception, match="Direct deletion from storage tables is not allowed"):
        site.sql("delete from storage.objects")
