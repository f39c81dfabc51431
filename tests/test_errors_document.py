"""docs/errors.md has exactly the errors and reasons that the code and the migrations have."""

from __future__ import annotations

import re

from local.functions import ROOT
from shared import errors, objects, s3_probe
from tests import documents, in_code

SHARED = ROOT / "shared"
SECTIONS = documents.sections((ROOT / "docs" / "errors.md").read_text())


def column(section: str, place: int = 0, table: int = 0) -> list[str]:
    """A column of a section's table, without its head."""
    return [row[place] for row in documents.tables(SECTIONS[section])[table][1:]]


def messages(section: str, place: int = 0, table: int = 0) -> list[str]:
    """The texts in backticks in a column: one in each cell."""
    found = [documents.code(cell) for cell in column(section, place, table)]
    assert all(len(each) == 1 for each in found), section
    return [message for [message] in found]


def rows(section: str, table: int = 0) -> set[tuple[str, str]]:
    """The first column, and the text in backticks in the second."""
    return set(zip(column(section, 0, table), messages(section, 1, table), strict=True))


def test_every_status_is_documented() -> None:
    refused = {call.arguments[0] for call in in_code.calls("Refused")} | {"401"}
    at_the_edge = set(re.findall(r"\b(422|500|503)\b", (SHARED / "edge.py").read_text()))
    assert column("A function answers") == sorted(refused | at_the_edge)


def test_every_refused_request_is_documented() -> None:
    refused = {(call.arguments[0], call.arguments[1]) for call in in_code.calls("Refused")}
    documented = rows("Requests that are not taken")
    assert refused <= documented
    [unauthenticated] = [call.arguments for call in in_code.calls("__init__") if call.file == "authentication.py"]
    # Those with a constant detail. The others pass one on.
    faults = {call.arguments[1] for call in in_code.calls("_details") if call.file == "edge.py"} - {"…", "…: …. …"}
    assert {row for row in documented if row[1] not in faults} - refused == {(unauthenticated[0], unauthenticated[1])}
    assert faults <= {detail for _, detail in documented}


def test_every_authentication_failure_is_documented() -> None:
    reasons = {call.arguments[0] for call in in_code.calls("Unauthenticated")} - {"…"}
    source = (SHARED / "authentication.py").read_text()
    assert 'f"signature: {error}" if isinstance(error, WebhookVerificationError) else "malformed signature"' in source
    assert set(messages("Why authentication failed")) == reasons | {"signature: …", "malformed signature"}


def test_every_wrong_field_is_documented() -> None:
    invalid = {call.arguments[0] for call in in_code.calls("ValueError") if call.file in ("objects.py", "steps.py")}
    destinations = in_code.assigned(ROOT / "functions" / "push_back.py", "reason")
    [missing] = re.findall(r'\(name, "(missing.*?)"\)', (ROOT / "functions" / "create_connection.py").read_text())
    assert set(messages("Fields that are wrong")) == invalid | destinations | {missing}


def test_every_finding_about_keys_is_documented() -> None:
    known = {(field, re.sub(r"\{[^}]*\}", "…", detail)) for field, detail in s3_probe._FINDINGS.values()}
    others = {(call.arguments[0], call.arguments[1]) for call in in_code.calls("Finding")}
    [left] = in_code.assigned(SHARED / "s3_probe.py", "left")
    # Without the call that makes a finding out of those known already.
    assert rows("Keys that do not work") == (known | others | {("any", left)}) - {("…", "…")}


def test_every_remedy_is_documented() -> None:
    section = "Services that do not do their part"
    documented: dict[tuple[str, str], str] = {}
    for services, remedy in rows(section):
        service, _, statuses = services.partition(" ")
        documented |= {(service, status): remedy for status in statuses.split(", ")}
    known = {(service, str(status)): remedy for (service, status), remedy in errors._REMEDIES.items()}
    assert {key: remedy for key, remedy in documented.items() if key[1].isdigit()} == known
    others = {remedy for (_, status), remedy in documented.items() if not status.isdigit()}
    assert others == in_code.returned(SHARED / "errors.py", "remedy")


def test_every_message_about_a_service_is_documented() -> None:
    failures = in_code.calls("Unanswered", "Unfinished", "Undecided", "Unsupported", "ServiceError")
    # S3's errors are findings.
    known = {
        (call.arguments[0].replace("…", "any"), call.arguments[1]) for call in failures if call.arguments[0] != "s3"
    }
    assert rows("Services that do not do their part", table=1) == known | {("any", "HTTP …")}


def test_every_reason_not_to_start_a_function_is_documented() -> None:
    invalid = {call.arguments[0] for call in in_code.calls("ValueError") if call.file == "settings.py"}
    assert set(messages("A function does not start")) == invalid | {"… is missing"}


def test_every_state_of_a_job_is_documented() -> None:
    assert set(messages("A job in the ledger")) == in_code.states()


def test_every_reason_in_the_ledger_is_documented() -> None:
    recorded, unrecorded = in_code.skips()
    skipped = {call.arguments[0] for call in in_code.calls("Skipped") if call.file == "objects.py"}
    assert "'also started as '" in in_code.MIGRATIONS
    assert set(messages("Why it failed")) == in_code.failures() | {
        errors.Unsupported.reason,
        objects.NOT_SIGNED,
        "also started as …",
    }
    assert set(messages("Why it was skipped")) == recorded | skipped
    assert set(messages("Why it was skipped", table=1)) == unrecorded
    assert set(messages("What it waits for")) == in_code.waits()


def test_every_reason_in_plain_mode_is_documented() -> None:
    section = "Why on-upload skipped a webhook (plain mode)"
    known = {call.arguments[0] for call in in_code.calls("Skipped")}
    as_above = set(documents.code(SECTIONS[section].partition("Besides ")[2].partition("|")[0]))
    assert set(messages(section)) | as_above == known
    assert as_above <= {*messages("Why it was skipped"), *messages("Why it was skipped", table=1)}


def test_every_error_and_warning_of_sql_is_documented() -> None:
    assert set(messages("SQL says")) == in_code.raised("exception")
    assert set(messages("SQL says", table=1)) == in_code.raised("warning")
