"""Why a file was or was not processed is one query."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.project import TASK, Project
from tests.database.rows import Row
from tests.database.unseen import store


def explained(database: Project, name: str = "a.mp4", bucket: str = "uploads") -> list[Row]:
    return database.sql("select * from ittybit.explain(%s, %s)", bucket, name)


def explain(database: Project, name: str = "a.mp4", bucket: str = "uploads") -> Row:
    [row] = explained(database, name, bucket)
    return row


@pytest.mark.parametrize(
    ("rule", "because"),
    [
        ({"bucket_id": "results"}, "the rule is for bucket results"),
        ({"enabled": False}, "the rule is disabled"),
        ({"path": "clips/*"}, "the key does not fit path clips/*"),
        ({"mimetype": "image/*"}, "its type is video/mp4, not image/*"),
        ({"min_size": 1001}, "it is smaller than 1001 bytes"),
        ({"max_size": 999}, "it is larger than 999 bytes"),
        (
            {"bucket_id": "results", "path": "b", "mimetype": "image/png", "max_size": 1},
            "the rule is for bucket results, the key does not fit path b, its type is video/mp4, not image/png, "
            "it is larger than 1 bytes",
        ),
    ],
)
def test_a_rule_that_does_not_match_says_by_which_condition(
    database: Project, rule: dict[str, Any], because: str
) -> None:
    database.rule(**rule)
    database.put("a.mp4")
    row = explain(database)
    assert (row["rule"], row["matches"], row["because"], row["job"]) == ("clips", False, because, None)


def test_a_type_that_nobody_told_does_not_match(database: Project) -> None:
    database.rule(mimetype="video/*")
    with database.writing("storage.object.upload") as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version, metadata)"
            " values ('uploads', 'a.mp4', 'v', '{\"size\": 1}')"
        )
    assert database.jobs() == []
    row = explain(database)
    assert (row["matches"], row["because"]) == (False, "its type is unknown, not video/*")


def test_an_object_that_does_not_exist_is_said_not_to(database: Project) -> None:
    database.rule(mimetype="video/*", min_size=5)
    row = explain(database)
    assert (row["matches"], row["because"], row["job"]) == (False, "there is no such object", None)


def test_an_object_whose_upload_is_not_over_is_said_to_be_so(database: Project) -> None:
    database.rule()
    with database.writing("storage.object.upload") as connection:
        connection.execute("insert into storage.objects (bucket_id, name) values ('uploads', 'a.mp4')")
    assert explain(database)["because"] == "the object has no final metadata"


def test_without_rules_there_is_nothing_to_say(database: Project) -> None:
    database.put("a.mp4")
    assert explained(database) == []


def test_an_object_older_than_its_rule_is_not_seen_yet(database: Project) -> None:
    store(database, "a.mp4", age=3600)
    database.rule()
    row = explain(database)
    assert (row["matches"], row["state"], row["job"]) == (True, None, None)
    assert row["because"] == "not seen yet: older than the rule, or the sweep has not come by"


HOLD = """insert into ittybit.holds (scope, probe_at, error) values ('all', now(), '{"message": "no credit"}')"""


@pytest.mark.parametrize(
    ("statement", "because"),
    [
        ("select", "waiting to be sent"),
        ("select ittybit.send_due()", "sent, and not answered yet"),
        ("select ittybit.pause()", "paused"),
        ("update ittybit.settings set tripped_at = now()", "the day's ceiling tripped"),
        ("update ittybit.settings set starts_per_hour = 0", "a ceiling on starts is reached"),
        (HOLD, "held: no credit"),
        (HOLD.replace('"message": "no credit"', ""), "held: ittybit refuses"),
    ],
)
def test_a_job_that_waits_says_what_for(database: Project, statement: str, because: str) -> None:
    database.rule()
    database.settings(nudge=False)
    database.put("a.mp4")
    database.sql(statement)
    row = explain(database)
    assert (row["matches"], row["state"], row["because"]) == (True, "queued", because)
    assert row["job"] == database.job()["id"]


def test_a_start_in_doubt_says_so(claimed: Project) -> None:
    row = explain(claimed)
    assert (row["state"], row["because"]) == ("queued", "an earlier start is in doubt and is looked for first")
    assert (row["attempts"], row["unanswered"]) == (1, 0)


@pytest.mark.parametrize(
    ("outcome", "fields", "says"),
    [
        ("started", {"ittybit_id": "run_1"}, {"reason": None, "error": None}),
        ("succeeded", {"ittybit_id": "run_1", "outputs": ["s3://r/a"]}, {"outputs": ["s3://r/a"]}),
        (
            "failed",
            {"ittybit_id": "run_1", "error": {"message": "corrupt"}},
            {"reason": "ittybit_failed", "error": "corrupt"},
        ),
        ("skipped", {"reason": "gone"}, {"reason": "gone"}),
    ],
)
def test_a_job_that_came_to_something_says_what(
    claimed: Project, outcome: str, fields: dict[str, Any], says: Row
) -> None:
    claimed.report(claimed.job()["id"], 1, outcome, **fields)
    row = explain(claimed)
    assert (row["matches"], row["because"], row["state"]) == (True, "it matches", outcome)
    assert says.items() <= row.items()
    assert (row["unanswered"] is None) == (outcome != "started")


def test_what_starts_nothing_says_why(database: Project) -> None:
    database.rule()
    database.put("processed/a.mp4")
    row = explain(database, "processed/a.mp4")
    assert (row["matches"], row["state"], row["reason"]) == (True, "skipped", "output_prefix")


def test_a_disabled_and_a_deleted_rule_are_named_with_what_became_of_their_jobs(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.sql("update ittybit.rules set enabled = false")
    row = explain(database)
    assert (row["matches"], row["because"], row["state"]) == (False, "the rule is disabled", "queued")
    database.sql("delete from ittybit.rules")
    row = explain(database)
    assert (row["rule"], row["matches"], row["because"]) == ("clips", False, "the rule is deleted")
    assert (row["state"], row["reason"]) == ("skipped", "rule_deleted")


def test_two_rules_are_two_rows(database: Project) -> None:
    database.rule("first")
    database.rule("second", path="clips/**", task=TASK)
    database.put("a.mp4", "clips/b.mp4")
    assert [(row["rule"], row["matches"]) for row in explained(database)] == [("first", True), ("second", False)]
    rows = explained(database, "clips/b.mp4")
    assert [(row["rule"], row["matches"], row["state"]) for row in rows] == [
        ("first", True, "queued"),
        ("second", True, "queued"),
    ]


def test_earlier_contents_are_told_beside_the_present_one(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.put("a.mp4")
    assert sorted((row["because"], row["state"], row["reason"]) for row in explained(database)) == [
        ("an earlier content of this key", "skipped", "superseded"),
        ("sent, and not answered yet", "queued", None),
    ]
    store(database, "a.mp4")
    assert ("not seen yet: older than the rule, or the sweep has not come by", None) in {
        (row["because"], row["state"]) for row in explained(database)
    }
    database.delete("a.mp4")
    assert sorted((row["because"], row["state"]) for row in explained(database) if row["state"] != "queued") == [
        ("an earlier content of this key", "skipped"),
        ("there is no such object", None),
    ]


def test_calls_that_were_never_answered_are_counted_with_pg_nets_last_word(waiting: Project) -> None:
    for _ in range(3):
        waiting.make_due()
        waiting.send()
    row = explain(waiting, "1.mp4")
    assert (row["attempts"], row["unanswered"], row["last_answer"]) == (3, 3, None)
    waiting.superuser.execute(
        "insert into net._http_response (id, status_code, error_msg)"
        " select request_id, case name when '2.mp4' then 503 end, case name when '1.mp4' then 'Could not connect' end"
        " from ittybit.jobs"
    )
    assert explain(waiting, "1.mp4")["last_answer"] == "Could not connect"
    assert explain(waiting, "2.mp4")["last_answer"] == "HTTP 503"
    assert explain(waiting, "3.mp4")["last_answer"] is None


def test_without_pg_net_everything_else_is_told(waiting: Project) -> None:
    waiting.send()
    with waiting.connect("supabase_admin") as connection, connection.transaction(force_rollback=True):
        connection.execute("drop schema net cascade")
        [row] = connection.execute("select * from ittybit.explain('uploads', '1.mp4')").fetchall()
    assert (row["unanswered"], row["last_answer"], row["state"]) == (1, None, "queued")


def test_a_generation_counts_its_own_attempts(claimed: Project) -> None:
    job = claimed.job()["id"]
    claimed.report(job, 1, "failed")
    claimed.sql("select ittybit.retry(%s)", job)
    assert (explain(claimed)["attempts"], explain(claimed)["unanswered"]) == (0, 0)
    claimed.send()
    assert (explain(claimed)["attempts"], explain(claimed)["unanswered"]) == (1, 1)
