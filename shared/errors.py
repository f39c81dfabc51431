"""What can go wrong in one request.

Error                  base of all below
├── Refused            the caller's request is wrong, and no service was called
├── Skipped            there is nothing to do: the object is gone, or must not be processed
└── ServiceError       a service that we called failed
    ├── Answered       it answered with an error: status, kind and message are its own
    ├── Unanswered     there was no answer: never connected, timed out, cut off, unreadable
    ├── Unfinished     a search in its lists ran out of time; the next attempt continues it
    ├── Undecided      its answers do not tell whether a start took effect
    └── Unsupported    this generation of ittybit's API cannot do it, and was not asked to

Exceptions of httpx, obstore and pydantic never leave the module that calls the library.
"""

from __future__ import annotations

from typing import Literal

Service = Literal["ittybit", "storage", "s3", "ledger"]
Effect = Literal["retry", "fail", "hold"]


class Error(Exception):
    """Base of every error that an endpoint turns into an answer."""


class Refused(Error):
    """The request is wrong.

    Attributes:
        status: the HTTP status, 4xx.
        detail: what is wrong and how to fix it, for the caller.
        fields: (field, what is wrong with it) for each field at fault.
        reason: what the log says, if that is more than the caller may know.
    """

    def __init__(
        self, status: int, detail: str, *, fields: tuple[tuple[str, str], ...] = (), reason: str | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields
        self.reason = reason or detail


class Skipped(Error):
    """There is nothing to do.

    Attributes:
        reason: why, in one word; the same words as in the ledger.
        detail: an explanation for a person.
    """

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail


class ServiceError(Error):
    """A service that we called failed.

    Attributes:
        service: which one.
        message: its own, or what happened to the call.
        status: its HTTP status, or None without an answer.
        kind: its own word for the error (ittybit's ``kind``, PostgREST's and Storage's ``code``), or None.
        in_doubt: whether the call may have taken effect although it failed.
        retry_after: seconds it asked us to wait, or None.
        effect: what happens to the work: it is retried, fails, or is held until a person has fixed the cause.
        reason: the ledger's word for it, where the service's own message is not enough.
    """

    reason: str | None = None

    def __init__(
        self,
        service: Service,
        message: str,
        *,
        status: int | None = None,
        kind: str | None = None,
        in_doubt: bool = False,
        retry_after: int | None = None,
        effect: Effect | None = None,
    ) -> None:
        super().__init__(message)
        self.service = service
        self.message = message
        self.status = status
        self.kind = kind
        self.in_doubt = in_doubt
        self.retry_after = retry_after
        self.effect = effect or self._effect_of_status()

    @property
    def is_transient(self) -> bool:
        """Whether the error is transient: the same call may succeed a moment later."""
        return self.status is None or self.status in (408, 425, 429) or self.status >= 500

    def _effect_of_status(self) -> Effect:
        if self.status in (401, 402, 403):
            # ittybit's are about the account or the rule. Supabase's are about our key, not about one job.
            return "hold" if self.service == "ittybit" else "retry"
        # The request did not cause it: the ledger is missing, or the service redirects.
        is_setup = self.service == "ledger" or (self.status is not None and self.status < 400)
        return "retry" if is_setup or self.is_transient else "fail"

    @property
    def remedy(self) -> str:
        """What a person can do about it, in one sentence."""
        known = _REMEDIES.get((self.service, self.status))
        if known:
            return known
        if self.status is None and self.effect == "retry":
            return f"Try again later; if that does not help, check {_ADDRESSES[self.service]}."
        if self.effect == "hold":
            return "Waiting jobs go on by themselves once that is fixed."
        if self.effect == "fail":
            return "The request can never work as it is: change it."
        return "Nothing is wrong with the request: try again later."


_ADDRESSES: dict[Service, str] = {
    "ittybit": "ITTYBIT_API_URL",
    "storage": "SUPABASE_URL",
    "s3": "SUPABASE_S3_ENDPOINT",
    "ledger": "SUPABASE_URL",
}

_REMEDIES: dict[tuple[Service, int | None], str] = {
    ("ittybit", 401): "ittybit does not accept the key: check ITTYBIT_API_KEY.",
    ("ittybit", 402): "The ittybit account is out of credit: top it up; waiting jobs go on by themselves.",
    ("ittybit", 403): "The ittybit key may not do this: check the key's project and the automation or connection.",
    ("ittybit", 404): "ittybit does not know it: check the automation or connection, and the key's project.",
    ("storage", 401): "Supabase does not accept the key: check SUPABASE_SECRET_KEY and SUPABASE_URL.",
    ("storage", 403): "Supabase does not accept the key: check SUPABASE_SECRET_KEY and SUPABASE_URL.",
    ("ledger", 400): "Correct SUPABASE_URL, or run ./deploy.sh database.",
    ("ledger", 401): "Supabase does not accept the key: check SUPABASE_SECRET_KEY and SUPABASE_URL.",
    ("ledger", 403): "The key is not the project's secret key: check SUPABASE_SECRET_KEY.",
    ("ledger", 404): "The database has no ittybit ledger: apply the migrations in supabase/migrations.",
}


class Answered(ServiceError):
    """The service answered, and the answer is an error."""


class Unanswered(ServiceError):
    """The service gave no answer that can be used."""


class Unfinished(ServiceError):
    """A search in the service's lists ran out of time. The next attempt continues it."""

    reason = "searching"


class Undecided(ServiceError):
    """The service's answers do not tell whether an earlier start took effect."""


class Unsupported(ServiceError):
    """ittybit's API, in the generation that answers, cannot do it."""

    reason = "unsupported"

    def __init__(self, service: Service, message: str) -> None:
        super().__init__(service, message, effect="fail")
