"""Checks of the functions from outside: each answers without a redirect, and only to callers with the secret."""

from __future__ import annotations

import base64
import secrets
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from standardwebhooks import Webhook

from deploy.doctor.finding import Finding, failure, ok, skipped, warning
from deploy.doctor.requests import Answer, NoAnswerError, now, post
from shared import __version__
from shared.settings import Settings, is_local

NAMES = ("on-upload", "push-back", "create-connection")
# Functions refuse an older or newer signature (Standard Webhooks). Its timestamp is from the database's clock.
WINDOW_SECONDS = 300
UNEASY_SECONDS = 60

# No function accepts this body. Each names the fields that it expects in its error: they identify the function.
_NOTHING = b'{"doctor": true}'
# The wake-up that pg_cron sends: the function claims what is due and does it.
_WAKE_UP = b'{"type": "jobs.due"}'
_OWN_FIELD = {"on-upload": "automation_id", "push-back": "destination"}


class Fault(BaseModel):
    """The part of a field's error that is read."""

    field: str = ""


class Reply(BaseModel):
    """The part of an answer's body that is read, of a success or a problem."""

    claimed: int | None = None
    detail: str = ""
    errors: list[Fault] = []


@dataclass(frozen=True)
class Visit:
    """One function's finding; ``ahead``: how far its clock is ahead of this machine's, in seconds, if known."""

    finding: Finding
    ahead: float | None = None


def visit(name: str, url: str, settings: Settings, secret: str | None) -> Visit:
    """Call a function with a wrong signature, then with a right one: a body that it refuses, then a wake-up.

    Args:
        name: the function's, such as ``on-upload``.
        url: its address.
        settings: what it was deployed with, as far as is known here.
        secret: the one that the database signs with; None to authenticate with the token.
    """
    variable = "FUNCTIONS_SECRET" if secret else "FUNCTIONS_TOKEN"
    if not secret and not _is_closed_to_listeners(url):
        return Visit(failure(name, "its address is plain http: no token is sent there", "Give it an https address."))
    try:
        stranger = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        answer = post(url, _NOTHING, _signed(stranger, _NOTHING, None))
        ahead = answer.ahead
        if fault := _lets_strangers_in(name, answer):
            return Visit(fault, ahead)

        def ask(message: bytes) -> Answer:
            # Signed by the function's own clock: `clocks` compares it with the database's.
            return post(url, message, _signed(secret, message, ahead) if secret else _bearer(settings))

        answer = ask(_NOTHING)
        fault = _is_another(name, answer, variable)
        if fault is None and name in _OWN_FIELD:
            answer = ask(_WAKE_UP)
            fault = _cannot_work(name, answer) or _is_of_another_version(name, answer)
    except NoAnswerError as error:
        return Visit(failure(name, str(error), f"Check that it runs at {_place(url)}, or correct its address."))
    saw = f"accepts the {variable} and refuses another; answered in {answer.seconds:.1f} s"
    return Visit(fault or ok(name, saw), ahead)


def clocks(visits: dict[str, Visit], database_ahead: float | None) -> Finding:
    """Compare the functions' clocks with the database's, or with this machine's where the database is not known."""
    known = {name: visit.ahead for name, visit in visits.items() if visit.ahead is not None}
    if not known:
        return skipped("clocks", "no function's clock is known")
    whose = "this machine's" if database_ahead is None else "the database's"
    off = {name: ahead - (database_ahead or 0) for name, ahead in known.items()}
    differences = ", ".join(f"{name} {round(seconds)} s" for name, seconds in off.items())
    saw, worst = f"compared with {whose}: {differences}", max(abs(seconds) for seconds in off.values())
    if worst >= WINDOW_SECONDS:
        return failure("clocks", f"{saw}: signatures are refused", "Set the clock of the functions' host (NTP).")
    if worst >= UNEASY_SECONDS:
        return warning("clocks", f"{saw}; from {WINDOW_SECONDS} s on calls are refused", "Set the host's clock (NTP).")
    return ok("clocks", saw)


def _lets_strangers_in(name: str, answer: Answer) -> Finding | None:
    """The failure if a wrong signature is not answered with the function's own 401; None if it is."""
    if answer.status == 401 and answer.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    if 300 <= answer.status < 400:
        saw = f"redirects to {_place(answer.headers.get('location', ''))} (HTTP {answer.status})"
        return failure(name, saw, "Use the final address: pg_net follows a redirect without the message.")
    if answer.status in (401, 403):
        remedy = "Switch the host's own check of callers off (--no-invoker-iam-check): the function checks them itself."
        return failure(name, f"its host refuses callers before the function sees them (HTTP {answer.status})", remedy)
    if answer.status == 404:
        return failure(name, "there is no function at its address (HTTP 404)", "Deploy it, or correct its address.")
    if answer.status < 500:
        saw = f"does not refuse a wrong signature (HTTP {answer.status})"
        return failure(name, saw, f"It is not a function of this project: correct the address of {name}.")
    return failure(name, f"HTTP {answer.status}", "See its log: it does not start, or its host has a fault.")


def _is_another(name: str, answer: Answer, variable: str) -> Finding | None:
    """The failure if another function answers, or if it refuses the right secret; None if all is well."""
    if answer.status == 401:
        saw = f"refuses the {variable} that is set here"
        return failure(name, saw, f"Deploy it with this {variable}, or set the one that it has.")
    fields = {fault.field for fault in _reply(answer).errors}
    found = next((other for other, own in _OWN_FIELD.items() if own in fields), "create-connection")
    if answer.status == 422 and "doctor" in fields and found == name:
        return None
    what = f"{found} is at its address" if answer.status == 422 else f"HTTP {answer.status} {_reply(answer).detail}"
    return failure(name, what, f"Correct the address of {name}, or deploy it again.")


def _cannot_work(name: str, answer: Answer) -> Finding | None:
    """The failure if a wake-up is not answered as it should be: the function needs the ledger to answer one."""
    reply = _reply(answer)
    if answer.status == 200 and reply.claimed is not None:
        return None
    saw = f"it runs, but cannot work: HTTP {answer.status} {reply.detail}"
    return failure(name, saw, "Fix what it says. If you change a variable, deploy it again.")


def _is_of_another_version(name: str, answer: Answer) -> Finding | None:
    """The warning if it was deployed from another version than this clone's."""
    version = answer.headers.get("x-version", "unknown")
    if version == __version__:
        return None
    return warning(name, f"its version is {version}, this clone's is {__version__}", "Run ./deploy.sh functions.")


def _signed(secret: str, message: bytes, ahead: float | None) -> dict[str, str]:
    moment, name = now(ahead), f"doctor_{uuid.uuid4()}"
    signature = Webhook(secret).sign(name, moment, message.decode())
    return {"webhook-id": name, "webhook-timestamp": str(int(moment.timestamp())), "webhook-signature": signature}


def _bearer(settings: Settings) -> dict[str, str]:
    return {"authorization": f"Bearer {settings.functions_token}"}


def _reply(answer: Answer) -> Reply:
    try:
        return Reply.model_validate_json(answer.body)
    except ValidationError:
        return Reply()


def _place(url: str) -> str:
    """An address without the parts that may be secret."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an invalid address"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _is_closed_to_listeners(url: str) -> bool:
    """Whether a token may be sent there: by https or on this machine. An invalid address passes: it is never called."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    return parts.scheme == "https" or is_local(parts.hostname or "")
