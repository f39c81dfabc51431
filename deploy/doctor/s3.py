"""The connection's S3 keys: whether ittybit can still write with them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from deploy.doctor.finding import Finding, failure, ok, skipped, warning
from deploy.doctor.requests import LIMIT_SECONDS
from shared.http import Deadline
from shared.ittybit_models import Connection
from shared.s3 import Keys
from shared.s3_probe import probe
from shared.settings import Settings

_MASKED = re.compile(r"^$|\*|…|\.\.\.")


def keys(settings: Settings, connection: Connection, buckets: Sequence[str]) -> Finding:
    """Try the connection's keys: list, write, read back and delete a probe in each bucket that results go to.

    Args:
        settings: this project's, used in place of fields of the connection that ittybit does not show.
        connection: this project's, already compared with the settings.
        buckets: ids of existing buckets; without any, only a listing is tried.
    """
    secret = connection.secret_access_key
    if _MASKED.search(secret):
        secret = settings.supabase_s3_secret_access_key or ""
    key_id = connection.access_key_id or settings.supabase_s3_access_key_id
    region = connection.region or settings.supabase_s3_region
    if not (secret and key_id and region):
        return skipped("s3 keys", "not tried: ittybit does not show them", "Set SUPABASE_S3_… to try them.")
    faults = probe(Keys(settings.s3_endpoint, region, key_id, secret), buckets, Deadline(LIMIT_SECONDS))
    if faults:
        saw = " ".join(f"{fault.field}: {fault.detail}" for fault in faults)
        remedy = "Fix that, then run ./deploy.sh connection."
        return (warning if all(fault.transient for fault in faults) else failure)("s3 keys", saw, remedy)
    where = f"in {', '.join(buckets)}" if buckets else "(a listing; no rule writes into a bucket)"
    return ok("s3 keys", f"the connection's keys work {where}")
