"""Stored objects: which keys there are, and the https addresses that ittybit reads them from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, Field

from shared.errors import Answered, Error, ServiceError, Skipped, Unanswered
from shared.outbound import Deadline, send
from shared.settings import Settings

# How long a signed address lasts: it must outlive ittybit's queue.
SIGNED_SECONDS = 24 * 3600

# What storage-api accepts in a key (isValidKey); everything else it refuses with 400 InvalidKey.
_IN_A_PART = r"[A-Za-z0-9_!.*'() &$@=;:+,?-]"
_IN_A_KEY = _IN_A_PART.replace("_", "_/")
_KEY = re.compile(f"{_IN_A_KEY}+", re.ASCII)
_CLIMBS = re.compile(r"(?:^|/)\.\.?(?:/|$)")
_DESTINATION = re.compile(r"s3://([^/]+)/(.+)")


def check_key(key: str) -> str:
    """Return a key that Supabase accepts and an address can name; raise ValueError otherwise."""
    if len(key) > 1024 or not _KEY.fullmatch(key):
        raise ValueError("Supabase accepts letters, digits and _/!.*'() &$@=;:+,?- in a key, 1024 at most")
    if _CLIMBS.search(key):
        raise ValueError("a key with a . or .. part cannot be addressed")
    return key


def check_bucket(bucket: str) -> str:
    """Return a bucket's id as it may stand in an address; raise ValueError otherwise."""
    if len(bucket) > 100 or "/" in bucket:
        raise ValueError("a bucket's id has no slash and at most 100 characters")
    return check_key(bucket)


def check_destination(destination: str) -> str:
    """Return an ``s3://bucket/key`` that names one place in a bucket; raise ValueError otherwise."""
    match = _DESTINATION.fullmatch(destination)
    if not match:
        raise ValueError("must be s3://bucket/key")
    check_bucket(match[1])
    key = check_key(match[2])
    if key.startswith("/") or "//" in key:
        raise ValueError("the key starts with a slash or repeats one")
    return destination


# The patterns say the same to a reader of the OpenAPI document.
_UNCLIMBING = r"(?!(.*/)?\.\.?(/|$))"
ObjectKey = Annotated[
    str,
    AfterValidator(check_key),
    Field(json_schema_extra={"pattern": f"^{_UNCLIMBING}{_IN_A_KEY}+$", "maxLength": 1024}),
]
Bucket = Annotated[
    str,
    AfterValidator(check_bucket),
    Field(json_schema_extra={"pattern": f"^{_UNCLIMBING}{_IN_A_PART}+$", "maxLength": 100}),
]
Destination = Annotated[
    str,
    AfterValidator(check_destination),
    Field(
        json_schema_extra={
            "pattern": f"^s3://{_UNCLIMBING}{_IN_A_PART}{{1,100}}/(?!/|.*//){_UNCLIMBING}{_IN_A_KEY}{{1,1024}}$"
        }
    ),
]


def _finite(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse what pydantic reads as JSON and ittybit would not: NaN and the infinities, wherever in it they are."""
    json.dumps(options, allow_nan=False)
    return options


Kind = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
Options = Annotated[dict[str, Any], AfterValidator(_finite)]


def split_destination(destination: str) -> tuple[str, str]:
    """Return the bucket and the key of a checked ``s3://bucket/key``."""
    bucket, _, key = destination.removeprefix("s3://").partition("/")
    return bucket, key


def _path(bucket: str, name: str) -> str:
    """The object's place in an address. Raises Skipped for a key that would lead to another object's."""
    if _CLIMBS.search(name) or bucket in (".", ".."):
        raise Skipped("not_addressable", "A key with a . or .. part cannot be addressed.")
    return f"{quote(bucket, safe='')}/{quote(name, safe='/')}"


def public_address(supabase_url: str, bucket: str, name: str, mark: str) -> str:
    """The address of an object in a public bucket.

    The mark says whose call it is; storage ignores it, and it gets past what a CDN has kept of an older version.
    """
    return f"{supabase_url}/storage/v1/object/public/{_path(bucket, name)}?job={mark}"


def signed_address(settings: Settings, bucket: str, name: str, mark: str, deadline: Deadline) -> str:
    """An address of an object in any bucket, good for 24 hours.

    Raises:
        Skipped: there is no such object, or no such bucket.
        ServiceError: Storage did not sign.
    """
    address = signed_addresses(settings, bucket, {name: mark}, deadline)[name]
    if isinstance(address, Error):
        raise address
    return address


def signed_addresses(
    settings: Settings, bucket: str, marks: Mapping[str, str], deadline: Deadline
) -> dict[str, str | Error]:
    """Addresses of a bucket's objects, good for 24 hours, or why there is none: ``Skipped`` or ``ServiceError``.

    The bulk endpoint signs the raw keys. The single one signs the request's path, which is wrong for a key with ``?``
    (recorded from storage-api v1.70.6).

    Args:
        settings: the environment's.
        bucket: the objects' bucket.
        marks: of each object's key, what its address carries.
        deadline: the invocation's.
    """
    paths: dict[str, str] = {}
    answers: dict[str, str | Error] = {}
    for name in marks:
        try:
            paths[name] = _path(bucket, name)
        except Skipped as skipped:
            answers[name] = skipped
    base = f"{settings.supabase_url}/storage/v1/object/sign"
    try:
        signed = _sign(settings, base, bucket, list(paths), deadline)
    except (Skipped, ServiceError) as error:
        return answers | dict.fromkeys(paths, error)
    for (name, path), url in zip(paths.items(), signed, strict=True):
        if url is None:
            answers[name] = Skipped("gone", f"There is no object {name!r} in bucket {bucket!r}.")
            continue
        _, separator, token = url.rpartition("?token=")  # a key may itself contain "?token="
        answers[name] = (
            f"{base}/{path}?token={token}&job={marks[name]}"
            if separator
            else Unanswered("storage", "the signed address has no token")
        )
    return answers


def _sign(settings: Settings, base: str, bucket: str, names: list[str], deadline: Deadline) -> list[str | None]:
    """Sign all in one call; None for an object that is not there."""
    if not names:
        return []
    try:
        reply = send(
            "storage",
            "POST",
            f"{base}/{quote(bucket, safe='')}",
            deadline=deadline,
            headers=settings.supabase_headers,
            body={"expiresIn": SIGNED_SECONDS, "paths": names},
            repeatable=True,
        )
    except Answered as error:
        if error.status == 404:
            raise Skipped("gone", f"There is no bucket {bucket!r}, or none of its objects.") from None
        raise
    if not isinstance(reply.data, list) or len(reply.data) != len(names):
        raise Unanswered("storage", "the answer to a signing is not a list of the addresses")
    return [_signed_url(item) for item in reply.data]


def _signed_url(answer: Any) -> str | None:
    match answer:
        case {"signedURL": str(url)}:
            return url
        case {"error": str()}:
            return None
    raise Unanswered("storage", "the answer to a signing is not a list of addresses")
