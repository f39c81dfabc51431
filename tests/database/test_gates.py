"""What holds starts back: pauses, ceilings, disabled rules and holds; and what the trigger is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.project import TASK, Project

HELD = "insert into ittybit.holds (scope, probe_at) values (%s, now() + interval '5 minutes')"
GATES: dict[str, list[str]] = {
    "paused": ["update ittybit.settings set paused = true"],
    "tripped": ["update ittybit.settings set tripped_at = now()"],
    "the hour's ceiling": [
        "update ittybit.settings set starts_per_hour = 5",
        "insert into ittybit.starts values (date_trunc('hour', now()), 5, 5)",
    ],
    "the day's ceiling": [
        "update ittybit.settings set starts_per_day = 8",
        "insert into ittybit.starts values"
        " (date_trunc('hour', now()), 3, 3), (date_trunc('hour', now()) - interval '20 hours', 5, 5)",
    ],
    "a disabled rule": ["update ittybit.rules set enabled = false"],
    "a hold": ["insert into ittybit.holds (scope, probe_at) values ('all', now() + interval '1 minute')"],
}


def attempts(database: Project) -> list[int]:
    return [job["attempt"] for job in database.jobs()]


def nudge(database: Project) -> bool:
    return bool(database.value("select nudge from ittybit.settings"))


@pytest.mark.parametrize("statements", GATES.values(), ids=GATES)
def test_starts_are_held_back_and_checks_are_not(waiting: Project, statements: list[str]) -> None:
    started = waiting.job("2.mp4")["id"]
    waiting.sql("update ittybit.jobs set state = 'started', ittybit_id = 'run_1' where id = %s", started)
    for statement in statements:
        waiting.sql(statement)
    assert waiting.send() == 1
    [message] = waiting.messages()
    assert message["body"]["job"] == str(started)
    assert attempts(waiting) == [0, 1, 0]


@pytest.mark.parametrize(
    ("ceiling", "hours_ago"), [("starts_per_hour", 1), ("starts_per_day", 25)], ids=["hour", "day"]
)
def test_a_ceiling_forgets_what_is_long_ago(waiting: Project, ceiling: str, hours_ago: int) -> None:
    waiting.settings(**{ceiling: 2})
    earlier = "insert into ittybit.starts values (date_trunc('hour', now()) - %s * interval '1 hour', 2, 2)"
    waiting.sql(earlier, hours_ago)
    assert waiting.send() == 2


def test_what_is_left_of_a_ceiling_is_sent(waiting: Project) -> None:
    waiting.settings(starts_per_hour=2)
    assert waiting.send() == 2
    assert sorted(attempts(waiting)) == [0, 1, 1]


def test_a_rule_enabled_again_goes_on(waiting: Project) -> None:
    waiting.sql("update ittybit.rules set enabled = false")
    assert waiting.send() == 0
    waiting.sql("update ittybit.rules set enabled = true")
    assert waiting.send() == 3


@pytest.mark.parametrize(
    ("scope", "sent"),
    [("all", 0), ("function:on-upload", 1), ("function:push-back", 2), ("rule:automation", 2), ("rule:third", 2)],
)
def test_a_hold_concerns_its_scope(database: Project, scope: str, sent: int) -> None:
    database.rule("automation")
    database.rule("task", task=TASK)
    database.rule("third", automation_id="other")
    database.put_unsent(1)
    database.sql(HELD, scope)
    assert database.send() == sent


def test_of_what_is_held_one_probes(waiting: Project) -> None:
    waiting.sql(HELD, "all")
    assert waiting.send() == 0
    waiting.sql("update ittybit.holds set probe_at = now()")
    assert waiting.send() == 1
    assert waiting.send() == 0
    [message] = waiting.messages()
    assert str(waiting.value("select probe from ittybit.holds")) == message["body"]["job"]
    waiting.sql("update ittybit.holds set probe_at = now()")
    assert waiting.send() == 1


def test_two_held_scopes_are_probed_when_both_may_be(waiting: Project) -> None:
    waiting.sql(HELD, "all")
    waiting.sql(HELD, "rule:clips")
    waiting.sql("update ittybit.holds set probe_at = now() where scope = 'all'")
    assert waiting.send() == 0
    waiting.sql("update ittybit.holds set probe_at = now()")
    assert waiting.send() == 1


@pytest.mark.parametrize(
    ("off", "on"),
    [
        ({"paused": True}, {"paused": False}),
        ({"starts_per_hour": 0}, {"starts_per_hour": 10}),
        ({"unanswered_calls": 1}, {"unanswered_calls": 100}),
    ],
    ids=["paused", "ceiling", "backlog"],
)
def test_the_trigger_is_told_when_to_make_no_calls(database: Project, off: dict[str, Any], on: dict[str, Any]) -> None:
    database.rule()
    database.put("before.mp4")
    database.settings(**off)
    database.send()
    assert not nudge(database)
    database.put("meanwhile.mp4")
    assert database.job("meanwhile.mp4")["attempt"] == 0
    database.settings(**on)
    assert database.send() == 1
    assert nudge(database)


def test_the_trigger_is_told_of_a_hold_on_everything(database: Project) -> None:
    database.sql(HELD, "rule:clips")
    database.send()
    assert nudge(database)
    database.sql(HELD, "all")
    database.send()
    assert not nudge(database)


def test_the_row_that_uploads_read_is_written_only_when_the_answer_changes(database: Project) -> None:
    row = "select ctid::text || xmin::text from ittybit.settings"
    before = database.value(row)
    database.send()
    assert database.value(row) == before
