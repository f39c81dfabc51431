"""docs/openapi.json, made of the functions' models: ``python -m deploy.openapi``.

The requests are what the functions themselves validate. The answers are described here and nowhere in what is deployed;
the tests hold every answer that they see against the document.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydantic import TypeAdapter

from deploy.response_models import Drained, JobStarted, Problem, Registered, RunStarted, Skipped, TaskStarted
from shared import __version__
from shared.database_webhook import MAX_EVENT_BYTES
from shared.edge import MAX_BODY_BYTES

DOCUMENT = Path(__file__).parents[1] / "docs" / "openapi.json"
# Enough to import the functions with.
ENVIRONMENT = {
    "ITTYBIT_API_KEY": "unused",
    "SUPABASE_URL": "https://unused.example.com",
    "SUPABASE_SECRET_KEY": "unused",
}

# What each function answers when all is well: by status, what it means and its body.
ANSWERS: dict[str, dict[int, tuple[str, Any]]] = {
    "on-upload": {
        200: ("Done, or nothing to do.", Drained | Skipped),
        202: ("Started.", RunStarted | TaskStarted | JobStarted),
    },
    "push-back": {
        200: ("Done, or nothing to do.", Drained | Skipped),
        202: ("Started.", RunStarted | TaskStarted | JobStarted),
    },
    "create-connection": {200: ("The connection is what was asked for.", Registered)},
}
PROBLEMS = {
    400: "The body is not JSON.",
    401: "Neither a signature nor a bearer token that is right; one answer for every reason.",
    405: "Another method than POST.",
    413: f"The body is over {MAX_BODY_BYTES} bytes; for a Database Webhook with the bearer token {MAX_EVENT_BYTES}.",
    415: "The body is not application/json.",
    422: "The request is wrong, or can never work; `errors` names the fields.",
    500: "A fault of ours; the log has it under the id.",
    503: "A service did not do its part: try again later.",
}
MORE_HEADERS = {401: "WWW-Authenticate", 405: "Allow", 503: "Retry-After"}
HEADERS = {
    "X-Correlation-Id": ("Names the call in the answer, in the log and at ittybit.", {"type": "string"}),
    "X-Version": ("The function's version.", {"type": "string"}),
    "WWW-Authenticate": ("How to prove oneself.", {"const": "Bearer"}),
    "Allow": ("The one method.", {"const": "POST"}),
    "Retry-After": ("Seconds to wait.", {"type": "integer", "minimum": 0}),
}
SIGNATURE = {
    "webhook-id": "The message's id; this and the next two are a signature of Standard Webhooks.",
    "webhook-timestamp": "Unix seconds, not more than 5 minutes off.",
    "webhook-signature": "`v1,` and the base64 of an HMAC-SHA256 over id, timestamp and body.",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI document of all functions."""
    adapters: dict[tuple[str, str], TypeAdapter[Any]] = {("", "problem"): TypeAdapter(Problem)}
    modules = {name: _import(name) for name in ANSWERS}
    for name, module in modules.items():
        takes = module.Body if hasattr(module, "Body") else module.ConnectionRequest
        adapters[name, "takes"] = TypeAdapter(takes)
        adapters |= {(name, str(status)): TypeAdapter(body) for status, (_, body) in ANSWERS[name].items()}
    schemas, definitions = TypeAdapter.json_schemas(
        [(key, "validation", adapter) for key, adapter in adapters.items()],
        ref_template="#/components/schemas/{model}",
    )
    by_key = {key: schema for (key, _), schema in schemas.items()}
    paths = {}
    for name, module in modules.items():
        answers = {
            str(status): _answer(
                meaning, "application/json", by_key[name, str(status)], ["X-Correlation-Id", "X-Version"]
            )
            for status, (meaning, _) in ANSWERS[name].items()
        }
        problems = {
            str(status): _answer(
                meaning,
                "application/problem+json",
                by_key["", "problem"],
                ["X-Correlation-Id", *filter(None, [MORE_HEADERS.get(status)])],
            )
            for status, meaning in PROBLEMS.items()
        }
        summary, _, rest = (module.__doc__ or "").partition("\n\n")
        post = {
            "operationId": name.replace("-", "_"),
            "summary": summary.partition(": ")[2],
            "description": "```\n" + rest.strip() + "\n```",
            "requestBody": {"required": True, "content": {"application/json": {"schema": by_key[name, "takes"]}}},
            "responses": answers | problems,
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


def _import(name: str) -> Any:
    with patch.dict(os.environ, ENVIRONMENT):
        return importlib.import_module(f"functions.{name.replace('-', '_')}")


def _answer(meaning: str, mimetype: str, schema: Any, headers: list[str]) -> dict[str, Any]:
    return {
        "description": meaning,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {mimetype: {"schema": schema}},
    }


if __name__ == "__main__":
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text())
