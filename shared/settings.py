"""The environment's variables, read once at start. One message names all that are missing or malformed."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

# Supabase allows more characters in a bucket's id than S3 does.
S3_BUCKET = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_plain = bool(parts.hostname and re.fullmatch(r"[!-~]+", url) and parts.port != 0)
    except ValueError:  # its message contains the value
        is_plain = False
    if not is_plain or parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be an address such as https://example.com")
    if parts.scheme == "http" and not is_local(parts.hostname or ""):
        raise ValueError("must be https: keys travel with every call")
    return url.rstrip("/")


def is_local(host: str) -> bool:
    """Whether the host is this machine, or a container beside it, where plain http is usual."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host or host == "host.docker.internal"


def _project(url: str) -> str:
    origin = _origin(url)
    parts = urlsplit(origin)
    host = parts.hostname or ""
    if host == "supabase.com" or (_is_hosted(host) and host.count(".") > 2):
        raise ValueError("must be the project's own address: put https://<ref>.supabase.co")
    if parts.path:
        raise ValueError(f"must be the project's address with no path behind it: put {parts.scheme}://{parts.netloc}")
    return origin


def _is_hosted(host: str) -> bool:
    """Whether the host is Supabase's own, named after a project's ref, and not a custom domain."""
    return host.lower().endswith(".supabase.co")


def _is_private(host: str) -> bool:
    """Whether only this network knows the host: this machine, a container beside it, a private address."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local", ".localhost"))


def _secret_key(key: str) -> str:
    if (key.startswith("sb_") and not key.startswith("sb_secret_")) or _role(key) not in (None, "service_role"):
        raise ValueError(
            "must not be a publishable or anon key:"
            " put the secret key, sb_secret_…, or the legacy service_role key (Dashboard > Project Settings > API Keys)"
        )
    return key


def _role(key: str) -> object:
    """The role in a legacy key, which is a JWT; None for any other key."""
    try:
        _, payload, _ = key.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims.get("role") if isinstance(claims, dict) else None


def _signing_secret(secret: str) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return secret


def _prefix(prefix: str) -> str:
    if not prefix.endswith("/") or prefix.startswith("/"):
        raise ValueError("must end in / and not start with one, such as processed/")
    return prefix


def check_s3_bucket(bucket: str) -> str:
    """Return the bucket's id if S3 can name it; raise ValueError otherwise."""
    if not re.fullmatch(S3_BUCKET, bucket, re.ASCII):
        raise ValueError(f"cannot name bucket {bucket!r} in S3: letters, digits and ._- alone")
    return bucket


def _no_space(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("must be printable ASCII without spaces")
    return text


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Origin = Annotated[str, AfterValidator(_origin)]
Project = Annotated[str, AfterValidator(_project)]
Key = Annotated[str, AfterValidator(_no_space)]
SecretKey = Annotated[Key, AfterValidator(_secret_key)]
Keys = Annotated[tuple[Annotated[str, AfterValidator(_signing_secret)], ...], BeforeValidator(_split)]
Prefixes = Annotated[tuple[Annotated[str, AfterValidator(_prefix)], ...], BeforeValidator(_split)]
Buckets = Annotated[tuple[Annotated[str, AfterValidator(check_s3_bucket)], ...], BeforeValidator(_split)]


# The message for a project where `Settings.is_out_of_reach`.
OUT_OF_REACH = (
    "ittybit cannot reach the project's address, which exists only on this network:"
    " set SUPABASE_PUBLIC_URL to an address that the internet can reach"
)


class Settings(BaseModel):
    """The environment's variables, lower-case; docs/environment.md has a line for each."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    ittybit_api_key: Key
    ittybit_api_url: Origin = "https://api.ittybit.com"
    ittybit_api: Literal["auto", "automations", "jobs"] = "auto"
    ittybit_job_connection: Literal["options", "output", "top", "none"] = "options"
    supabase_url: Project
    supabase_public_url: Project | None = None
    supabase_secret_key: SecretKey
    functions_secret: Keys = ()
    functions_token: Annotated[str, Field(min_length=16), AfterValidator(_no_space)] | None = None
    supabase_s3_access_key_id: Key | None = None
    supabase_s3_secret_access_key: Key | None = None
    supabase_s3_region: Key | None = None
    supabase_s3_endpoint: Origin | None = None
    drain_seconds: Annotated[float, Field(ge=0, le=5)] = 1.0
    ittybit_connection_id: Key | None = None
    ittybit_automation_id: Key | None = None
    watch_bucket: str | None = None
    watch_path: str = "**"
    watch_type: str | None = None
    output_prefixes: Prefixes = ("processed/",)
    destination_buckets: Buckets = ()

    @model_validator(mode="after")
    def _belong_together(self) -> Settings:
        token = self.functions_token
        bare = {secret.removeprefix("whsec_") for secret in self.functions_secret}
        if token and token.removeprefix("whsec_") in bare:
            raise ValueError("FUNCTIONS_TOKEN must not be the FUNCTIONS_SECRET: a leak of one would leak both")
        if token in {self.ittybit_api_key, self.supabase_secret_key, self.supabase_s3_secret_access_key} - {None}:
            raise ValueError("FUNCTIONS_TOKEN must be a secret of its own, not one of the keys")
        if (self.ittybit_automation_id is None) != (self.watch_bucket is None):
            raise ValueError("ITTYBIT_AUTOMATION_ID and WATCH_BUCKET go together (plain mode)")
        return self

    @property
    def project_ref(self) -> str:
        """The project's reference, or for other hosts their name and port. Connections are named after it."""
        parts = urlsplit(self.supabase_url)
        host = parts.netloc.lower()
        return host.split(".")[0] if self.is_hosted else re.sub(r"[^a-z0-9]+", "-", host)

    @property
    def is_hosted(self) -> bool:
        """Whether the project's address contains its reference. Custom domains and self-hosted projects have none."""
        return _is_hosted(urlsplit(self.supabase_url).hostname or "")

    @property
    def public_url(self) -> str:
        """The project's address for ittybit, which fetches and writes there."""
        return self.supabase_public_url or self.supabase_url

    @property
    def is_out_of_reach(self) -> bool:
        """Whether ittybit, in its cloud, could not reach the project's public address."""
        public, ittybit = (urlsplit(url).hostname or "" for url in (self.public_url, self.ittybit_api_url))
        return _is_private(public) and not _is_private(ittybit)

    @property
    def s3_endpoint(self) -> str:
        """The project's S3 endpoint: the direct storage host of a hosted project (Supabase: S3 authentication)."""
        if self.supabase_s3_endpoint:
            return self.supabase_s3_endpoint
        host = (urlsplit(self.public_url).hostname or "").lower()
        base = f"https://{host.split('.')[0]}.storage.supabase.co" if _is_hosted(host) else self.public_url
        return f"{base}/storage/v1/s3"

    @property
    def supabase_headers(self) -> Mapping[str, str]:
        """Authentication at Supabase: a new secret key goes into ``apikey`` alone, a legacy JWT into both headers."""
        headers = {"apikey": self.supabase_secret_key}
        if not self.supabase_secret_key.startswith("sb_"):
            headers["authorization"] = f"Bearer {self.supabase_secret_key}"
        return headers

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret, none of which may appear in a log or an answer."""
        optional = (self.functions_token, self.supabase_s3_secret_access_key)
        return (
            self.ittybit_api_key,
            self.supabase_secret_key,
            *self.functions_secret,
            *(secret for secret in optional if secret),
        )

    def __repr__(self) -> str:
        return f"Settings({self.supabase_url})"

    __str__ = __repr__


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. An empty variable counts as missing.

    Raises:
        SystemExit: its message names all that is missing or malformed, and shows no secret.
    """
    values: dict[str, Any] = {
        name: environment[name.upper()].strip()
        for name in Settings.model_fields
        if environment.get(name.upper(), "").strip()
    }
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        faults = [_fault(e["loc"], e["type"], e["msg"]) for e in error.errors(include_input=False, include_url=False)]
        raise SystemExit("The functions cannot start:\n" + "\n".join(f"  {fault}" for fault in faults)) from None


def _fault(location: tuple[int | str, ...], kind: str, message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    name = str(location[0]).upper()
    return f"{name} is missing" if kind == "missing" else f"{name} {message[0].lower()}{message[1:]}"
