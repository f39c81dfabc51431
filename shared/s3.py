"""The four S3 requests that try a pair of keys. Each is sent once, before the deadline, and to the endpoint alone.

This is the only module that knows obstore. By default obstore takes AWS_… variables and proxies from the environment,
follows redirects, and retries for three minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

import certifi
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from shared.errors import Answered, Unanswered
from shared.http import USER_AGENT, Deadline

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Credential

# The proxy for every host but the endpoint's. Nobody can listen on port 0, so a redirect to another host fails.
_NOWHERE = "127.0.0.1:0"
_REFUSED = re.compile(r"status code: (\d{3})[^:]*: (.*?)(?:\n\nDebug source:|\Z)", re.DOTALL)
_CODES = (re.compile(r'(?:<Code>|"code"\s*:\s*")(\w{1,60})[<"]'), re.compile(r'"error"\s*:\s*"(\w{1,60})"'))
_MESSAGE = re.compile(r'(?:<Message>|"message"\s*:\s*")([^<"]+)')
# A part of obstore's message, and the error's kind, message and doubt. The first that matches counts.
_CAUSES = (
    (f"{_NOWHERE},", "redirect", "it redirects to another host", False),
    ("without LOCATION", "redirect", "it redirects", False),
    ("kind: Timeout", "time_out", "no answer in time", True),
    ("Temporary failure", "unreachable", "could not connect (the name server did not answer)", False),
    ("dns error", "no_such_host", "there is no such host", False),
    ("InvalidCertificate", "no_tls", "its certificate is not valid", False),
    ("InvalidMessage", "no_tls", "it does not speak TLS", False),
    ("kind: Connect", "unreachable", "could not connect", False),
    ("Got invalid", "not_s3", "the answer is not S3's", True),
    ("Unable to extract", "not_s3", "the answer is not S3's", True),
    ("", "no_answer", "the answer broke off", True),
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Keys:
    """S3 keys of a project, and where they are valid.

    Attributes:
        endpoint: as ``shared.settings`` accepts it.
        region: printable ASCII, as the keys.
    """

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Requests to one bucket, with the keys and until the deadline.

    Every method raises ``Answered`` with S3's code as its ``kind``, or ``Unanswered`` with one of ``redirect``,
    ``time_out``, ``unreachable``, ``no_such_host``, ``no_tls``, ``not_s3`` and ``no_answer``.
    """

    keys: Keys
    name: str
    deadline: Deadline

    def list(self, prefix: str) -> None:
        """List the first page of the keys with the prefix."""
        self._call(lambda store: next(obstore.list(store, prefix), None))

    def put(self, key: str, content: bytes, mimetype: str) -> None:
        """Store an object."""
        attributes = {"Content-Type": mimetype}
        self._call(lambda store: obstore.put(store, key, content, attributes=attributes, use_multipart=False))

    def get(self, key: str) -> bytes:
        """Return an object's bytes."""
        return self._call(lambda store: obstore.get(store, key).bytes().to_bytes())

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._call(lambda store: obstore.delete(store, key))

    def _call(self, request: Callable[[S3Store], Result]) -> Result:
        left = self.deadline.left()
        if left == 0:
            raise Unanswered("s3", "no time was left for the call", kind="time_out")
        try:
            # A new client for each request: a client's time-out is fixed, and each request has less time left.
            return request(_store(self.keys, self.name, timedelta(seconds=left)))
        except (BaseError, OSError, ValueError) as error:
            raise _failure(str(error)) from None


def _store(keys: Keys, bucket: str, time: timedelta) -> S3Store:
    """The client, with a value for everything that obstore would otherwise take from the environment."""
    parts = urlsplit(keys.endpoint)
    client: ClientConfig = {
        "allow_http": parts.scheme == "http",
        "timeout": time,
        "connect_timeout": time,
        "user_agent": USER_AGENT,
        "proxy_url": f"http://{_NOWHERE}",
        "proxy_excludes": parts.hostname or "",
    }
    if parts.scheme == "https":
        # The roots that shared/transport.py trusts; a slim image has none.
        client["root_certificate"] = Path(certifi.where()).read_bytes()

    def credential() -> S3Credential:
        return {
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "token": None,
            "expires_at": None,
        }

    return S3Store(
        quote(bucket, safe=""),
        config={
            "endpoint": keys.endpoint,
            "aws_endpoint_url_s3": keys.endpoint,
            "region": keys.region,
            "virtual_hosted_style_request": False,
            "skip_signature": False,
            "unsigned_payload": False,
            "s3_express": False,
            "request_payer": False,
            "disable_bulk_delete": True,
        },
        client_options=client,
        retry_config={"max_retries": 0, "retry_timeout": time},
        # To keys in ``config``, obstore would add a session token from the environment.
        credential_provider=credential,
    )


def _failure(text: str) -> Answered | Unanswered:
    """Make an error of obstore's message, the only thing that it gives (0.12.1; tests check its wording)."""
    if refused := _REFUSED.search(text):
        status, body = int(refused[1]), refused[2]
        code = next((found[1] for code in _CODES if (found := code.search(body))), None)
        message = found[1] if (found := _MESSAGE.search(body)) else f"HTTP {status}"
        return Answered("s3", message, status=status, kind=code, in_doubt=status == 408 or status >= 500)
    _, kind, message, in_doubt = next(cause for cause in _CAUSES if cause[0] in text)
    return Unanswered("s3", message, kind=kind, in_doubt=in_doubt)
