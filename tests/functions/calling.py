"""Calls the functions in this process, as functions-framework serves them, with a signature or with the token."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from unittest.mock import patch

import functions_framework
from standardwebhooks import Webhook
from werkzeug.test import Client, TestResponse

from local.functions import ROOT

NAMES = ("on-upload", "push-back", "create-connection")
# Enough to start, but no service at the addresses: for requests that are refused before any service is called.
NOWHERE = {
    "ITTYBIT_API_KEY": "ittybit_key_of_the_tests",
    "ITTYBIT_API_URL": "http://127.0.0.1:9",
    "SUPABASE_URL": "http://127.0.0.1:9",
    "SUPABASE_SECRET_KEY": "sb_secret_of_the_tests",
    "FUNCTIONS_SECRET": "whsec_" + base64.b64encode(b"the secret of the tests alone").decode(),
    "FUNCTIONS_TOKEN": "the-token-of-the-tests",
}
JSON = {"Content-Type": "application/json"}
WAKE_UP = {"type": "jobs.due"}


def sign(secret: str, body: bytes, *, at: float | None = None, message_id: str = "msg_1") -> dict[str, str]:
    """The headers of a Standard Webhooks signature over the body."""
    stamp = int(time.time() if at is None else at)
    signature = Webhook(secret).sign(message_id, datetime.fromtimestamp(stamp, UTC), body.decode())
    return {"webhook-id": message_id, "webhook-timestamp": str(stamp), "webhook-signature": signature}


@dataclass(frozen=True)
class Function:
    """One function, made from its file by functions-framework."""

    name: str
    client: Client
    environment: Mapping[str, str]

    @classmethod
    def make(cls, name: str, environment: Mapping[str, str], **changes: str | None) -> Self:
        """Make it in this environment with these variables changed; None removes one."""
        merged = {**environment, **changes}
        there = {variable: value for variable, value in merged.items() if value is not None}
        target = name.replace("-", "_")
        with patch.dict(os.environ, {"PATH": os.environ["PATH"], **there}, clear=True):
            source = str(ROOT / "functions" / f"{target}.py")
            app = functions_framework.create_app(target, source)  # type: ignore[no-untyped-call] # has no types
        return cls(name, app.test_client(), there)

    @property
    def bearer(self) -> dict[str, str]:
        """The header of a person who has the token."""
        return {"Authorization": f"Bearer {self.environment['FUNCTIONS_TOKEN']}"}

    def send(self, body: bytes, headers: Mapping[str, str]) -> TestResponse:
        """Send these bytes with these headers; the content type is JSON unless they name another."""
        return self.client.post("/", data=body, headers={**JSON, **headers})

    def ask(self, body: Any, **headers: str) -> TestResponse:
        """Send a request as a person does: with the token."""
        return self.send(json.dumps(body).encode(), {**self.bearer, **headers})

    def tell(self, body: Any) -> TestResponse:
        """Send a message as the database does: signed."""
        raw = json.dumps(body).encode()
        return self.send(raw, sign(self.environment["FUNCTIONS_SECRET"].partition(",")[0], raw))

    def drain(self) -> dict[str, Any]:
        """Wake it as the database does, and return the counts that it answers."""
        answer = self.tell(WAKE_UP)
        assert answer.status_code == 200, answer.text
        counts: dict[str, Any] = answer.get_json()
        return counts


def outcome(answer: TestResponse, status: int, outcome: str) -> dict[str, Any]:
    """Return the body of an answer, which must have this status and this outcome."""
    body: dict[str, Any] = answer.get_json()
    assert (answer.status_code, body.get("outcome")) == (status, outcome), body
    return body
