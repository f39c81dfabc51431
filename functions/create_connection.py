"""create-connection: register the project's Supabase S3 keys at ittybit, once.

Called by   people and schedulers
Auth        FUNCTIONS_TOKEN as a bearer token, or a Standard Webhooks signature with FUNCTIONS_SECRET
Takes       {} for the keys in the environment, or any of
            {"access_key_id", "secret_access_key", "region", "is_default"}; the endpoint is always this project's own.
            {"buckets": ["…"]} names buckets to try the keys in, by default DESTINATION_BUCKETS: a probe is written
            under .ittybit/, read back and deleted. Without any bucket, the keys are tried with a listing only
Answers     200 {"outcome": "created" | "unchanged" | "replaced", "connection": {…}}, never with the secret;
            4xx and 503 as application/problem+json; if the keys do not work, 422 says why and ittybit is not called
Deployed    ./deploy.sh stage create-connection; target create_connection
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import functions_framework
from pydantic import ConfigDict, Field

from shared import objects, settings
from shared.edge import Answer, Call, endpoint
from shared.errors import Answered, Refused, Unanswered
from shared.ittybit import Ittybit
from shared.ittybit_models import Connection
from shared.redaction import Redactor
from shared.s3 import Keys
from shared.s3_probe import probe

SETTINGS = settings.load()
# Trying the keys leaves this much of the deadline for ittybit.
REGISTERING_SECONDS = 3.0

Key = Annotated[str, Field(pattern=r"^[!-~]{1,512}$")]


class ConnectionRequest(objects.Request):
    """The keys to register, and where to try them. Fields that are left out come from the environment."""

    model_config = ConfigDict(hide_input_in_errors=True)

    access_key_id: Key | None = None
    secret_access_key: Key | None = Field(default=None, repr=False)
    region: Key | None = None
    is_default: bool | None = None
    buckets: Annotated[list[objects.S3Bucket], Field(max_length=20)] | None = None


@functions_framework.http
@endpoint(SETTINGS, ConnectionRequest)
def create_connection(body: ConnectionRequest, call: Call) -> Answer:
    """Try the keys; then create the project's connection, leave it as it is, or replace it."""
    wanted = _fields(body)
    # The request may bring a secret that is not in the settings.
    call.redact = Redactor((*SETTINGS.secrets, wanted["secret_access_key"]))
    _try_keys(wanted, SETTINGS.destination_buckets if body.buckets is None else body.buckets, call)
    ittybit = Ittybit(call.settings, call.deadline)
    existing = next((c for c in ittybit.connections() if c.name == wanted["name"]), None)
    if existing is None:
        outcome, connection = "created", ittybit.create_connection(wanted)
    elif _same(existing, wanted):
        outcome, connection = "unchanged", existing
    else:
        outcome, connection = "replaced", _replace(existing, wanted, ittybit)
    shown = connection.model_dump(exclude={"secret_access_key"})
    return Answer(200, {"outcome": outcome, "connection": shown})


def _fields(body: ConnectionRequest) -> dict[str, Any]:
    """Return the connection's fields for ittybit; raise Refused if any is missing, and name them all."""
    keys = {
        "access_key_id": body.access_key_id or SETTINGS.supabase_s3_access_key_id,
        "secret_access_key": body.secret_access_key or SETTINGS.supabase_s3_secret_access_key,
        "region": body.region or SETTINGS.supabase_s3_region,
    }
    missing = [name for name, value in keys.items() if value is None]
    if missing:
        names = ", ".join(f"{name} (or SUPABASE_S3_{name.upper()})" for name in missing)
        fields = tuple((name, "missing, and not in the environment either") for name in missing)
        raise Refused(422, f"Missing: {names}. Dashboard > Storage > S3 has them.", fields=fields)
    default = {} if body.is_default is None else {"is_default": body.is_default}
    name = f"supabase-{SETTINGS.project_ref}"
    return {"name": name, "kind": "s3", "endpoint": SETTINGS.s3_endpoint, **keys, **default}


def _try_keys(wanted: dict[str, Any], buckets: Sequence[str], call: Call) -> None:
    """Raise Refused with all that is wrong with the keys, or Unanswered if trying again later may help."""
    keys = Keys(**{name: wanted[name] for name in ("endpoint", "region", "access_key_id", "secret_access_key")})
    findings = probe(keys, tuple(dict.fromkeys(buckets)), call.deadline.reserving(REGISTERING_SECONDS))
    if lasting := [finding for finding in findings if not finding.transient]:
        # The detail may contain a code that S3 sent.
        detail = call.redact(" ".join(f"{one.field} ({one.variable}): {one.detail}" for one in lasting))
        raise Refused(422, detail, fields=tuple((one.field, call.redact(one.detail)) for one in lasting))
    if findings:
        raise Unanswered("s3", " ".join(finding.detail for finding in findings))


def _same(existing: Connection, wanted: dict[str, Any]) -> bool:
    """Whether ittybit has the connection as wanted. A masked secret cannot be compared, and counts as equal."""
    known = {"kind": "s3", **existing.model_dump()}
    if re.search(r"^$|\*|…|\.\.\.", existing.secret_access_key):
        known["secret_access_key"] = wanted["secret_access_key"]
    return all(known[field] == value for field, value in wanted.items())


def _replace(existing: Connection, wanted: dict[str, Any], ittybit: Ittybit) -> Connection:
    """Update the connection, which keeps its id. If ittybit refuses or ignores it, create a new one and delete this."""
    try:
        changed = ittybit.update_connection(existing.id, wanted)
    except Answered as error:
        if error.effect != "fail":
            raise
    else:
        if _same(changed, wanted):
            return changed
    connection = ittybit.create_connection({"is_default": existing.is_default, **wanted})
    ittybit.delete_connection(existing.id)
    return connection
