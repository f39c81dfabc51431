"""The ittybit account: its key, its API, the automations that rules run, the connection that results go through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from deploy.doctor.finding import Finding, failure, ok, warning
from deploy.doctor.requests import LIMIT_SECONDS
from shared.errors import Answered, Unsupported
from shared.http import Deadline
from shared.ittybit import Ittybit
from shared.ittybit_jobs import only_task
from shared.ittybit_models import Action, Connection, bare
from shared.ittybit_requests import Api
from shared.settings import Settings

# The kinds of a job, by https://ittybit.com/api/create-job.
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


def api(settings: Settings, actions: Mapping[str, Action]) -> Finding:
    """Check which generation of ittybit's API starts jobs, and whether it can do what the rules ask for.

    Args:
        settings: those with the key.
        actions: the action of each rule.

    Raises:
        ServiceError: it could not be found out which generation answers.
    """
    client = Ittybit(settings, Deadline(LIMIT_SECONDS))
    generation = client.generation
    if settings.ittybit_api != "auto" and not client.speaks(generation):
        saw = f"ITTYBIT_API is {generation}, but {settings.ittybit_api_url} has no /{generation}"
        return failure("ittybit api", saw, "Leave ITTYBIT_API out, or set it to auto.")
    refused, strange = [], []
    for rule, action in actions.items() if generation == "jobs" else ():
        try:
            kind = only_task(action).kind
            if kind not in JOB_KINDS:
                strange.append(f"a {kind} ({rule})")
        except Unsupported as error:
            refused.append(f"{rule}: {error.message}")
    if refused:
        saw = f"its API is jobs, which cannot do what rules ask for: {'. '.join(refused)}"
        return failure("ittybit api", saw, "Change the rule: docs/ittybit.md says what each API can do.")
    if strange:
        remedy = f"Documented are {', '.join(JOB_KINDS)}: change the rule, or check that its jobs succeed."
        return warning("ittybit api", f"its API is jobs, whose documentation lacks {'; '.join(strange)}", remedy)
    chosen = "as ITTYBIT_API says" if settings.ittybit_api != "auto" else "as detected"
    return ok("ittybit api", f"its API is {generation}, {chosen}; rules ask for {_counts(actions)}")


def _counts(actions: Mapping[str, Action]) -> str:
    """The number of actions of each sort."""
    sorts = Counter("automation" if one.automation_id else "task" if one.task else "run" for one in actions.values())
    return ", ".join(f"{count} {sort}{'s' * (count > 1)}" for sort, count in sorted(sorts.items())) or "nothing"


def automations(settings: Settings, actions: Mapping[str, Action]) -> Finding:
    """Check that each automation that rules run exists and is active.

    Args:
        settings: those with the key.
        actions: the action of each rule.

    Raises:
        ServiceError: ittybit does not answer.
    """
    users: dict[str, list[str]] = {}
    for rule, action in actions.items():
        if action.automation_id:
            users.setdefault(action.automation_id, []).append(rule)
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
        # No status, or one that is not documented, counts as active.
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
    """Check whether the connection exists and leads to this project.

    Args:
        settings: what it should hold.
        found: the connection that push-back uses.
        is_needed: whether a rule has results written into a bucket; None if the rules are not known.
    """
    called = settings.ittybit_connection_id or f"supabase-{settings.project_ref}"
    make = "Run ./deploy.sh connection once."
    if found is None:
        if is_needed is False:
            return ok("connection", "there is none, and no rule needs one")
        saw = f"there is no connection {called}"
        if settings.ittybit_connection_id:
            make = "Correct ITTYBIT_CONNECTION_ID, or leave it out and run ./deploy.sh connection."
        return failure("connection", saw, make) if is_needed else warning("connection", saw, make)
    wanted = {
        "endpoint": settings.s3_endpoint,
        "region": settings.supabase_s3_region,
        "access_key_id": settings.supabase_s3_access_key_id,
    }
    # A field that ittybit does not show cannot be compared.
    others = [field for field, value in wanted.items() if value and getattr(found, field) not in (value, "")]
    if others and settings.ittybit_connection_id:
        # A person chose it by its id: it may lead elsewhere on purpose.
        return warning("connection", f"{called} has another {' and '.join(others)} than this project", make)
    if others:
        return failure("connection", f"{called} has another {' and '.join(others)} than this project", make)
    return ok("connection", f"{called} leads to {found.endpoint}, region {found.region}")
