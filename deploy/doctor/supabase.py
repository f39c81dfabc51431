"""The Supabase project over HTTP: its key, and the ledger's functions at its Data API."""

from __future__ import annotations

import json
from collections.abc import Mapping

import jwt

from deploy.doctor.finding import Finding, failure, ok, warning
from deploy.doctor.requests import LIMIT_SECONDS, post
from shared.errors import Answered
from shared.http import Deadline, send
from shared.settings import Settings

# The RPC, called for a function that does not exist, and PostgreSQL's code for the refusal.
_CLAIM = "/rest/v1/rpc/ittybit_claim"
_NO_FUNCTION = {"function": "doctor", "project": "", "jobs": 1}
_NO_SUCH_FUNCTION = "22023"


def key(settings: Settings) -> Finding:
    """Check the key's kind, and try it with Storage.

    Raises:
        ServiceError: Storage refuses it, or does not answer.
    """
    kind, fault = _kind(settings)
    if fault:
        return fault
    reply = send(
        "storage",
        "GET",
        f"{settings.supabase_url}/storage/v1/bucket",
        deadline=Deadline(LIMIT_SECONDS),
        headers=settings.supabase_headers,
        repeatable=True,
    )
    buckets = len(reply.data) if isinstance(reply.data, list) else 0
    saw = f"{kind}, sent in {' and '.join(settings.supabase_headers)}; it opens Storage (buckets: {buckets})"
    if kind.startswith("legacy") and settings.is_hosted:
        return warning(
            "supabase key", saw, "Supabase retires legacy keys: make an sb_secret_ key (Project Settings > API Keys)."
        )
    return ok("supabase key", saw)


def _kind(settings: Settings) -> tuple[str, Finding | None]:
    """The kind of key, and a failure if it is another project's."""
    given = settings.supabase_secret_key
    if given.startswith("sb_secret_"):
        return "a secret key", None
    try:
        claims = jwt.decode(given, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return "a key of unknown kind", None
    # Only an address that contains the ref can be compared: a custom domain does not.
    if settings.is_hosted and claims.get("ref", settings.project_ref) != settings.project_ref:
        saw = f"a key of another project, {claims['ref']!s:.40}"
        return "", failure("supabase key", saw, "Use the secret key, sb_secret_… (Project Settings > API Keys).")
    return "legacy service_role key", None


def data_api(settings: Settings, environment: Mapping[str, str]) -> Finding:
    """Call the claim as the functions do, then as callers who must be refused.

    Raises:
        ServiceError: the Data API refuses the functions' key, knows no such function, or does not answer.
        NoAnswerError: it did not answer those callers.
    """
    url = f"{settings.supabase_url}{_CLAIM}"
    try:
        send(
            "ledger",
            "POST",
            url,
            deadline=Deadline(LIMIT_SECONDS),
            headers=settings.supabase_headers,
            body=_NO_FUNCTION,
            repeatable=True,
        )
    except Answered as error:
        if error.kind != _NO_SUCH_FUNCTION:
            raise
    else:
        return failure("data api", "a function that does not exist may claim", "Apply supabase/migrations again.")

    public = environment.get("SUPABASE_PUBLISHABLE_KEY") or environment.get("SUPABASE_ANON_KEY")
    others = {"nobody's key": {}, **({"the publishable key": {"apikey": public}} if public else {})}
    for whose, headers in others.items():
        answer = post(url, json.dumps(_NO_FUNCTION).encode(), headers)
        if answer.status not in (401, 403):
            saw = f"ittybit_claim answers HTTP {answer.status} to {whose}"
            return failure("data api", saw, "Apply …_ittybit_work.sql again: it revokes by name.")
    return ok("data api", f"ittybit_claim answers the secret key and refuses {' and '.join(others)}")
