"""docs/errors.md is whole: it has every error and reason that the code and the migrations know, and no other."""

from __future__ import annotations

import re

from local.functions import ROOT
from shared import errors, objects, s3_probe
from tests import documents, said

SHARED = ROOT / "shared"
SECTIONS = documents.sections((ROOT / "docs" / "errors.md").read_text())


def column(section: str, place: int = 0, table: int = 0) -> list[str]:
    """A column of a section's table, without its head."""
    return [row[place] for row in documents.tables(SECTIONS[section])[table][1:]]


def messages(section: str, place: int = 0, table: int = 0) -> list[str]:
    """What stands in backticks in a column, of which each cell has one."""
    found = [documents.code(cell) for cell in column(section, place, table)]
    assert all(len(each) == 1 for each in found), section
    return [message for [message] in found]


def rows(section: str, table: int = 0) -> set[tuple[str, str]]:
    """The first column, and what stands in backticks in the second."""
    return set(zip(column(section, 0, table), messages(section, 1, table), strict=True))


def test_every_status() -> None:
    refused = {call.arguments[0] for call in said.calls("Refused")} | {"401"}
    at_the_edge = set(re.findall(r"\b(422|500|503)\b", (SHARED / "edge.py").read_text()))
    assert column("A function answers") == sorted(refused | at_the_edge)


def test_every_request_that_is_not_taken() -> None:
    refused = {(call.arguments[0], call.arguments[1]) for call in said.calls("Refused")}
    told = rows("Requests that are not taken")
    assert refused <= told
    [unauthenticated] = [call.arguments for call in said.calls("__init__") if call.file == "authentication.py"]
    # Whose detail is known here; the others pass one on.
    faults = {call.arguments[1] for call in said.calls("_details") if call.file == "edge.py"} - {"…", "…: …. …"}
    assert {row for row in told if row[1] not in faults} - refused == {(unauthenticated[0], unauthenticated[1])}
    assert faults <= {detail for _, detail in told}


def test_every_way_to_fail_to_authenticate() -> None:
    reasons = {call.arguments[0] for call in said.calls("Unauthenticated")} - {"…"}
    source = (SHARED / "authentication.py").read_text()
    assert 'f"signature: {error}" if isinstance(error, WebhookVerificationError) else "malformed signature"' in source
    assert set(messages("Why authentication failed")) == reasons | {"signature: …", "malformed signature"}


def test_every_field_that_is_wrong() -> None:
    invalid = {call.arguments[0] for call in said.calls("ValueError") if call.file in ("objects.py", "steps.py")}
    destinations = said.assigned(ROOT / "functions" / "push_back.py", "reason")
    [missing] = re.findall(r'\(name, "(missing.*?)"\)', (ROOT / "functions" / "create_connection.py").read_text())
    assert set(messages("Fields that are wrong")) == invalid | destinations | {missing}


def test_every_finding_about_keys() -> None:
    known = {(field, re.sub(r"\{[^}]*\}", "…", detail)) for field, detail in s3_probe._FINDINGS.values()}
    others = {(call.arguments[0], call.arguments[1]) for call in said.calls("Finding")}
    [left] = said.assigned(SHARED / "s3_probe.py", "left")
    # The one that is made of what is known already.
    assert rows("Keys that do not work") == (known | others | {("any", left)}) - {("…", "…")}


def test_every_remedy() -> None:
    section = "Services that do not do their part"
    told: dict[tuple[str, str], str] = {}
    for services, remedy in rows(section):
        service, _, statuses = services.partition(" ")
        told |= {(service, status): remedy for status in statuses.split(", ")}
    known = {(service, str(status)): remedy for (service, status), remedy in errors._REMEDIES.items()}
    assert {key: remedy for key, remedy in told.items() if key[1].isdigit()} == known
    others = {remedy for (_, status), remedy in told.items() if not status.isdigit()}
    assert others == said.returned(SHARED / "errors.py", "remedy")


def test_every_message_about_a_service() -> None:
    failures = said.calls("Unanswered", "Unfinished", "Undecided", "Unsupported", "ServiceError")
    # Those of S3 come as findings.
    known = {
        (call.arguments[0].replace("…", "any"), call.arguments[1]) for call in failures if call.arguments[0] != "s3"
    }
    assert rows("Services that do not do their part", table=1) == known | {("any", "HTTP …")}


def test_every_reason_not_to_start_a_function() -> None:
    invalid = {call.arguments[0] for call in said.calls("ValueError") if call.file == "settings.py"}
    assert set(messages("A function does not start")) == invalid | {"… is missing"}


def test_every_state_of_a_job() -> None:
    assert set(messages("A job in the ledger")) == said.states()


def test_every_reason_in_the_ledger() -> None:
    recorded, unrecorded = said.skips()
    skipped = {call.arguments[0] for call in said.calls("Skipped") if call.file == "objects.py"}
    assert "'also started as '" in said.MIGRATIONS
    assert set(messages("Why it failed")) == said.failures() | {
        errors.Unsupported.reason,
        objects.NOT_SIGNED,
        "also started as …",
    }
    assert set(messages("Why it was skipped")) == recorded | skipped
    assert set(messages("Why it was skipped", table=1)) == unrecorded
    assert set(messages("What it waits for")) == said.waits()


def test_every_reason_in_plain_mode() -> None:
    section = "Why on-upload skipped a webhook (plain mode)"
    known = {call.arguments[0] for call in said.calls("Skipped")}
    as_above = set(documents.code(SECTIONS[section].partition("Besides ")[2].partition("|")[0]))
    assert set(messages(section)) | as_above == known
    assert as_above <= {*messages("Why it was skipped"), *messages("Why it was skipped", table=1)}


def test_every_error_and_warning_of_sql() -> None:
    assert set(messages("SQL says")) == said.raised("exception")
    assert set(messages("SQL says", table=1)) == said.raised("warning")
