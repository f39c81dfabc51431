"""Reports: what each outcome makes of a job in each state, each by itself."""

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
    """Bring the leased job to a state, and return a lease of it if it has one."""
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
        # A second run there is all the same: the one known first is followed, the other is named and counted.
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


# What an attempt says without an id speaks for itself alone; what ittybit does is a fact.
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
        # The newer attempt has no more to say.
        assert "refused" in database.report(newer, "skipped", reason="gone")
        assert "refused" in database.report(newer, "failed")
        assert database.job()["state"] == state
        assert database.counted_starts() == 1


def test_what_a_late_start_leaves_to_the_attempt_that_holds_the_job(database: Project, lease: Row) -> None:
    database.next_lease()
    before = database.job()
    database.report(lease, "started", **MINE)
    after = database.job()
    assert (after["due_at"], after["claimed_at"]) == (before["due_at"], before["claimed_at"])


def test_reports_without_a_lease_or_a_job_or_of_a_former_generation_are_refused_one_by_one(waiting: Project) -> None:
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
def test_one_bad_report_loses_no_other(waiting: Project, bad: Any, over: str) -> None:
    first, second, third = waiting.claim()
    wrong = report(second, "retry") | bad if isinstance(bad, dict) and bad else bad
    told = [report(first, "started", **MINE), wrong, report(third, "started", **OTHER)]
    before = waiting.job("2.mp4")
    if over == "report":
        answers = waiting.reports(*told)
    else:
        parameters = ["on-upload", PROJECT, psycopg.types.json.Jsonb(told)]
        [row] = rows(waiting.service, "select public.ittybit_claim(%s, %s, 1, %s) as answer", *parameters)
        answers = row["answer"]["reports"]
    assert [answer.get("job") for answer in answers if "refused" not in answer] == sorted([first["job"], third["job"]])
    assert len(answers) == 3
    assert [job["state"] for job in waiting.jobs()] == ["started", "queued", "started"]
    assert (waiting.job("2.mp4"), waiting.counted_starts()) == (before, 2)


def test_reports_on_jobs_that_others_hold_lose_no_other(waiting: Project) -> None:
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
def test_reports_that_are_no_array_are_an_error(database: Project, reports: str | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="reports must be an array"):
        rows(database.service, "select public.ittybit_report(%s::jsonb)", reports)


@pytest.mark.parametrize("outcome", ["started", "retry", "hold", "undecided", "skipped", "failed"])
@pytest.mark.parametrize("together", [True, False])
def test_a_duplicate_report_counts_once(database: Project, lease: Row, outcome: str, together: bool) -> None:
    fields = {"error": BUSY, "reason": "why", "in_doubt": outcome == "undecided"}
    told = report(lease, outcome, **fields | (MINE if outcome == "started" else {}))
    if together:
        first, second = database.reports(told, told)
    else:
        [first] = database.reports(told)
        before = database.job()
        [second] = database.reports(told)
        assert database.job() == before
    assert ("refused" in first, "refused" in second) == (False, True)
    assert database.job()["failures"] == (1 if outcome == "retry" else 0)
    assert database.counted_starts() == (1 if outcome in ("started", "undecided") else 0)


def test_a_late_start_brings_a_skipped_job_back(database: Project, lease: Row) -> None:
    database.report(lease, "skipped", reason="not_addressable")
    assert "refused" not in database.report(lease, "started", **MINE)
    job = database.job()
    assert (job["state"], job["reason"], job["finished_at"], job["ittybit_id"]) == ("started", None, None, "runs/1")
    assert 4 < database.seconds_left() <= 5


@pytest.mark.parametrize("reason", ["gone", "superseded", "rule_deleted"])
def test_an_object_that_the_ledger_still_sees_is_tried_again(database: Project, lease: Row, reason: str) -> None:
    assert "refused" not in database.report(lease, "skipped", reason=reason)
    assert (database.states(), database.job()["failures"]) == ([("a.mp4", "queued", None)], 1)
    assert 11 < database.seconds_left() <= 18
    lease = database.next_lease()
    with triggers_off(database):
        database.superuser.execute("delete from storage.objects")
    database.report(lease, "skipped", reason=reason)
    assert database.states() == [("a.mp4", "skipped", "gone")]


def test_success_keeps_the_addresses_and_forgets_the_troubles(database: Project, lease: Row) -> None:
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


def test_a_last_report_that_leaves_work_wakes_the_function_again(waiting: Project) -> None:
    first, _ = waiting.claim(jobs=2)
    waiting.messages()
    waiting.report(first, "started", **MINE)
    [call] = waiting.messages()
    assert (call["url"], call["body"]) == (ON_UPLOAD, {"type": "jobs.due"})
    [last] = waiting.claim()
    waiting.report(last, "started", **OTHER)
    assert waiting.messages() == []
