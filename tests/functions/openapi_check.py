"""Checks the functions' answers against docs/openapi.json with schemathesis."""

from __future__ import annotations

import json

import hypothesis.core
import requests
import schemathesis
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks
from werkzeug.test import TestResponse

from deploy.openapi import DOCUMENT

# schemathesis stops hypothesis from printing values in the whole process, because its own are large: undo that.
_printer = vars(hypothesis.core)["RepresentationPrinter"]
from schemathesis.generation.hypothesis import builder  # noqa: E402, F401 - importing this does it

vars(hypothesis.core)["RepresentationPrinter"] = _printer

load_all_checks()
SCHEMA = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text()))
OF_AN_ANSWER = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


# The checks of an answer need a request, but do not depend on it.
_REQUEST = requests.Request("POST", "http://localhost/").prepare()


def response(answer: TestResponse) -> schemathesis.Response:
    """The answer as schemathesis reads it."""
    headers = {name: answer.headers.getlist(name) for name in answer.headers.keys()}  # noqa: SIM118 - no mapping
    return schemathesis.Response(answer.status_code, headers, answer.data, _REQUEST, elapsed=0, verify=False)


def check(name: str, answer: TestResponse, *, method: str = "POST") -> None:
    """Fail unless the document describes this answer of the function; fail too if it is a 500 or counts a lost job."""
    assert answer.status_code != 500, answer.text
    assert '"lost"' not in answer.text
    if method == "HEAD":
        return
    case = SCHEMA[f"/{name}"]["POST"].Case()
    case.validate_response(response(answer), checks=OF_AN_ANSWER)
