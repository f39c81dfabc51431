from __future__ import annotations

import base64
import re
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import Settings, load
from tests.functions.calling import NAMES, NOWHERE, Function

SECRET = NOWHERE["FUNCTIONS_SECRET"]


def refusal(**changes: str) -> str:
    """The message with which a function refuses to start in this environment."""
    with pytest.raises(SystemExit) as caught:
        load(NOWHERE | changes)
    assert isinstance(caught.value.code, str)
    return caught.value.code


def test_one_message_names_every_missing_setting() -> None:
    with pytest.raises(SystemExit) as caught:
        load({})
    lines = str(caught.value).splitlines()
    assert lines[0] == "The functions cannot start:"
    missing = ("ITTYBIT_API_KEY", "SUPABASE_URL", "SUPABASE_SECRET_KEY")
    assert sorted(lines[1:]) == sorted(f"  {name} is missing" for name in missing)


@pytest.mark.parametrize("name", NAMES)
def test_no_function_starts_without_its_settings(name: str) -> None:
    with pytest.raises(SystemExit, match="SUPABASE_URL is missing"):
        Function.make(name, NOWHERE, SUPABASE_URL=None)


def test_one_message_names_every_faulty_setting_and_no_secret() -> None:
    bad = {
        "ITTYBIT_API_KEY": "secret value 1",
        "ITTYBIT_API_URL": "ftp://secret-value-2",
        "SUPABASE_URL": "http://secret-value-3.example.com",
        "SUPABASE_SECRET_KEY": "",
        "FUNCTIONS_SECRET": "whsec_secret-value-4",
        "FUNCTIONS_TOKEN": "value-5",
        "SUPABASE_S3_ENDPOINT": "secret-value-6",
        "OUTPUT_PREFIXES": "secret-value-7",
    }
    message = refusal(**bad)
    assert all(f"\n  {name} " in message for name in bad)
    assert message.count("\n") == len(bad)
    assert "value" not in message


@pytest.mark.parametrize(
    "url",
    [
        "https://[secret-value]",
        "https://secret-value\u2100.com",
        "https://user:secret-value@example.com",
        "https://:secret-value@example.com",
        "https://example.com?key=secret-value",
        "https://example.com#secret-value",
        "https://example.com:secret-value",
        "https://example.com:99999",
        "secret-value",
        "https://",
    ],
)
def test_a_malformed_address_is_refused_and_not_repeated(url: str) -> None:
    message = refusal(SUPABASE_URL=url)
    assert "SUPABASE_URL" in message
    assert "secret-value" not in message


@pytest.mark.parametrize("host", ["example.com", "10.0.0.1", "192.168.1.2", "172.17.0.1", "127.0.0.1.example.com"])
def test_plain_http_is_refused_where_others_could_listen(host: str) -> None:
    assert "ITTYBIT_API_URL must be https" in refusal(ITTYBIT_API_URL=f"http://{host}:8000")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost", "kong", "host.docker.internal"])
def test_plain_http_is_accepted_on_this_machine(host: str) -> None:
    assert load(NOWHERE | {"SUPABASE_URL": f"http://{host}:8000/"}).supabase_url == f"http://{host}:8000"


@pytest.mark.parametrize("variable", ["SUPABASE_URL", "SUPABASE_PUBLIC_URL"])
@pytest.mark.parametrize(
    ("url", "put"),
    [
        ("https://abcd.supabase.co/rest/v1", "put https://abcd.supabase.co"),
        ("https://abcd.supabase.co/rest/v1/", "put https://abcd.supabase.co"),
        ("http://kong:8000/storage/v1", "put http://kong:8000"),
        ("https://abcd.storage.supabase.co/storage/v1/s3", "put https://<ref>.supabase.co"),
        ("https://db.abcd.supabase.co", "put https://<ref>.supabase.co"),
        ("https://supabase.com/dashboard/project/abcd", "put https://<ref>.supabase.co"),
    ],
)
def test_an_address_with_more_than_the_project_is_refused_with_the_right_one(variable: str, url: str, put: str) -> None:
    assert re.search(f"\n  {variable} must be .*: {re.escape(put)}$", refusal(**{variable: url}))


def legacy(role: str | None) -> str:
    return jwt.encode({"iss": "supabase", "ref": "abcd", **({"role": role} if role else {})}, "a" * 32)


@pytest.mark.parametrize("key", ["sb_publishable_abcd", legacy("anon"), legacy("authenticated")])
def test_a_key_for_browsers_is_refused_with_the_kind_to_use(key: str) -> None:
    message = refusal(SUPABASE_SECRET_KEY=key)
    assert "SUPABASE_SECRET_KEY must not be a publishable or anon key: put the secret key, sb_secret_…" in message
    assert key not in message


@pytest.mark.parametrize("key", ["sb_secret_abcd", legacy("service_role"), "a.b.c", "no-such-kind"])
def test_any_other_key_is_accepted(key: str) -> None:
    assert load(NOWHERE | {"SUPABASE_SECRET_KEY": key}).supabase_secret_key == key


@pytest.mark.parametrize(
    ("url", "public", "ittybit", "is_out_of_reach"),
    [
        ("http://kong:8000", "", "", True),
        ("http://127.0.0.1:54321", "", "", True),
        ("https://10.0.0.5", "", "", True),
        ("https://supabase.local", "", "", True),
        ("http://host.docker.internal:8000", "", "", True),
        ("http://kong:8000", "https://supabase.example.com", "", False),
        ("http://127.0.0.1:54321", "", "http://127.0.0.1:9", False),
        ("https://abcd.supabase.co", "", "", False),
    ],
)
def test_an_unreachable_address_is_recognised(url: str, public: str, ittybit: str, is_out_of_reach: bool) -> None:
    settings = load(NOWHERE | {"SUPABASE_URL": url, "SUPABASE_PUBLIC_URL": public, "ITTYBIT_API_URL": ittybit})
    assert settings.is_out_of_reach is is_out_of_reach


def test_ittybit_writes_to_the_public_address() -> None:
    inside = {"SUPABASE_URL": "http://kong:8000"}
    public = load(NOWHERE | inside | {"SUPABASE_PUBLIC_URL": "https://supabase.example.com/"})
    assert (public.supabase_url, public.public_url) == ("http://kong:8000", "https://supabase.example.com")
    assert public.s3_endpoint == "https://supabase.example.com/storage/v1/s3"
    hosted = load(NOWHERE | inside | {"SUPABASE_PUBLIC_URL": "https://abcd.supabase.co"})
    assert hosted.s3_endpoint == "https://abcd.storage.supabase.co/storage/v1/s3"


@pytest.mark.parametrize("position", [0, 1])
def test_a_token_that_is_one_of_the_secrets_is_refused(position: int) -> None:
    other = "whsec_" + base64.b64encode(b"another secret of the tests").decode()
    secrets = [other, SECRET] if position else [SECRET, other]
    message = refusal(FUNCTIONS_SECRET=",".join(secrets), FUNCTIONS_TOKEN=SECRET)
    assert "FUNCTIONS_TOKEN must not be the FUNCTIONS_SECRET" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "token",
    [SECRET.removeprefix("whsec_"), NOWHERE["ITTYBIT_API_KEY"], NOWHERE["SUPABASE_SECRET_KEY"], "s3-secret-access-key"],
)
def test_a_token_that_equals_another_key_is_refused(token: str) -> None:
    message = refusal(FUNCTIONS_TOKEN=token, SUPABASE_S3_SECRET_ACCESS_KEY="s3-secret-access-key")
    assert "FUNCTIONS_TOKEN must" in message
    assert token not in message


@pytest.mark.parametrize("key", [b"", b"23 bytes are not enough", b"x" * 65])
def test_a_secret_of_fewer_than_24_or_more_than_64_bytes_is_refused(key: bytes) -> None:
    assert "FUNCTIONS_SECRET must be whsec_" in refusal(FUNCTIONS_SECRET="whsec_" + base64.b64encode(key).decode())


@pytest.mark.parametrize("key", [b"x" * 24, b"x" * 25, b"x" * 64])
def test_a_secret_of_24_to_64_bytes_is_accepted(key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    assert load(NOWHERE | {"FUNCTIONS_SECRET": f" {secret} ,, {SECRET}"}).functions_secret == (secret, SECRET)


@pytest.mark.parametrize("only", [{"WATCH_BUCKET": "media"}, {"ITTYBIT_AUTOMATION_ID": "auto_1"}])
def test_half_of_plain_mode_is_refused(only: dict[str, str]) -> None:
    assert "ITTYBIT_AUTOMATION_ID and WATCH_BUCKET go together" in refusal(**only)


def test_an_empty_variable_counts_as_absent_and_the_default_applies() -> None:
    settings = load(
        NOWHERE | {"ITTYBIT_API_URL": " ", "WATCH_BUCKET": "", "OUTPUT_PREFIXES": "", "FUNCTIONS_TOKEN": ""}
    )
    assert settings.ittybit_api_url == "https://api.ittybit.com"
    assert (settings.watch_bucket, settings.functions_token) == (None, None)
    assert (settings.output_prefixes, settings.destination_buckets) == (("processed/",), ())


def test_lists_are_split_at_commas() -> None:
    settings = load(NOWHERE | {"OUTPUT_PREFIXES": "a/, b/c/", "DESTINATION_BUCKETS": "results,other"})
    assert settings.output_prefixes == ("a/", "b/c/")
    assert settings.destination_buckets == ("results", "other")


@pytest.mark.parametrize("prefix", ["results", "/results/", "a/,b"])
def test_a_prefix_must_be_a_folder(prefix: str) -> None:
    assert "OUTPUT_PREFIXES must end in /" in refusal(OUTPUT_PREFIXES=prefix)


@pytest.mark.parametrize(
    ("url", "reference", "endpoint"),
    [
        ("https://abcd.supabase.co", "abcd", "https://abcd.storage.supabase.co/storage/v1/s3"),
        ("https://ABCD.supabase.co/", "abcd", "https://abcd.storage.supabase.co/storage/v1/s3"),
        ("https://media.example.com", "media-example-com", "https://media.example.com/storage/v1/s3"),
        ("http://127.0.0.1:54321", "127-0-0-1-54321", "http://127.0.0.1:54321/storage/v1/s3"),
        ("https://supabase.co.example.com", "supabase-co-example-com", "https://supabase.co.example.com/storage/v1/s3"),
    ],
)
def test_the_project_s_name_and_s3_endpoint_follow_from_its_address(url: str, reference: str, endpoint: str) -> None:
    settings = load(NOWHERE | {"SUPABASE_URL": url})
    assert (settings.project_ref, settings.s3_endpoint) == (reference, endpoint)


def test_an_s3_endpoint_that_is_set_is_used() -> None:
    settings = load(NOWHERE | {"SUPABASE_S3_ENDPOINT": "https://s3.example.com/storage/v1/s3"})
    assert settings.s3_endpoint == "https://s3.example.com/storage/v1/s3"


def test_a_new_secret_key_goes_into_one_header_and_a_legacy_key_into_two() -> None:
    assert load(NOWHERE | {"SUPABASE_SECRET_KEY": "sb_secret_x"}).supabase_headers == {"apikey": "sb_secret_x"}
    legacy = load(NOWHERE | {"SUPABASE_SECRET_KEY": "eyJhbGciOi.x.y"}).supabase_headers
    assert legacy == {"apikey": "eyJhbGciOi.x.y", "authorization": "Bearer eyJhbGciOi.x.y"}


def test_no_text_form_of_the_settings_has_a_secret() -> None:
    settings = load(NOWHERE | {"SUPABASE_S3_SECRET_ACCESS_KEY": "s3-secret-of-the-tests"})
    assert len(settings.secrets) == 5
    for text in (repr(settings), str(settings), f"{settings}", f"{settings!r}", repr([settings])):
        assert not [secret for secret in settings.secrets if secret in text]


VARIABLES = st.sampled_from([name.upper() for name in Settings.model_fields])


@given(st.dictionaries(VARIABLES, st.text(max_size=30)))
def test_every_environment_is_accepted_or_refused_with_the_message(changes: dict[str, Any]) -> None:
    try:
        settings = load(NOWHERE | changes)
    except SystemExit as refused:
        assert str(refused).startswith("The functions cannot start:\n  ")  # noqa: PT017 - both outcomes are valid
    else:
        assert settings.supabase_url.startswith("http")


def test_a_bucket_that_s3_cannot_name_is_refused_as_a_destination() -> None:
    assert "DESTINATION_BUCKETS" in (said := refusal(DESTINATION_BUCKETS="media,my videos"))
    assert "cannot name bucket 'my videos' in S3" in said
