"""AWS Signature Version 4, checked: in the Authorization header, or in the query of a presigned URL.

After the AWS documents "Signature Calculations for the Authorization Header" and "Authenticating Requests:
Using Query Parameters". Like storage-api v1.70.6 for one project it takes the payload's hash as the client states
it, and does not compare the request's date with the clock, except for a presigned URL's expiry. A hosted server says
``InvalidAccessKeyId`` of a key that it does not know. Leaves out session tokens.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from werkzeug.wrappers import Request

from local.storage_server.errors import StorageError, access_denied
from local.storage_server.s3_access import S3Access

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_ANY_REGION: Final = ("auto", "us-east-1", "")
_TIMESTAMP: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class _Claim:
    """The parts that the client says it has signed, and its signature."""

    access_key_id: str
    scope: str
    headers: list[str]
    timestamp: str
    payload: str
    signature: str


class Verifier:
    """Checks requests against the project's keys."""

    def __init__(self, access: S3Access, clock: Callable[[], datetime]) -> None:
        self._access = access
        self._clock = clock

    def verify(self, request: Request) -> None:
        """Do nothing if the request is signed with one of the keys.

        Raises:
            StorageError: ``AccessDenied`` (no signature, an unknown key, or a region that is not the enforced one),
                ``InvalidSignature`` (not of the documented form), ``ExpiredToken`` or ``SignatureDoesNotMatch`` (also
                of another region).
        """
        claim = self._claim(request)
        secret = self._access.keys.get(claim.access_key_id)
        if secret is None:
            raise access_denied("Invalid Access Key")
        region = claim.scope.split("/")[1]
        if self._access.enforce_region and region != self._access.region:
            raise access_denied("Invalid Region")
        taken = region in {*_ANY_REGION, self._access.region}
        if not taken or not hmac.compare_digest(_signature(request, claim, secret).encode(), claim.signature.encode()):
            text = (
                "The request signature we calculated does not match the signature you provided. "
                "Check your key and signing method."
            )
            raise StorageError(403, "SignatureDoesNotMatch", text)

    def _claim(self, request: Request) -> _Claim:
        if header := request.headers.get("Authorization"):
            algorithm, _, rest = header.partition(" ")
            fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
            payload = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
            return _claim(fields | {"Algorithm": algorithm, "Date": request.headers.get("x-amz-date", "")}, payload)
        if "X-Amz-Credential" in request.args:
            query = {name.removeprefix("X-Amz-"): value for name, value in request.args.items()}
            self._check_expiry(query)
            return _claim(query, query.get("Content-Sha256", "UNSIGNED-PAYLOAD"))
        raise access_denied("Missing signature")

    def _check_expiry(self, query: Mapping[str, str]) -> None:
        try:
            signed = datetime.strptime(query["Date"], _TIMESTAMP).replace(tzinfo=UTC)
            ends = signed + timedelta(seconds=int(query["Expires"]))
        except (KeyError, ValueError) as error:
            raise _malformed() from error
        if ends < self._clock():
            raise StorageError(400, "ExpiredToken", "The provided token has expired.")


def _signature(request: Request, claim: _Claim, secret: str) -> str:
    hashed = hashlib.sha256(_canonical(request, claim).encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in claim.scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join([_ALGORITHM, claim.timestamp, claim.scope, hashed])
    return hmac.digest(key, text.encode(), "sha256").hex()


def _claim(fields: Mapping[str, str], payload: str) -> _Claim:
    try:
        access_key_id, _, scope = fields["Credential"].partition("/")
        headers = fields["SignedHeaders"].split(";")
        claim = _Claim(access_key_id, scope, headers, fields["Date"], payload, fields["Signature"])
    except KeyError as error:
        raise _malformed() from error
    if fields.get("Algorithm") != _ALGORITHM or not claim.timestamp or scope.count("/") != 3:
        raise _malformed()
    return claim


def _malformed() -> StorageError:
    return StorageError(400, "InvalidSignature", "Invalid signature format")


def _canonical(request: Request, claim: _Claim) -> str:
    url = urlsplit(request.environ["RAW_URI"])
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(url.query, keep_blank_values=True)
        if name != "X-Amz-Signature"
    )
    headers = [f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in sorted(claim.headers)]
    parts = [request.method, url.path, "&".join("=".join(pair) for pair in query)]
    return "\n".join([*parts, "".join(headers), ";".join(sorted(claim.headers)), claim.payload])
