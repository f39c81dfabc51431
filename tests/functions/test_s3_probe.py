from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from werkzeug import Request, Response

from local.functions import ROOT
from local.server import Server
from local.stack import Stack
from shared import __version__
from shared.http import Deadline
from shared.s3 import Keys
from shared.s3_probe import Finding, probe
from tests.functions.calling import NOWHERE
from tests.functions.project import Project
from tests.functions.test_deadline import HEAD, speaker

S3 = "/storage/v1/s3"
PROBES = rf"{S3}/open/\.ittybit/.*"


def ask(endpoint: str, *buckets: str, seconds: float = 8, **changes: str) -> list[Finding]:
    """Try made-up keys at an endpoint."""
    keys = {"region": "local", "access_key_id": "an-id", "secret_access_key": "a-secret-of-tests"} | changes
    return probe(Keys(endpoint, **keys), buckets, Deadline(seconds))


@pytest.fixture
def tried(stack: Stack) -> Callable[..., list[Finding]]:
    """Try the project's own keys in the bucket ``open``."""
    keys = {"access_key_id": stack.keys.s3_access_key_id, "secret_access_key": stack.keys.s3_secret_access_key}
    return lambda seconds=8: ask(f"{stack.supabase_url}{S3}", "open", seconds=seconds, **keys)


def left(stack: Stack) -> list[str]:
    """The names of the probes that are left in the project."""
    return [str(name) for (name,) in stack.sql("select name from storage.objects where name like '.ittybit/%%'")]


@pytest.mark.parametrize(
    ("status", "field", "words"),
    [
        (302, "endpoint", "redirects elsewhere"),
        (400, "endpoint", "not Supabase's S3 (HTTP 400)"),
        (404, "endpoint", "not Supabase's S3 (HTTP 404)"),
        (402, "endpoint", "over its quota, or unpaid"),
        (540, "endpoint", "is paused"),
    ],
)
def test_a_permanent_failure_names_the_field(tried: Any, stack: Stack, status: int, field: str, words: str) -> None:
    for method in ("GET", "PUT"):
        stack.supabase.add(method, f"{S3}/.*", times=9, status=status, body={})
        [finding] = tried()
        stack.supabase.clear()
        assert (finding.field, finding.transient) == (field, False)
        assert words in finding.detail
    assert left(stack) == []


@pytest.mark.parametrize(
    ("status", "kind", "field"),
    [
        (400, "TenantNotFound", "endpoint"),
        (403, "SignatureDoesNotMatch", "secret_access_key"),
        (403, "SomethingNew", "access_key_id"),
        (413, "EntityTooLarge", "buckets"),
    ],
)
def test_a_refusal_is_recognised_by_its_code_and_not_repeated(
    tried: Any, stack: Stack, status: int, kind: str, field: str
) -> None:
    said = {"statusCode": str(status), "error": "Unauthorized", "message": "a-secret-of-tests", "code": kind}
    fault = stack.supabase.add("PUT", f"{S3}/.*", status=status, body=said)
    [finding] = tried()
    assert (fault.seen, finding.field, finding.transient) == (1, field, False)
    assert "a-secret-of-tests" not in finding.detail


def test_a_hosted_projects_code_for_an_unknown_key_is_recognised(tried: Any, stack: Stack) -> None:
    stack.supabase.add("GET", f"{S3}/.*", status=403, body={"code": "InvalidAccessKeyId"})
    [finding] = tried()
    assert finding.field == "access_key_id"


@pytest.mark.parametrize(
    ("answer", "words"),
    [({"status": 429}, "HTTP 429"), ({"status": 500}, "HTTP 500"), ({"drop": "before"}, "the answer broke off")],
)
def test_a_temporary_failure_is_marked_as_such(tried: Any, stack: Stack, answer: dict[str, Any], words: str) -> None:
    fault = stack.supabase.add("GET", f"{S3}/open", times=9, **answer)
    [finding] = tried()
    assert (fault.seen, finding.field, finding.transient) == (1, "endpoint", True)
    assert words in finding.detail


@pytest.mark.parametrize(
    ("endpoint", "words", "transient"),
    [
        ("http://127.0.0.1:9", "could not connect", True),
        ("http://no-such-host.invalid/storage/v1/s3", "there is no such host", False),
        ("http://" + "a" * 70, "there is no such host", False),
    ],
)
def test_an_unreachable_endpoint_is_reported(endpoint: str, words: str, transient: bool) -> None:
    for buckets in ((), ("open",)):
        [finding] = ask(endpoint, *buckets)
        assert (finding.field, finding.transient) == ("endpoint", transient)
        assert words in finding.detail


def test_an_endpoint_without_tls_is_reported(stack: Stack) -> None:
    [finding] = ask(stack.supabase_url.replace("http:", "https:"))
    assert (finding.field, finding.transient) == ("endpoint", False)
    assert "it does not speak TLS" in finding.detail


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"\xff"])
def test_an_endpoint_of_another_service_is_reported(content: bytes) -> None:
    with Server(Response(content)) as server:
        for buckets in ((), ("open",)):
            [finding] = ask(server.origin, *buckets)
            assert (finding.field, finding.transient) == ("endpoint", False)
            assert "not Supabase's S3" in finding.detail


def test_the_probe_is_deleted_when_it_cannot_be_read_back(tried: Any, stack: Stack) -> None:
    stack.supabase.add("GET", PROBES, status=500)
    [finding] = tried()
    assert (finding.transient, "HTTP 500" in finding.detail) == (True, True)
    assert left(stack) == []


def test_the_probe_is_deleted_when_something_else_is_read(tried: Any, stack: Stack) -> None:
    stack.supabase.add(
        "GET", PROBES, status=200, headers={"Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT", "ETag": "e"}
    )
    [finding] = tried()
    assert (finding.field, finding.transient) == ("endpoint", False)
    assert "is not the one written to it" in finding.detail
    assert left(stack) == []


def test_the_probe_is_deleted_when_the_answer_to_the_write_is_lost(tried: Any, stack: Stack) -> None:
    fault = stack.supabase.add("PUT", PROBES, drop="after")
    [finding] = tried()
    assert (fault.seen, finding.transient) == (1, True)
    assert left(stack) == []


def test_there_is_time_to_delete_the_probe_when_reading_hangs(tried: Any, stack: Stack) -> None:
    stack.supabase.add("GET", PROBES, hang=30)
    [finding] = tried(seconds=2)
    assert (finding.transient, "no answer in time" in finding.detail) == (True, True)
    assert left(stack) == []


@pytest.mark.parametrize("pieces", [[HEAD], [HEAD, *[b" "] * 999]])
def test_an_unfinished_answer_is_given_up_at_the_deadline(pieces: list[bytes]) -> None:
    with speaker(*pieces, every=0.3) as origin:
        [finding] = ask(origin, seconds=0.6)
        assert (finding.transient, "no answer in time" in finding.detail) == (True, True)


def test_a_probe_that_is_left_over_is_named(tried: Any, project: Project) -> None:
    stack = project.stack
    stack.supabase.add("DELETE", PROBES, status=403, body={"code": "AccessDenied"})
    [finding] = tried()
    [name] = left(stack)
    assert f"s3://open/{name} may be left over, delete it" in finding.detail
    assert not finding.transient
    assert tried() == []
    assert left(stack) == [name]
    project.remove("open", name)


def test_a_bucket_of_one_type_is_tried_with_that_type(tried: Any, stack: Stack) -> None:
    types = "update storage.buckets set allowed_mime_types = %s where id = 'open'"
    stack.sql(types, (["audio/*"],))
    stack.supabase.requests = []
    assert tried() == []
    stack.sql(types, (None,))
    assert [one.method for one in stack.supabase.requests] == ["GET", "PUT", "PUT", "PUT", "GET", "DELETE"]


def test_without_time_left_no_request_is_sent_and_the_finding_is_temporary(tried: Any, stack: Stack) -> None:
    stack.supabase.requests = []
    [finding] = tried(seconds=0)
    assert (finding.transient, stack.supabase.requests) == (True, [])


def listing(request: Request) -> Response:
    name = urlsplit(request.url).path.rpartition("/")[2]
    return Response(f"<ListBucketResult><Name>{name}</Name><KeyCount>0</KeyCount></ListBucketResult>")


def test_the_probe_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Request] = []

    @Request.application
    def app(request: Request) -> Response:
        seen.append(request)
        return listing(request)

    elsewhere = "http://127.0.0.1:9"
    for name in ("ENDPOINT", "ENDPOINT_URL", "ENDPOINT_URL_S3", "PROXY_URL"):
        monkeypatch.setenv(f"AWS_{name}", elsewhere)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "BUCKET"):
        monkeypatch.setenv(f"AWS_{name}", "of-the-environment")
    for name in ("SKIP_SIGNATURE", "VIRTUAL_HOSTED_STYLE_REQUEST", "S3_EXPRESS", "REQUEST_PAYER", "UNSIGNED_PAYLOAD"):
        monkeypatch.setenv(f"AWS_{name}", "true")
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, elsewhere)
    with Server(app) as server:
        assert ask(f"{server.origin}/s3") == []
    [request] = seen
    assert request.path.startswith("/s3/probe-")
    authorization = request.headers["Authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=an-id/")
    assert authorization.split("/")[2] == "local"
    assert request.headers["User-Agent"] == f"supabase-ittybit/{__version__}"
    amazon = {name.lower(): value for name, value in request.headers if name.lower().startswith("x-amz-")}
    assert amazon.keys() == {"x-amz-date", "x-amz-content-sha256"}
    assert amazon["x-amz-content-sha256"] == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(status: int) -> None:
    seen: list[str] = []

    @Request.application
    def elsewhere(request: Request) -> Response:
        seen.append(request.path)
        return listing(request)

    with Server(elsewhere) as other:
        # The same machine under another name is another host.
        address = other.origin.replace("127.0.0.1", "localhost")

        @Request.application
        def app(request: Request) -> Response:
            return Response(status=status, headers={"Location": f"{address}{request.full_path}"})

        with Server(app) as server:
            for buckets in ((), ("open",)):
                [finding] = ask(server.origin, *buckets)
                assert (finding.field, finding.transient) == ("endpoint", False)
                assert "it redirects elsewhere" in finding.detail
    assert seen == []


def test_the_probe_works_without_root_certificates() -> None:
    code = (
        "from shared.http import Deadline\nfrom shared.s3 import Keys\nfrom shared.s3_probe import probe\n"
        "print(probe(Keys('https://127.0.0.1:9', 'r', 'i', 's'), (), Deadline(5)))"
    )
    bare = {"PATH": os.environ["PATH"], "SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bare, check=True, capture_output=True, text=True)
    assert "could not connect" in done.stdout


def test_only_create_connection_imports_the_s3_client() -> None:
    code = (
        "import runpy, sys\nfor name in ('on_upload', 'push_back', 'create_connection'):\n"
        "    runpy.run_path(f'functions/{name}.py')\n    print('obstore' in sys.modules)"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **NOWHERE}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "False", "True"]
