from __future__ import annotations

import secrets
from contextlib import suppress
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared import objects
from shared.errors import Answered, ServiceError, Skipped, Unanswered
from shared.http import Deadline
from shared.settings import Settings, load
from tests.functions.project import Project

LEGAL = "ABCXYZabcxyz0129_!.*'() &$@=;:+,?-"
MARK = "6c2f1f6e-0d6e-4d0e-9f10-c0ffee000000.1"


@pytest.fixture
def supabase(project: Project) -> Settings:
    return load(project.stack.environment)


def fetched(address: str) -> bytes:
    """What a client without a key gets at an address."""
    assert parse_qs(urlsplit(address).query)["job"] == [MARK]
    return httpx.get(address, trust_env=False).raise_for_status().content


def check_both_addresses(project: Project, settings: Settings, key: str) -> None:
    content = secrets.token_bytes(16)
    for bucket in ("open", "private"):
        project.upload(bucket, key, content)
    public = objects.public_address(settings.supabase_url, "open", key, MARK)
    assert fetched(public) == content
    for bucket in ("open", "private"):
        assert fetched(objects.signed_address(settings, bucket, key, MARK, Deadline(5))) == content


def test_a_source_is_signed_internally_and_given_the_public_address(project: Project, supabase: Settings) -> None:
    project.upload("private", "a.mp4", b"a")
    outside = supabase.model_copy(update={"supabase_public_url": "https://supabase.example.com"})
    signed = objects.signed_address(outside, "private", "a.mp4", MARK, Deadline(5))
    assert signed.startswith("https://supabase.example.com/storage/v1/object/sign/private/a.mp4?token=")
    # The same token is valid at the internal address.
    assert fetched(signed.replace(outside.public_url, supabase.supabase_url)) == b"a"


# Legal keys, but without slashes and spaces at the ends, which clients drop, and without the parts `.` and `..`.
PARTS = st.text(LEGAL, max_size=12).map(lambda part: f"x{part}" if part.strip(".") == "" else part)
KEYS = st.tuples(st.just("k"), st.lists(PARTS, max_size=3), st.text(LEGAL, max_size=9)).map(
    lambda key: f"{'/'.join([key[0], *key[1]])}{key[2]}z"
)


@hypothesis_settings(max_examples=25)
@given(key=KEYS)
@example("a?token=b.mp4")
@example("a?job=b&token=c?token=d")
@example("a//b///c")
@example("a_b!c*d'e(f)g &h$i@j=k;l:m+n,o?p-q.mp4")
@example("...")
@example("a+b c&d=e")
def test_the_address_of_every_legal_key_fetches_its_object(project: Project, supabase: Settings, key: str) -> None:
    assert objects.check_key(key) == key
    check_both_addresses(project, supabase, key)


def test_a_legacy_key_signs_as_a_new_one_does(project: Project) -> None:
    environment = project.stack.environment | {"SUPABASE_SECRET_KEY": project.stack.keys.service_role_jwt}
    project.upload("private", "legacy.mp4", b"legacy")
    assert fetched(objects.signed_address(load(environment), "private", "legacy.mp4", MARK, Deadline(5))) == b"legacy"


def test_an_address_of_one_object_opens_no_other(project: Project, supabase: Settings) -> None:
    for name in ("mine.mp4", "yours.mp4"):
        project.upload("private", name)
    address = objects.signed_address(supabase, "private", "mine.mp4", MARK, Deadline(5))
    assert httpx.get(address.replace("mine", "yours"), trust_env=False).status_code == 400


@pytest.mark.parametrize(("bucket", "name"), [("private", "not-there.mp4"), ("no-such-bucket", "a.mp4")])
def test_an_object_that_is_gone_is_skipped(supabase: Settings, bucket: str, name: str) -> None:
    with pytest.raises(Skipped) as caught:
        objects.signed_address(supabase, bucket, name, MARK, Deadline(5))
    assert caught.value.reason == "gone"
    assert caught.value.detail
    assert bucket in caught.value.detail


def test_a_404_in_storages_error_body_is_skipped_as_well(project: Project, supabase: Settings) -> None:
    body = {"statusCode": "404", "error": "Bucket not found", "message": "Bucket not found"}
    project.stack.supabase.add("POST", "/storage/.*", status=400, body=body)
    with pytest.raises(Skipped, match="no bucket"):
        objects.signed_address(supabase, "private", "a.mp4", MARK, Deadline(5))


def test_storages_status_is_the_one_in_the_body_and_not_http_400(project: Project, supabase: Settings) -> None:
    body = {"statusCode": "500", "error": "Internal", "message": "Database timed out"}
    project.stack.supabase.add("POST", "/storage/.*", status=400, body=body, times=3)
    with pytest.raises(Answered) as caught:
        objects.signed_address(supabase, "private", "a.mp4", MARK, Deadline(5))
    assert (caught.value.status, caught.value.effect) == (500, "retry")


@pytest.mark.parametrize(
    "body", [{}, {"message": "no Route matched with those values"}, {"statusCode": 404}], ids=["none", "Kong's", "half"]
)
def test_a_gateways_404_counts_as_no_answer(project: Project, supabase: Settings, body: dict[str, object]) -> None:
    project.stack.supabase.add("POST", "/storage/.*", status=404, body=body, times=3)
    with pytest.raises(Unanswered, match="HTTP 404, but not from storage itself"):
        objects.signed_address(supabase, "private", "a.mp4", MARK, Deadline(5))


def test_a_wrong_key_is_retried_and_the_remedy_names_the_setting(project: Project) -> None:
    wrong = load(project.stack.environment | {"SUPABASE_SECRET_KEY": "sb_secret_wrong"})
    with pytest.raises(Answered) as caught:
        objects.signed_address(wrong, "private", "a.mp4", MARK, Deadline(0.3))
    assert (caught.value.service, caught.value.status, caught.value.effect) == ("storage", 401, "retry")
    assert "SUPABASE_SECRET_KEY" in caught.value.remedy


@pytest.mark.parametrize(
    "answer", [{}, {"signedURL": "/x?token=y"}, {"data": []}, {"0": {"signedURL": "/object/sign/private/a"}}]
)
def test_a_malformed_signature_counts_as_no_answer(
    project: Project, supabase: Settings, answer: dict[str, object]
) -> None:
    project.stack.supabase.add("POST", "/storage/.*", times=9, status=200, body=answer)
    with pytest.raises(ServiceError) as caught:
        objects.signed_address(supabase, "private", "a.mp4", MARK, Deadline(1))
    assert caught.value.effect == "retry"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "ä.mp4",
        "a\n.mp4",
        "a\\b",
        'a"b',
        "a#b",
        "a%20b",
        "a~b",
        "a\0",
        "..",
        ".",
        "../a",
        "a/../b",
        "a/.",
        "./a",
        "k" * 1025,
    ],
)
def test_a_key_that_supabase_refuses_or_that_has_dot_parts_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        objects.check_key(key)


@pytest.mark.parametrize("bucket", ["", "a/b", "..", ".", "b" * 101, "ä", "a\n"])
def test_a_bucket_that_cannot_be_part_of_an_address_is_refused(bucket: str) -> None:
    with pytest.raises(ValueError, match=r"key|bucket"):
        objects.check_bucket(bucket)


@pytest.mark.parametrize(
    "destination",
    [
        "",
        "processed/a.mp4",
        "s3://",
        "s3://media",
        "s3://media/",
        "s3:///a",
        "s3://media//a",
        "s3://media/a//b",
        "s3://media/../a",
        "s3://media/processed/../a",
        "s3://../a",
        "s3://media/a/..",
        "S3://media/a",
        "https://media/a",
        " s3://media/a",
        "s3://media/a\n",
        "s3://media/ä",
        "s3://media/a#b",
        "s3://me dia\t/a",
    ],
)
def test_a_destination_that_is_not_one_key_in_a_bucket_is_refused(destination: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's own way for a validator
        objects.check_destination(destination)


@given(
    st.lists(st.sampled_from(["a", "b.c", ".", "..", "...", "", "s3:", " "]), max_size=6).map("/".join), st.booleans()
)
@example("media/a/b", True)
def test_an_accepted_destination_has_no_dot_parts(text: str, whole: bool) -> None:
    destination = f"s3://{text}" if whole else text
    with suppress(ValueError):
        objects.check_destination(destination)
        bucket, key = objects.split_destination(destination)
        assert f"s3://{bucket}/{key}" == destination
        assert not {"", ".", ".."} & {bucket, *key.removesuffix("/").split("/")}


@pytest.mark.parametrize(
    ("bucket", "name"),
    [("..", "a"), (".", "a"), *(("b", name) for name in ("..", "../a", "a/../b", "a/..", "./a", "a/.", "a/./b"))],
)
def test_a_name_that_would_lead_to_another_object_has_no_address(supabase: Settings, bucket: str, name: str) -> None:
    with pytest.raises(Skipped, match="cannot be addressed"):
        objects.public_address(supabase.supabase_url, bucket, name, MARK)
    with pytest.raises(Skipped) as caught:
        objects.signed_address(supabase, bucket, name, MARK, Deadline(5))
    assert caught.value.reason == "not_addressable"


@given(bucket=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), name=st.text(min_size=1))
@example("a", "?token=x&job=y#z")
@example("a", "//evil.example.com/x")
@example("@evil.example.com", ":80/\r\nHost: evil")
@example("a", "{name}%2e%2e/\u2028")
def test_no_name_changes_the_host_or_the_query_of_an_address(bucket: str, name: str) -> None:
    with suppress(Skipped, UnicodeEncodeError):  # no row has a lone surrogate
        address = objects.public_address("https://abcd.supabase.co", bucket, name, MARK)
        parts = urlsplit(address)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == (
            "https",
            "abcd.supabase.co",
            f"job={MARK}",
            "",
        )
        assert unquote(parts.path) == f"/storage/v1/object/public/{bucket}/{name}"
        assert parts.path.removeprefix("/storage/v1/object/public/").partition("/")[0] == quote(bucket, safe="")
        assert address.isascii()
        assert address.isprintable()
