"""docs/openapi.json is up to date and complete."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from deploy import openapi
from shared.ledger import Report

DOCUMENT: dict[str, Any] = json.loads(openapi.DOCUMENT.read_text())


def test_the_document_is_up_to_date() -> None:
    assert openapi.DOCUMENT.read_text() == openapi.text(), "make openapi"


def references(value: Any) -> set[str]:
    match value:
        case {"$ref": str(reference)}:
            return {reference}
        case dict():
            return {found for item in value.values() for found in references(item)}
        case list():
            return {found for item in value for found in references(item)}
    return set()


def test_every_reference_exists_and_every_component_is_used() -> None:
    parts = DOCUMENT["components"]
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "headers") for name in parts[kind]}
    assert references(DOCUMENT) == there


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_every_schema_is_valid(name: str) -> None:
    jsonschema_rs.meta.validate(DOCUMENT["components"]["schemas"][name])


def test_every_outcome_of_a_report_is_counted_in_an_answer() -> None:
    counted = DOCUMENT["components"]["schemas"]["Drained"]["properties"].keys()
    assert counted - {"claimed", "lost", "busy"} == set(Report.model_json_schema()["properties"]["outcome"]["enum"])
