"""AWS Signature Version 4 in the Authorization header, checked with botocore's own signer.

Like storage-api v1.70.6 for a single project, it does not check the payload's hash, and does not compare the request's
date with the clock. For an unknown key, a hosted server answers ``InvalidAccessKeyId`` instead. Left out: presigned
URLs, session tokens, and clients that sign their ``User-Agent``.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from urllib.parse import parse_qsl

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from werkzeug.wrappers import Request

from local.storage_server.errors import StorageError, access_denied


@dataclass
class S3Access:
    """A project's settings of the S3 protocol: Dashboard > Storage > S3.

    They may be changed while the server runs, as in the Dashboard.

    Attributes:
        keys: The secret of each access key, by the key's id. Each key may do everything.
        region: The project's. Requests signed for ``auto``, ``us-east-1`` or no region are accepted too.
        enabled: Whether the S3 protocol is on.
        enforce_region: Whether to accept only the project's region. Whether hosted projects do this is unknown.
    """

    keys: dict[str, str]
    region: str = "local"
    enabled: bool = True
    enforce_region: bool = False


def verify(request: Request, access: S3Access) -> None:
    """Check that the request is signed with one of the keys.

    Raises:
        StorageError: ``AccessDenied`` (no signature, an unknown key, or a region other than the enforced one),
            ``InvalidSignature`` (malformed) or ``SignatureDoesNotMatch`` (also for a region that is not accepted).
    """
    if not (header := request.headers.get("Authorization")):
        raise access_denied("Missing signature")
    algorithm, _, rest = header.partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    timestamp, scope = request.headers.get("x-amz-date", ""), fields.get("Credential", "").split("/")
    if algorithm != "AWS4-HMAC-SHA256" or not timestamp or len(scope) != 5 or "SignedHeaders" not in fields:
        raise StorageError(400, "InvalidSignature", "Invalid signature format")
    key_id, _, region, service, _ = scope
    if (secret := access.keys.get(key_id)) is None:
        raise access_denied("Invalid Access Key")
    if access.enforce_region and region != access.region:
        raise access_denied("Invalid Region")
    signed = {name: request.headers.get(name, "") for name in fields["SignedHeaders"].split(";")}
    path, _, query = request.environ["RAW_URI"].partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    again = AWSRequest(request.method, f"http://{request.host}{path}", signed, params=parameters)
    again.context["timestamp"] = timestamp
    signer = S3SigV4Auth(Credentials(key_id, secret), service, region)
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    taken = region in {"auto", "us-east-1", "", access.region}
    if not taken or not hmac.compare_digest(signature.encode(), fields.get("Signature", "").encode()):
        text = (
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method."
        )
        raise StorageError(403, "SignatureDoesNotMatch", text)
