"""Stored objects: which keys are valid, the addresses from which ittybit reads them, and their deletion."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.errors import Error, ServiceError, Skipped, Unanswered
from shared.http import Deadline, send
from shared.settings import S3_BUCKET, Settings, check_s3_bucket

# Seconds that a signed address lasts. ittybit may fetch the source long after the start.
SIGNED_SECONDS = 24 * 3600
# The reason of a job that failed because Storage refused to sign its address. ittybit was never called.
NOT_SIGNED = "not_signed"

# What storage-api accepts in a key (isValidKey); everything else it refuses with 400 InvalidKey.
_IN_A_PART = r"[A-Za-z0-9_!.*'() &$@=;:+,?-]"
_IN_A_KEY = _IN_A_PART.replace("_", "_/")
_KEY = re.compile(f"{_IN_A_KEY}{{1,1024}}", re.ASCII)
_CLIMBS = re.compile(r"(?:^|/)\.\.?(?:/|$)")
_DESTINATION = re.compile(r"s3://([^/]+)/(.+)")


def check_key(key: str) -> str:
    """Return the key if Supabase accepts it and an address can contain it; raise ValueError otherwise."""
    if not _KEY.fullmatch(key):
        raise ValueError("Supabase accepts letters, digits and _/!.*'() &$@=;:+,?- in a key, 1024 at most")
    if _CLIMBS.search(key):
        raise ValueError("a key with a . or .. part cannot be addressed")
    return key


def check_bucket(bucket: str) -> str:
    """Return the bucket's id if an address can contain it; raise ValueError otherwise."""
    if len(bucket) > 100 or "/" in bucket:
        raise ValueError("a bucket's id has no slash and at most 100 characters")
    return check_key(bucket)


def check_destination(destination: str) -> str:
    """Return the destination if it is an ``s3://bucket/key`` that names one object; raise ValueError otherwise."""
    match = _DESTINATION.fullmatch(destination)
    if not match:
        raise ValueError("must be s3://bucket/key")
    check_s3_bucket(match[1])
    key = check_key(match[2])
    if key.startswith("/") or "//" in key:
        raise ValueError("the key starts with a slash or repeats one")
    return destination


# The same rules as patterns, for the OpenAPI document.
_UNCLIMBING = r"(?!(.*/)?\.\.?(/|$))"
_A_KEY = f"{_UNCLIMBING}{_IN_A_KEY}{{1,1024}}"
_A_BUCKET = f"{_UNCLIMBING}{_IN_A_PART}{{1,100}}"
_A_DESTINATION = f"s3://{S3_BUCKET}/(?!/|.*//){_A_KEY}"
ObjectKey = Annotated[str, AfterValidator(check_key), Field(json_schema_extra={"pattern": f"^{_A_KEY}$"})]
Bucket = Annotated[str, AfterValidator(check_bucket), Field(json_schema_extra={"pattern": f"^{_A_BUCKET}$"})]
S3Bucket = Annotated[str, AfterValidator(check_s3_bucket), Field(json_schema_extra={"pattern": f"^{S3_BUCKET}$"})]
Destination = Annotated[
    str, AfterValidator(check_destination), Field(json_schema_extra={"pattern": f"^{_A_DESTINATION}$"})
]


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse another source or connection. Also refuse NaN and infinities at any depth: they are not JSON."""
    json.dumps(options, allow_nan=False)
    if any(name == "url" or name.endswith("connection_id") for name in options):
        raise ValueError("the source is the object, and results go through the project's connection: name no other")
    return options


Kind = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
Options = Annotated[dict[str, Any], AfterValidator(_check_options)]


class Request(BaseModel):
    """A person's request, or a part of one: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ObjectRequest(Request):
    """A request about one object."""

    bucket: Bucket
    name: ObjectKey


def split_destination(destination: str) -> tuple[str, str]:
    """Return the bucket and the key of a checked ``s3://bucket/key``."""
    bucket, _, key = destination.removeprefix("s3://").partition("/")
    return bucket, key


def _path(bucket: str, name: str) -> str:
    """The object's path in an address. Raises Skipped for a key that would lead to another object."""
    if _CLIMBS.search(name) or bucket in (".", ".."):
        raise Skipped("not_addressable", "A key with a . or .. part cannot be addressed.")
    return f"{quote(bucket, safe='')}/{quote(name, safe='/')}"


def public_address(public_url: str, bucket: str, name: str, mark: str) -> str:
    """The address of an object in a public bucket of the project at ``public_url``.

    The mark names the start. Storage ignores it, and a CDN does not serve its copy of an older version for it.
    """
    return f"{public_url}/storage/v1/object/public/{_path(bucket, name)}?job={mark}"


def signed_address(settings: Settings, bucket: str, name: str, mark: str, deadline: Deadline) -> str:
    """The signed address of one object in any bucket."""
    return Sources(settings, [(bucket, name)], deadline).address(bucket, name, mark)


class Sources:
    """Signed addresses of objects, valid for 24 hours. The first thread that needs one signs all objects of its bucket.

    It uses the bulk endpoint, which signs the keys as they are. The endpoint for one object signs the request's path,
    which is wrong for a key with ``?`` (recorded from storage-api v1.70.6).
    """

    def __init__(self, settings: Settings, objects: Iterable[tuple[str, str]], deadline: Deadline) -> None:
        self._settings = settings
        self._deadline = deadline
        self._names: dict[str, dict[str, None]] = {}
        for bucket, name in objects:
            if not _CLIMBS.search(name):
                self._names.setdefault(bucket, {})[name] = None
        self._signing = {bucket: threading.Lock() for bucket in self._names}
        self._signed: dict[str, dict[str, str | Error]] = {}

    def address(self, bucket: str, name: str, mark: str) -> str:
        """The address of one of the objects, with the mark of its start.

        Raises:
            Skipped: there is no such object, no such bucket, or no address leads to it.
            ServiceError: Storage did not sign.
        """
        path = _path(bucket, name)
        with self._signing[bucket]:
            if bucket not in self._signed:
                self._signed[bucket] = self._sign(bucket, list(self._names[bucket]))
        token = self._signed[bucket][name]
        if isinstance(token, Error):
            raise token
        return f"{self._settings.public_url}/storage/v1/object/sign/{path}?token={token}&job={mark}"

    def _sign(self, bucket: str, names: list[str]) -> dict[str, str | Error]:
        """Each object's token, or the error in its place."""
        try:
            answers = send(
                "storage",
                "POST",
                f"{self._settings.supabase_url}/storage/v1/object/sign/{quote(bucket, safe='')}",
                deadline=self._deadline,
                headers=self._settings.supabase_headers,
                body={"expiresIn": SIGNED_SECONDS, "paths": names},
                repeatable=True,
            ).data
            if not isinstance(answers, list) or len(answers) != len(names):
                raise Unanswered("storage", "the answer to a signing is not a list of the addresses")
        except ServiceError as error:
            gone = Skipped("gone", f"There is no bucket {bucket!r}, or none of its objects.")
            error.reason = NOT_SIGNED if error.effect == "fail" else None
            return dict.fromkeys(names, gone if error.status == 404 else error)
        return {name: _token(bucket, name, answer) for name, answer in zip(names, answers, strict=True)}


def delete(settings: Settings, bucket: str, names: list[str], deadline: Deadline) -> None:
    """Delete objects of a bucket, 1,000 at most. Storage ignores missing ones.

    A deletion whose answer is lost is not repeated: by then somebody may have stored another object under the name.

    Raises:
        ServiceError: Storage failed, or deleted none of them.
    """
    url = f"{settings.supabase_url}/storage/v1/object/{quote(bucket, safe='')}"
    body = {"prefixes": names}  # in spite of the name, Storage deletes only these keys
    answer = send(
        "storage", "DELETE", url, deadline=deadline, headers=settings.supabase_headers, body=body, repeatable=False
    )
    if not isinstance(answer.data, list) or not answer.data:
        raise Unanswered("storage", "the answer to a deletion does not list what was deleted")


def _token(bucket: str, name: str, answer: Any) -> str | Error:
    match answer:
        case {"signedURL": str(url)} if "?token=" in url:
            # A key may itself contain "?token=".
            return url.rpartition("?token=")[2]
        case {"error": str()}:
            return Skipped("gone", f"There is no object {name!r} in bucket {bucket!r}.")
    return Unanswered("storage", "the answer to a signing is not a list of the addresses")
