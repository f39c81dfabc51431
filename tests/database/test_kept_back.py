"""Pauses, ceilings, disabled rules and holds keep starts back: they are neither woken for nor claimed."""

from __future__ import annotations

import pytest

from tests.database.project import ON_UPLOAD, TASK, Project
from tests.database.rows import Row

HELD = "insert into ittybit.holds (scope, probe_at) values (%s, now() + interval '5 minutes')"
GATES: dict[str, tuple[str, str]] = {
    "paused": ("update ittybit.settings set paused = true", "select ittybit.resume()"),
    "tripped": ("update ittybit.settings set tripped_at = now()", "select ittybit.resume()"),
    "the hour's ceiling": (
        "with c as (insert into ittybit.starts values (date_trunc('hour', now()), 5, 5))"
        " update ittybit.settings set starts_per_hour = 5",
        "update ittybit.starts set hour = hour - interval '1 hour'",
    ),
    "the day's ceiling": (
        "with c as (insert into ittybit.starts values"
        " (date_trunc('hour', now()), 3, 3), (date_trunc('hour', now()) - interval '20 hours', 5, 5))"
        " update ittybit.settings set starts_per_day = 8",
        "update ittybit.starts set hour = hour - interval '5 hours'",
    ),
    "a disabled rule": ("update ittybit.rules set enabled = false", "update ittybit.rules set enabled = true"),
    "a hold": (
        "insert into ittybit.holds (scope, probe_at) values ('all', now() + interval '1 minute')",
        "delete from ittybit.holds",
    ),
}


def names(leases: list[Row]) -> list[str]:
    return [lease["name"] for lease in leases]


@pytest.mark.parametrize(("shut", "opened"), GATES.values(), ids=GATES)
def test_starts_that_are_kept_back_stay_unchanged_and_continue_by_themselves(
    waiting: Project, shut: str, opened: str
) -> None:
    before = waiting.jobs()
    waiting.sql(shut)
    assert (waiting.work(), waiting.wake()) == (0, 0)
    assert waiting.claim() == []
    assert waiting.jobs() == before
    waiting.put("4.mp4")
    assert waiting.messages() == []
    waiting.sql(opened)
    assert waiting.wake() == 1
    assert names(waiting.claim())[:3] == ["1.mp4", "2.mp4", "3.mp4"]


@pytest.mark.parametrize("shut", [shut for shut, _ in GATES.values()], ids=GATES)
def test_checks_are_not_kept_back(waiting: Project, shut: str) -> None:
    waiting.sql("update ittybit.jobs set state = 'started', ittybit_id = 'runs/1' where name = '2.mp4'")
    waiting.sql(shut)
    assert (waiting.work(), waiting.wake()) == (1, 1)
    assert [lease["step"] for lease in waiting.claim()] == ["check"]


def test_a_claim_leases_as_many_starts_as_the_ceiling_allows(waiting: Project) -> None:
    waiting.settings(starts_per_hour=2)
    assert names(waiting.claim()) == ["1.mp4", "2.mp4"]
    assert waiting.claim() == []


@pytest.mark.parametrize(
    ("scope", "rules"),
    [
        ("all", []),
        ("function:on-upload", ["task"]),
        ("function:push-back", ["automation", "third"]),
        ("rule:automation", ["task", "third"]),
    ],
)
def test_a_hold_keeps_back_only_the_jobs_of_its_scope(database: Project, scope: str, rules: list[str]) -> None:
    database.rule("automation")
    database.rule("task", task=TASK)
    database.rule("third", automation_id="other")
    database.put("a.mp4")
    database.sql(HELD, scope)
    claimed = [lease["job"] for function in ("on-upload", "push-back") for lease in database.claim(function)]
    of_rules = database.sql("select rule from ittybit.jobs where id::text = any (%s) order by rule", claimed)
    assert [row["rule"] for row in of_rules] == sorted(rules)


def test_only_one_held_job_probes_at_a_time(waiting: Project) -> None:
    waiting.sql(HELD, "all")
    assert waiting.claim() == []
    waiting.sql("update ittybit.holds set probe_at = now()")
    claimed = waiting.claims_at_once(3)
    assert sorted(map(len, claimed)) == [0, 0, 1]
    assert (waiting.claim(), waiting.work()) == ([], 0)
    [probe] = max(claimed, key=len)
    # The probe is lost. When its lease ends, it is looked for, and another job may probe.
    waiting.pass_time(61)
    search, another = waiting.claim()
    assert (search["job"], search["step"], another["step"]) == (probe["job"], "search", "start")
    waiting.report(another, "started", ittybit_id="runs/1")
    assert waiting.sql("select from ittybit.holds") == []
    assert len(waiting.claim()) == 1


def test_a_job_under_two_holds_probes_when_both_allow_it(waiting: Project) -> None:
    waiting.sql(HELD, "all")
    waiting.sql(HELD, "rule:clips")
    waiting.sql("update ittybit.holds set probe_at = now() where scope = 'all'")
    assert waiting.claim() == []
    waiting.sql("update ittybit.holds set probe_at = now()")
    assert len(waiting.claim()) == 1


def test_a_job_that_must_wait_for_its_output_is_not_chosen_as_a_probe(database: Project) -> None:
    database.rule(task=TASK | {"destination": "s3://results/one.mp4"})
    database.put("busy.mp4")
    database.claim("push-back")
    database.put("waits.mp4")
    database.sql("insert into ittybit.holds (scope, probe_at) values ('all', now())")
    database.rule("free", task=TASK, path="free/*")
    database.put("free/1.mp4")
    assert names(database.claim("push-back")) == ["free/1.mp4"]


def test_a_hold_of_another_scope_does_not_stop_a_wake_up(database: Project) -> None:
    database.rule()
    database.sql(HELD, "function:push-back")
    database.sql(HELD, "rule:other")
    database.put("a.mp4")
    assert [message["url"] for message in database.messages()] == [ON_UPLOAD]
