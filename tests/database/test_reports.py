"""Reports: what each outcome does to a job in each state. Reports of one call are independent."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from tests.database.project import ON_UPLOAD, PROJECT, Project, report
from tests.database.rows import Row, rows
from tests.database.without_triggers import triggers_off

BUSY = {"service": "ittybit", "status": 503, "kind": "unavailable", "message": "later"}
MINE, OTHER = {"ittybit_id": "runs/1"}, {"ittybit_id": "runs/2"}


def in_state(database: Project, lease: Row, state: str) -> Row:
    """Bring the leased job to a state, and return its last lease."""
    if state in ("started", "succeeded", "broken"):
        database.report(lease, "started", **MINE)
        lease = database.next_lease()
        if state != "started":
            database.report(lease, "failed" if state == "broken" else state, **MINE)
    elif state != "queued":
        database.report(lease, state, reason="not_addressable")
    return lease


# `failed` is a start that was refused; `broken` a run that failed.
TRANSITIONS = [
    ("queued", "started", MINE, "started"),
    ("queued", "succeeded", MINE, "succeeded"),
    ("queued", "failed", MINE, "failed"),
    ("queued", "failed", {}, "failed"),
    ("queued", "skipped", {"reason": "not_addressable"}, "skipped"),
    ("queued", "retry", {}, "queued"),
    ("queued", "hold", {}, "queued"),
    ("started", "started", MINE, "started"),
    ("started", "succeeded", MINE, "succeeded"),
    ("started", "failed", MINE, "failed"),
    ("started", "retry", {}, "started"),
    ("started", "started", OTHER, None),
    ("started", "succeeded", OTHER, None),
    ("started", "failed", {}, None),
    ("started", "skipped", {}, None),
    ("started", "hold", {}, None),
    ("started", "undecided", {}, None),
    ("skipped", "started", MINE, "started"),
    ("skipped", "succeeded", MINE, "succeeded"),
    ("skipped", "skipped", {}, None),
    ("skipped", "retry", {}, None),
    ("failed", "started", MINE, "started"),
    ("failed", "failed", {}, None),
    ("failed", "hold", {}, None),
    ("succeeded", "started", MINE, None),
    ("succeeded", "failed", MINE, None),
    ("succeeded", "started", OTHER, None),
    ("succeeded", "retry", {}, None),
    ("broken", "started", MINE, None),
    ("broken", "succeeded", MINE, None),
    ("broken", "skipped", {}, None),
]


@pytest.mark.parametrize(("state", "outcome", "fields", "expected"), TRANSITIONS)
def test_an_outcome_moves_a_job_forward_or_not_at_all(
    database: Project, lease: Row, state: str, outcome: str, fields: dict[str, Any], expected: str | None
) -> None:
    lease = in_state(database, lease, state)
    before = database.job()
    answer = database.report(lease, outcome, **fields)
    after = database.job()
    assert ("refused" in answer) == (expected is None)
    if fields == OTHER:
        # There are two runs at ittybit: the job keeps the first, and the second is named and counted.
        assert after == before | {"reason": "also started as runs/2"}
        assert database.counted_starts() == 2
        database.report(lease, outcome, **fields)
        assert database.counted_starts() == 2
    elif expected is None:
        assert after == before
    else:
        assert after["state"] == expected
        assert (after["due_at"] is None) == (expected in ("succeeded", "failed", "skipped"))
        assert (after["finished_at"] is None) == (expected in ("queued", "started"))
        assert after["claimed_at"] is None


# A report without an id counts only for the current attempt. One with an id is a fact about ittybit.
@pytest.mark.parametrize(
    ("outcome", "fields", "state"),
    [
        ("retry", {"error": BUSY}, "queued"),
        ("hold", {"error": {"status": 402}}, "queued"),
        ("failed", {}, "queued"),
        ("skipped", {}, "queued"),
        ("undecided", {}, "queued"),
        ("started", MINE, "started"),
        ("succeeded", MINE, "succeeded"),
        ("failed", MINE, "failed"),
    ],
)
def test_a_late_report_counts_only_with_an_id(
    database: Project, lease: Row, outcome: str, fields: dict[str, Any], state: str
) -> None:
    newer = database.next_lease()
    before = database.job()
    answer = database.report(lease, outcome, **fields)
    after = database.job()
    assert answer == {"job": lease["job"]} | ({"refused": "claimed again since"} if state == "queued" else {})
    assert after["state"] == state
    if state == "queued":
        assert (after, database.sql("select from ittybit.holds")) == (before, [])
    else:
        # The newer attempt's reports are refused.
        assert "refused" in database.report(newer, "skipped", reason="gone")
        assert "refused" in database.report(newer, "failed")
        assert database.job()["state"] == state
        assert database.counted_starts() == 1


def test_a_late_report_of_a_start_keeps_the_newer_attempts_lease(database: Project, lease: Row) -> None:
    database.next_lease()
    before = database.job()
    database.report(lease, "started", **MINE)
    after = database.job()
    assert (after["due_at"], after["claimed_at"]) == (before["due_at"], before["claimed_at"])


def test_reports_without_a_lease_or_a_job_or_of_a_former_generation_are_each_refused(waiting: Project) -> None:
    ended, former, good = waiting.claim()
    waiting.report(ended, "retry")
    waiting.report(former, "failed")
    waiting.sql("select ittybit.retry(%s)", former["job"])
    before = waiting.jobs()
    refused = {
        str(uuid.UUID(int=0)): "there is no such job",
        ended["job"]: "not leased",
        former["job"]: "of another generation",
    }
    answers = waiting.reports(
        report(good | {"job": str(uuid.UUID(int=0))}, "retry"),
        report(ended, "retry"),
        report(former, "failed"),
        report(good, "started", **MINE),
    )
    assert answers == sorted(
        [{"job": job, "refused": why} for job, why in refused.items()] + [{"job": good["job"]}],
        key=lambda answer: answer["job"],
    )
    assert [job for job in waiting.jobs() if str(job["id"]) != good["job"]] == before[:2]
    assert waiting.job("3.mp4")["state"] == "started"


BAD: list[Any] = [
    None,
    5,
    "started",
    [],
    {},
    {"outcome": "done"},
    {"outcome": "started"},
    {"outcome": "succeeded"},
    {"job": 5},
    {"job": None},
    {"generation": "one"},
    {"attempt": {}},
    {"outcome": "started", "ittybit_id": "runs/9", "progress": "half"},
    {"outcome": "succeeded", "ittybit_id": "runs/9", "outputs": "s3://results/a"},
    {"retry_after": "soon"},
    {"in_doubt": "perhaps"},
]


@pytest.mark.parametrize("over", ["report", "claim"])
@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_bad_report_does_not_lose_the_others(waiting: Project, bad: Any, over: str) -> None:
    first, second, third = waiting.claim()
    wrong = report(second, "retry") | bad if isinstance(bad, dict) and bad else bad
    sent = [report(first, "started", **MINE), wrong, report(third, "started", **OTHER)]
    before = waiting.job("2.mp4")
    if over == "report":
        answers = waiting.reports(*sent)
    else:
        parameters = ["on-upload", PROJECT, psycopg.types.json.Jsonb(sent)]
        [row] = rows(waiting.service, "select public.ittybit_claim(%s, %s, 1, %s) as answer", *parameters)
        answers = row["answer"]["reports"]
    assert [answer.get("job") for answer in answers if "refused" not in answer] == sorted([first["job"], third["job"]])
    assert len(answers) == 3
    assert [job["state"] for job in waiting.jobs()] == ["started", "queued", "started"]
    assert (waiting.job("2.mp4"), waiting.counted_starts()) == (before, 2)


def test_reports_on_locked_jobs_do_not_lose_the_others(waiting: Project) -> None:
    leases = waiting.claim()
    with waiting.connect("supabase_admin") as other, other.transaction(force_rollback=True):
        other.execute("select from ittybit.jobs where name in ('1.mp4', '3.mp4') for update")
        answers = waiting.reports(*(report(lease, "started", ittybit_id=lease["job"]) for lease in leases))
    assert (
        sorted(answer.get("refused", "") for answer in answers)
        == [""] + ["canceling statement due to lock timeout"] * 2
    )
    assert [job["state"] for job in waiting.jobs()] == ["queued", "started", "queued"]


@pytest.mark.parametrize("reports", ["null", "{}", "5", None])
def test_reports_must_be_an_array(database: Project, reports: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="reports must be an array"):
        rows(database.service, "select public.ittybit_report(%s::jsonb)", reports)


@pytest.mark.parametrize("outcome", ["started", "retry", "hold", "undecided", "skipped", "failed"])
@pytest.mark.parametrize("together", [True, False])
def test_a_duplicate_report_counts_once(database: Project, lease: Row, outcome: str, together: bool) -> None:
    fields = {"error": BUSY, "reason": "why", "in_doubt": outcome == "undecided"}
    sent = report(lease, outcome, **fields | (MINE if outcome == "started" else {}))
    if together:
        first, second = database.reports(sent, sent)
    else:
        [first] = database.reports(sent)
        before = database.job()
        [second] = database.reports(sent)
        assert database.job() == before
    assert ("refused" in first, "refused" in second) == (False, True)
    assert database.job()["failures"] == (1 if outcome == "retry" else 0)
    assert database.counted_starts() == (1 if outcome in ("started", "undecided") else 0)


def test_a_late_report_of_a_start_reopens_a_skipped_job(database: Project, lease: Row) -> None:
    database.report(lease, "skipped", reason="not_addressable")
    assert "refused" not in database.report(lease, "started", **MINE)
    job = database.job()
    assert (job["state"], job["reason"], job["finished_at"], job["ittybit_id"]) == ("started", None, None, "runs/1")
    assert 4 < database.seconds_left() <= 5


@pytest.mark.parametrize("reason", ["gone", "superseded", "rule_deleted"])
def test_a_job_reported_gone_is_retried_while_its_object_is_there(database: Project, lease: Row, reason: str) -> None:
    assert "refused" not in database.report(lease, "skipped", reason=reason)
    assert (database.states(), database.job()["failures"]) == ([("a.mp4", "queued", None)], 1)
    assert 11 < database.seconds_left() <= 18
    lease = database.next_lease()
    with triggers_off(database):
        database.superuser.execute("delete from storage.objects")
    database.report(lease, "skipped", reason=reason)
    assert database.states() == [("a.mp4", "skipped", "gone")]


def test_success_keeps_the_outputs_and_clears_earlier_errors(database: Project, lease: Row) -> None:
    database.report(lease, "retry", error=BUSY)
    outputs = ["s3://results/a.mp4", "https://x.test/b"]
    database.report(database.next_lease(), "succeeded", outputs=outputs, **MINE)
    job = database.job()
    assert job["outputs"] == outputs
    assert (job["progress"], job["failures"], job["failing_since"], job["error"]) == (100, 0, None, None)
    assert job["in_doubt_since"] is None


@pytest.mark.parametrize(("given", "kept"), [("corrupt", "corrupt"), (None, "ittybit_failed")])
def test_a_failure_keeps_the_error_and_has_a_reason(
    database: Project, lease: Row, given: str | None, kept: str
) -> None:
    database.report(lease, "failed", error=BUSY, reason=given, **MINE)
    job = database.job()
    assert (job["reason"], job["error"]) == (kept, BUSY)


def test_the_last_report_wakes_the_function_again_if_work_is_left(waiting: Project) -> None:
    first, _ = waiting.claim(jobs=2)
    waiting.messages()
    waiting.report(first, "started", **MINE)
    [call] = waiting.messages()
    assert (call["url"], call["body"]) == (ON_UPLOAD, {"type": "jobs.due"})
    [last] = waiting.claim()
    waiting.report(last, "started", **OTHER)
    assert waiting.messages() == []
