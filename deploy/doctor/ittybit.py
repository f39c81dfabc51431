"""The ittybit account: its key, its API, the automations that rules run, the connection that results go through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from deploy.doctor.finding import Finding, failure, ok, warning
from deploy.doctor.requests import LIMIT_SECONDS
from shared.errors import Answered
from shared.http import Deadline
from shared.ittybit import Ittybit
from shared.ittybit_models import Connection, bare
from shared.ittybit_requests import Api
from shared.settings import Settings

# Of a job, by https://ittybit.com/api/create-job.
JOB_KINDS = ("video", "audio", "image", "animation", "adaptive_video")


class Automation(BaseModel):
    """The part of an automation that is read; the documents agree only on its status (``active`` or ``paused``)."""

    status: str = ""


def connections(settings: Settings) -> list[Connection]:
    """All connections of the account, which also shows that the key is valid.

    Raises:
        ServiceError: ittybit does not take the key, or does not answer.
    """
    return Ittybit(settings, Deadline(LIMIT_SECONDS)).connections()


def api(settings: Settings, users: Mapping[str, Sequence[str]], kinds: Mapping[str, Sequence[str]]) -> Finding:
    """Say which generation of its API starts what is due, and what the rules ask of it that it cannot do.

    Args:
        settings: the key's.
        users: the automations in use, each with the rules that run it.
        kinds: the kinds of task in use, each with the rules that make it.

    Raises:
        ServiceError: which one answers could not be found out.
    """
    client = Ittybit(settings, Deadline(LIMIT_SECONDS))
    generation = client.generation
    if settings.ittybit_api != "auto" and not client.speaks(generation):
        saw = f"ITTYBIT_API is {generation}, but {settings.ittybit_api_url} has no /{generation}"
        return failure("ittybit api", saw, "Leave ITTYBIT_API out, or set it to auto.")
    if generation == "jobs" and users:
        saw = f"it speaks jobs and has no automations: {', '.join(one for rules in users.values() for one in rules)}"
        return failure("ittybit api", saw, "Give the rule a task in place of its automation_id: docs/ittybit.md.")
    strange = {kind: rules for kind, rules in kinds.items() if generation == "jobs" and kind not in JOB_KINDS}
    if strange:
        saw = "; ".join(f"a {kind} ({', '.join(rules)})" for kind, rules in strange.items())
        remedy = f"Documented are {', '.join(JOB_KINDS)}: change the rule, or look at what ittybit says of its jobs."
        return warning("ittybit api", f"it speaks jobs, and no document has {saw}", remedy)
    chosen = "as ITTYBIT_API says" if settings.ittybit_api != "auto" else "as it answers"
    return ok("ittybit api", f"starts go to its API of {generation}, {chosen}")


def automations(settings: Settings, users: Mapping[str, Sequence[str]]) -> Finding:
    """Look at each automation.

    Args:
        settings: the key's.
        users: the automations' ids, each with the rules that run it.

    Raises:
        ServiceError: ittybit does not answer.
    """
    if not users:
        return ok("automations", "no rule runs one")
    faults = []
    for automation_id, rules in users.items():
        try:
            status = _automation(settings, automation_id).status
        except Answered as error:
            if error.effect != "fail":
                raise
            faults.append(f"{automation_id} ({', '.join(rules)}): {error.message}")
            continue
        # Whoever answers without a status, or with a word that no document has, is not doubted.
        if status in ("paused", "disabled"):
            faults.append(f"{automation_id} ({', '.join(rules)}) is {status}")
    if faults:
        remedy = (
            "Activate it at ittybit, or correct the rule's automation_id; then: select ittybit.retry_failed('<rule>');"
        )
        return failure("automations", "; ".join(faults), remedy)
    return ok("automations", f"{len(users)} in use, all there and active")


def _automation(settings: Settings, automation_id: str) -> Automation:
    path = f"automations/{quote(automation_id, safe='')}"
    reply = Api(settings, Deadline(LIMIT_SECONDS)).call("GET", path, repeatable=True)
    try:
        return Automation.model_validate(bare(reply.data))
    except ValidationError:
        return Automation()


def find(settings: Settings, there: Sequence[Connection]) -> Connection | None:
    """The connection that push-back uses, or None."""
    if settings.ittybit_connection_id:
        return next((one for one in there if one.id == settings.ittybit_connection_id), None)
    return next((one for one in there if one.name == f"supabase-{settings.project_ref}"), None)


def connection(settings: Settings, found: Connection | None, *, is_needed: bool | None) -> Finding:
    """Say whether it is there, and for this project.

    Args:
        settings: what it should hold.
        found: the connection that push-back uses.
        is_needed: whether a rule makes a task; None where the rules are not known.
    """
    called = settings.ittybit_connection_id or f"supabase-{settings.project_ref}"
    make = "Call create-connection once: ./deploy.sh connection."
    if found is None:
        if is_needed is False:
            return ok("connection", "there is none, and no rule needs one")
        saw = f"there is no connection {called}"
        return failure("connection", saw, make) if is_needed else warning("connection", saw, make)
    wanted = {
        "endpoint": settings.s3_endpoint,
        "region": settings.supabase_s3_region,
        "access_key_id": settings.supabase_s3_access_key_id,
    }
    # What ittybit does not show cannot be compared.
    others = [field for field, value in wanted.items() if value and getattr(found, field) not in (value, "")]
    if others and settings.ittybit_connection_id:
        # Somebody chose it by its id: it may well lead elsewhere.
        return warning("connection", f"{called} has another {' and '.join(others)} than this project", make)
    if others:
        return failure("connection", f"{called} has another {' and '.join(others)} than this project", make)
    return ok("connection", f"{called} leads to {found.endpoint}, region {found.region}")
