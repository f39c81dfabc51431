"""Stored objects: which keys there are, and the https addresses that ittybit reads them from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, Field

from shared.errors import Error, ServiceError, Skipped, Unanswered
from shared.http import Deadline, send
from shared.settings import Settings

# How long a signed address lasts: it must outlive ittybit's queue.
SIGNED_SECONDS = 24 * 3600

# What storage-api accepts in a key (isValidKey); everything else it refuses with 400 InvalidKey.
_IN_A_PART = r"[A-Za-z0-9_!.*'() &$@=;:+,?-]"
_IN_A_KEY = _IN_A_PART.replace("_", "_/")
_KEY = re.compile(f"{_IN_A_KEY}{{1,1024}}", re.ASCII)
_CLIMBS = re.compile(r"(?:^|/)\.\.?(?:/|$)")
_DESTINATION = re.compile(r"s3://([^/]+)/(.+)")


def check_key(key: str) -> str:
    """Return a key that Supabase accepts and an address can name; raise ValueError otherwise."""
    if not _KEY.fullmatch(key):
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
_A_KEY = f"{_UNCLIMBING}{_IN_A_KEY}{{1,1024}}"
_A_BUCKET = f"{_UNCLIMBING}{_IN_A_PART}{{1,100}}"
_A_DESTINATION = f"s3://{_A_BUCKET}/(?!/|.*//){_A_KEY}"
ObjectKey = Annotated[str, AfterValidator(check_key), Field(json_schema_extra={"pattern": f"^{_A_KEY}$"})]
Bucket = Annotated[str, AfterValidator(check_bucket), Field(json_schema_extra={"pattern": f"^{_A_BUCKET}$"})]
Destination = Annotated[
    str, AfterValidator(check_destination), Field(json_schema_extra={"pattern": f"^{_A_DESTINATION}$"})
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


def public_address(public_url: str, bucket: str, name: str, mark: str) -> str:
    """The address of an object in a public bucket. The mark gets past what a CDN has kept of an older version."""
    return marked(f"{public_url}/storage/v1/object/public/{_path(bucket, name)}", mark)


def marked(address: str, mark: str) -> str:
    """The address with what tells whose start it is: storage ignores it, and ittybit's tasks show it."""
    return f"{address}{'&' if '?' in address else '?'}job={mark}"


def signed_address(settings: Settings, bucket: str, name: str, mark: str, deadline: Deadline) -> str:
    """An address of an object in any bucket, good for 24 hours.

    Raises:
        Skipped: there is no such object, or no such bucket.
        ServiceError: Storage did not sign.
    """
    address = signed_addresses(settings, bucket, [name], deadline)[name]
    if isinstance(address, Error):
        raise address
    return marked(address, mark)


def signed_addresses(
    settings: Settings, bucket: str, names: Iterable[str], deadline: Deadline
) -> dict[str, str | Error]:
    """Sign a bucket's objects in one call: of each its address without a mark, or why there is none.

    The bulk endpoint signs the raw keys. The single one signs the request's path, which is wrong for a key with ``?``
    (recorded from storage-api v1.70.6).
    """
    found: dict[str, str | Error] = {}
    paths: dict[str, str] = {}
    for name in names:
        try:
            paths[name] = _path(bucket, name)
        except Skipped as skipped:
            found[name] = skipped
    if not paths:
        return found
    try:
        answers = send(
            "storage",
            "POST",
            f"{settings.supabase_url}/storage/v1/object/sign/{quote(bucket, safe='')}",
            deadline=deadline,
            headers=settings.supabase_headers,
            body={"expiresIn": SIGNED_SECONDS, "paths": list(paths)},
            repeatable=True,
        ).data
        if not isinstance(answers, list) or len(answers) != len(paths):
            raise Unanswered("storage", "the answer to a signing is not a list of the addresses")
    except ServiceError as error:
        gone = Skipped("gone", f"There is no bucket {bucket!r}, or none of its objects.")
        return found | dict.fromkeys(paths, gone if error.status == 404 else error)
    for (name, path), answer in zip(paths.items(), answers, strict=True):
        match answer:
            case {"signedURL": str(url)} if "?token=" in url:
                # A key may itself contain "?token=".
                found[name] = (
                    f"{settings.public_url}/storage/v1/object/sign/{path}?token={url.rpartition('?token=')[2]}"
                )
            case {"error": str()}:
                found[name] = Skipped("gone", f"There is no object {name!r} in bucket {bucket!r}.")
            case _:
                found[name] = Unanswered("storage", "the answer to a signing is not a list of the addresses")
    return found
