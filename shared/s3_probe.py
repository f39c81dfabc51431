"""Try S3 keys on the project's buckets: list, write, read back and delete a probe, and say what is wrong."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from shared.errors import Answered, ServiceError
from shared.http import Deadline
from shared.s3 import Bucket, Keys

# Objects in this folder trigger no jobs: the database's triggers and plain mode skip them.
FOLDER = ".ittybit/"
# The other requests leave this much of the deadline for deleting the probe.
DELETING_SECONDS = 1.5
# A bucket may allow only some types. Results have these.
_MIMETYPES = ("video/mp4", "image/jpeg", "audio/mpeg")

Field = Literal["endpoint", "region", "access_key_id", "secret_access_key", "buckets"]

# By the code of a refusal (storage-api: src/internal/errors/codes.ts), the kind of a failure (shared/s3.py), or the
# HTTP status (Supabase: HTTP status codes).
_FINDINGS: dict[str | int | None, tuple[Field, str]] = {
    "InvalidAccessKeyId": (
        "access_key_id",
        "the project has no S3 access key with this id. Dashboard > Storage > S3 lists those it has.",
    ),
    "SignatureDoesNotMatch": (
        "secret_access_key",
        "it does not belong to the access key id, or the region is not the project's. Dashboard > Storage > S3 shows "
        "the region; for a lost secret, make a new key there.",
    ),
    "InvalidRegion": ("region", "it is not the project's. Dashboard > Storage > S3 shows it."),
    "FeatureNotEnabled": ("endpoint", "S3 is not enabled for the project. Switch it on in Dashboard > Storage > S3."),
    "TenantNotFound": ("endpoint", "Supabase has no such project. Check SUPABASE_URL."),
    "NoSuchBucket": ("buckets", "the project has no bucket {bucket!r}."),
    "InvalidMimeType": (
        "buckets",
        f"bucket {{bucket!r}} takes none of {', '.join(_MIMETYPES)}. Widen its allowed MIME types.",
    ),
    "EntityTooLarge": ("buckets", "bucket {bucket!r} takes no object of 50 bytes. Raise its size limit."),
    "redirect": ("endpoint", "it redirects elsewhere, and keys are not sent there. Give the final address."),
    "no_such_host": ("endpoint", "there is no such host. Check SUPABASE_URL, or SUPABASE_S3_ENDPOINT where it is set."),
    "no_tls": ("endpoint", "{cause}. Give an address with a valid certificate."),
    "not_s3": (
        "endpoint",
        "the server there is not Supabase's S3 ({cause}). It is https://<ref>.storage.supabase.co/storage/v1/s3, and "
        "has to be enabled in Dashboard > Storage > S3.",
    ),
    402: ("endpoint", "Supabase has restricted the project: over its quota, or unpaid. The Dashboard says which."),
    540: ("endpoint", "the project is paused. Restore it in the Dashboard."),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        field: what to fix.
        detail: what is wrong with it and how to fix it, for a person; never a key.
        transient: whether the keys may work a moment later.
    """

    field: Field
    detail: str
    transient: bool = False

    @property
    def variable(self) -> str:
        """The field's environment variable."""
        return "DESTINATION_BUCKETS" if self.field == "buckets" else f"SUPABASE_S3_{self.field.upper()}"


def probe(keys: Keys, buckets: Sequence[str], deadline: Deadline) -> list[Finding]:
    """Try the keys and return what is wrong; an empty list means that they work. Nothing is raised.

    A probe of some 50 bytes is written under ``.ittybit/`` in each bucket, in all at once, and deleted again. Without
    buckets, one that does not exist is listed: Storage checks the keys before it looks for the bucket.

    Args:
        keys: their secret is never in a finding.
        buckets: their ids, without duplicates.
        deadline: for all requests, the deletion included.
    """
    name = f"probe-{uuid.uuid4().hex}"
    if not buckets:
        return _list_missing(Bucket(keys, name, deadline))
    with ThreadPoolExecutor(min(32, len(buckets))) as pool:
        found = pool.map(lambda bucket: _probe_bucket(Bucket(keys, bucket, deadline), FOLDER + name), buckets)
        # Wrong keys are wrong in every bucket. One finding is enough.
        return list(dict.fromkeys(finding for findings in found for finding in findings))


def _list_missing(missing: Bucket) -> list[Finding]:
    try:
        missing.list(FOLDER)
    except ServiceError as error:
        return [] if error.kind == "NoSuchBucket" else [_finding(error)]
    return []


def _probe_bucket(bucket: Bucket, key: str) -> list[Finding]:
    """List, write and read back until one fails. A probe that was or may have been written is always deleted."""
    asked = replace(bucket, deadline=bucket.deadline.reserving(DELETING_SECONDS))
    try:
        asked.list(FOLDER)
    except ServiceError as error:
        return [_finding(error, bucket.name)]
    try:
        _write(asked, key)
    except ServiceError as error:
        wrong = [_finding(error, bucket.name)]
        if not error.in_doubt:
            return wrong
    else:
        wrong = _read_back(asked, key)
    return wrong + _delete(bucket, key)


def _write(bucket: Bucket, key: str) -> None:
    for mimetype in _MIMETYPES:
        try:
            return bucket.put(key, key.encode(), mimetype)
        except Answered as error:
            if error.kind != "InvalidMimeType" or mimetype == _MIMETYPES[-1]:
                raise
    raise AssertionError("the last type returns or raises")


def _read_back(bucket: Bucket, key: str) -> list[Finding]:
    try:
        read = bucket.get(key)
    except ServiceError as error:
        return [_finding(error, bucket.name)]
    if read == key.encode():
        return []
    return [Finding("endpoint", f"the probe read from bucket {bucket.name!r} is not the one written to it.")]


def _delete(bucket: Bucket, key: str) -> list[Finding]:
    try:
        bucket.delete(key)
    except ServiceError as error:
        why = _finding(error, bucket.name)
        left = f"the probe s3://{bucket.name}/{key} may be left over, delete it: {why.detail}"
        return [replace(why, detail=left)]
    return []


def _finding(error: ServiceError, bucket: str | None = None) -> Finding:
    """Describe an error. Of S3's answer the description has only the status and the code."""
    cause = error.message if error.status is None else f"HTTP {error.status} {error.kind or ''}".rstrip()
    if known := _FINDINGS.get(error.status) or _FINDINGS.get(_kind(error)):
        return Finding(known[0], known[1].format(bucket=bucket, cause=cause))
    where = f" in bucket {bucket!r}" if bucket else ""
    if error.is_transient:
        return Finding("endpoint", f"S3 did not answer as it should{where}: {cause}.", transient=True)
    return Finding("access_key_id", f"S3 refuses the probe{where}: {cause}.")


def _kind(error: ServiceError) -> str | None:
    """The error's kind. Different errors that share S3's code get different kinds here."""
    if error.kind == "AccessDenied" and error.message == "Invalid Region":
        return "InvalidRegion"
    if error.kind == "AccessDenied" and error.message == "Invalid Access Key":  # a self-hosted project's answer
        return "InvalidAccessKeyId"
    if error.status is not None and 300 <= error.status < 400:
        return "redirect"
    return error.kind if error.kind or error.is_transient else "not_s3"
