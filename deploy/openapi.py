"""Write docs/openapi.json from the functions' models: ``python -m deploy.openapi``.

The requests are the models that the functions validate with. The answers are described only here, because deployed code
sends plain JSON. The tests compare every answer that they receive with the document.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from shared import __version__
from shared.database_webhook import MAX_EVENT_BYTES
from shared.edge import MAX_BODY_BYTES
from shared.errors import Service
from shared.ittybit_models import Connection

DOCUMENT = Path(__file__).parents[1] / "docs" / "openapi.json"
# The settings that importing the functions requires.
ENVIRONMENT = {
    "ITTYBIT_API_KEY": "unused",
    "SUPABASE_URL": "https://unused.example.com",
    "SUPABASE_SECRET_KEY": "unused",
}
EXACTLY = ConfigDict(extra="forbid")


class Exact(BaseModel):
    """An object of exactly these fields."""

    model_config = EXACTLY


class Started(Exact):
    """The run, task or job at ittybit."""

    id: str
    status: str = Field(description="Its status, as ittybit reports it.")


def _started(kind: str) -> Any:
    fields: dict[str, Any] = {"outcome": (Literal["started"], ...), kind: (Started, ...)}
    meaning = f"The requested {kind} was started."
    return create_model(f"{kind.title()}Started", __config__=EXACTLY, __doc__=meaning, **fields)


class Drained(Exact):
    """The answer to a wake-up: how many jobs were claimed, and how many steps had each outcome."""

    claimed: int = Field(description="0 when nothing was due.")
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    retry: int = 0
    hold: int = 0
    undecided: int = 0
    deleted: int = 0
    lost: int = Field(default=0, description="Steps without a known outcome: due again when their leases end.")
    busy: bool = Field(default=False, description="The maximum number of drains is running already.")


class Skipped(Exact):
    """There is nothing to do, and nothing is wrong."""

    outcome: Literal["skipped"]
    reason: str
    detail: str = ""


class FieldFault(Exact):
    """The error of one field of the request."""

    field: str
    message: str


class ServiceFault(Exact):
    """A service's error, or the failure of the call."""

    service: Service
    status: int | None = Field(description="Its HTTP status; null when it gave no answer.")
    kind: str | None = Field(description="The service's name for the error.")
    message: str


class Problem(Exact):
    """An error in the format of RFC 9457."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str = Field(description="What is wrong, and what to do about it.")
    id: str = Field(description="Names the call in the log.")
    errors: list[FieldFault] = []
    upstream: ServiceFault | None = Field(default=None, description="The service that failed or refused.")


# ittybit's connection without its secret.
SHOWN = {name: (one.annotation, ...) for name, one in Connection.model_fields.items() if name != "secret_access_key"}


class Registered(Exact):
    """The connection is as requested."""

    outcome: Literal["created", "unchanged", "replaced"]
    connection: create_model(  # type: ignore[valid-type] # its fields are known when it runs
        "Connection", __config__=EXACTLY, __doc__="The project's S3 keys at ittybit, without the secret.", **SHOWN
    )


# The answers of each function when all is well: by status, the meaning and the body.
WORKED = {
    200: ("Done, or nothing to do.", Drained | Skipped),
    # A run or a task in the generation *automations*, a job in *jobs*.
    202: ("Started.", _started("run") | _started("task") | _started("job")),
}
ANSWERS: dict[str, dict[int, tuple[str, Any]]] = {
    "on-upload": WORKED,
    "push-back": WORKED,
    "create-connection": {200: ("The connection is as requested.", Registered)},
}
PROBLEMS = {
    400: "The body is not JSON.",
    401: "No valid signature and no valid bearer token; the answer is the same for every reason.",
    405: "The method is not POST.",
    413: f"The body is over {MAX_BODY_BYTES} bytes; for a Database Webhook with the bearer token {MAX_EVENT_BYTES}.",
    415: "The body is not application/json.",
    422: "The request is wrong, or can never work; `errors` names the fields.",
    500: "Internal error; the log has it under the id.",
    503: "A service failed or did not answer: try again later.",
}
MORE_HEADERS = {200: "X-Version", 202: "X-Version", 401: "WWW-Authenticate", 405: "Allow", 503: "Retry-After"}
HEADERS: dict[str, tuple[str, dict[str, object]]] = {
    "X-Correlation-Id": ("Names the call in the answer, in the log and at ittybit.", {"type": "string"}),
    "X-Version": ("The function's version.", {"type": "string"}),
    "WWW-Authenticate": ("How to authenticate.", {"const": "Bearer"}),
    "Allow": ("The one method.", {"const": "POST"}),
    "Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 0}),
}
SIGNATURE = {
    "webhook-id": "The message's id; this and the next two make a Standard Webhooks signature.",
    "webhook-timestamp": "Unix seconds, not more than 5 minutes off.",
    "webhook-signature": "`v1,` and the base64 of an HMAC-SHA256 over id, timestamp and body.",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI document of all functions."""
    modules = {}
    with patch.dict(os.environ, ENVIRONMENT):
        for name in ANSWERS:
            modules[name] = importlib.import_module(f"functions.{name.replace('-', '_')}")
    bodies = {("", "problem"): Problem}
    for name, module in modules.items():
        bodies[name, "takes"] = module.Body if hasattr(module, "Body") else module.ConnectionRequest
        bodies |= {(name, str(status)): body for status, (_, body) in ANSWERS[name].items()}
    schemas, definitions = TypeAdapter.json_schemas(
        [(key, "validation", TypeAdapter(body)) for key, body in bodies.items()],
        ref_template="#/components/schemas/{model}",
    )
    by_key = {key: schema for (key, _), schema in schemas.items()}

    paths = {}
    for name, module in modules.items():
        summary, _, rest = (module.__doc__ or "").partition("\n\n")
        answers = {
            status: _answer(status, meaning, "application/json", by_key[name, str(status)])
            for status, (meaning, _) in ANSWERS[name].items()
        }
        answers |= {
            status: _answer(status, meaning, "application/problem+json", by_key["", "problem"])
            for status, meaning in PROBLEMS.items()
        }
        post = {
            "operationId": name.replace("-", "_"),
            "summary": summary.partition(": ")[2],
            "description": "```\n" + rest.strip() + "\n```",
            "requestBody": {"required": True, "content": {"application/json": {"schema": by_key[name, "takes"]}}},
            "responses": {str(status): answer for status, answer in answers.items()},
        }
        paths[f"/{name}"] = {"post": post}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Supabase Storage x ittybit",
            "version": __version__,
            "description": "Three functions: each on a host of its own, where every path leads to it, or all on one.",
        },
        "servers": [{"url": "https://{host}", "variables": {"host": {"default": "on-upload.example.com"}}}],
        "security": [{"bearer": []}, {name: [] for name in SIGNATURE}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "headers": {
                name: {"description": meaning, "required": True, "schema": schema}
                for name, (meaning, schema) in HEADERS.items()
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "FUNCTIONS_TOKEN."},
                **{
                    name: {"type": "apiKey", "in": "header", "name": name, "description": meaning}
                    for name, meaning in SIGNATURE.items()
                },
            },
        },
    }


def text() -> str:
    """Return the document as it is checked in."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _answer(status: int, meaning: str, mimetype: str, schema: Any) -> dict[str, Any]:
    headers = ["X-Correlation-Id", *filter(None, [MORE_HEADERS.get(status)])]
    return {
        "description": meaning,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {mimetype: {"schema": schema}},
    }


if __name__ == "__main__":
    DOCUMENT.write_text(text())
