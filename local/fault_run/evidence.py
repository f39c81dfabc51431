"""Collects the evidence of a run from the stand-in ittybit, the storage server and the ledger."""

from __future__ import annotations

from typing import Final

import httpx

from local.fault_injection import Request
from local.fault_run.uploads import BUCKET, RESULTS, LoadError, Uploads
from local.fault_run.witness import Evidence, Job
from local.stack import Stack

_LEDGER: Final = """
select j.id::text, j.rule, j.name, j.etag, j.state, j.reason, j.error, to_jsonb(j)::text
from ittybit.jobs as j
where j.bucket_id = %s
"""
_PAGE: Final = 1000


def gather(
    stack: Stack, load: Uploads, requests: list[Request], rules: list[str], renamed_results: list[str]
) -> Evidence:
    """Return the evidence for ``witness``.

    Raises:
        LoadError: the storage server lacks an object that it said it had stored, or has another content for it.
    """
    with httpx.Client(trust_env=False, timeout=60) as http:
        stored = _listing(http, stack)
    if missing := {name: tag for name, tag in load.names.items() if stored.get(name) != tag}:
        raise LoadError(f"the storage server has lost what it stored: {missing}")
    jobs = [Job(*row) for row in stack.sql(_LEDGER, [BUCKET])]
    return Evidence(
        stack.ittybit.journal, requests, stack.ittybit.failed, jobs, stored, rules, RESULTS, renamed_results
    )


def _listing(http: httpx.Client, stack: Stack) -> dict[str, str]:
    url, headers = f"{stack.supabase_url}/storage/v1/object/list-v2/{BUCKET}", {"apikey": stack.keys.secret_key}
    stored: dict[str, str] = {}
    cursor: dict[str, str] = {}
    while True:
        answer = http.post(url, json={"limit": _PAGE, **cursor}, headers=headers).raise_for_status().json()
        stored |= {one["name"]: one["metadata"]["eTag"] for one in answer["objects"]}
        if not answer["hasNext"]:
            return stored
        cursor = {"cursor": answer["nextCursor"]}
