"""ittybit.explain says in one query why a file was or was not processed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.project import TASK, Project
from tests.database.rows import Row
from tests.database.without_triggers import store


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
def test_explain_names_each_condition_that_does_not_match(
    database: Project, rule: dict[str, Any], because: str
) -> None:
    database.rule(**rule)
    database.put("a.mp4")
    row = explain(database)
    assert (row["rule"], row["matches"], row["because"], row["job"]) == ("clips", False, because, None)


def test_an_unknown_type_does_not_match(database: Project) -> None:
    database.rule(mimetype="video/*")
    with database.writing("storage.object.upload") as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version, metadata)"
            " values ('uploads', 'a.mp4', 'v', '{\"size\": 1}')"
        )
    assert database.jobs() == []
    row = explain(database)
    assert (row["matches"], row["because"]) == (False, "its type is unknown, not video/*")


def test_explain_says_that_an_object_does_not_exist(database: Project) -> None:
    database.rule(mimetype="video/*", min_size=5)
    row = explain(database)
    assert (row["matches"], row["because"], row["job"]) == (False, "there is no such object", None)


def test_explain_says_that_an_upload_is_not_finished(database: Project) -> None:
    database.rule()
    with database.writing("storage.object.upload") as connection:
        connection.execute("insert into storage.objects (bucket_id, name) values ('uploads', 'a.mp4')")
    assert explain(database)["because"] == "the object has no final metadata"


def test_explain_returns_nothing_without_rules(database: Project) -> None:
    database.put("a.mp4")
    assert explained(database) == []


def test_explain_says_that_an_object_older_than_its_rule_is_not_seen_yet(database: Project) -> None:
    store(database, "a.mp4", age=3600)
    database.rule()
    row = explain(database)
    assert (row["matches"], row["state"], row["job"]) == (True, None, None)
    assert row["because"] == "not recorded yet: it is older than the rule, or the sweep has not reached it"


HOLD = """
insert into ittybit.holds (scope, probe_at, error)
values ('all', now() + interval '5 minutes', '{"message": "no credit"}')
"""
WOKEN = "update ittybit.functions set request_id = 7, awaited_since = now() - interval '%s seconds'"
ANSWERED = "; insert into net._http_response (id, status_code, error_msg) values (7, %s, %s)"


@pytest.mark.parametrize(
    ("statement", "because"),
    [
        ("select", "waiting to be claimed"),
        ("select ittybit.pause()", "paused: select ittybit.resume() to go on"),
        (
            "update ittybit.settings set tripped_at = now()",
            "starts_per_day was reached: select ittybit.resume() to go on",
        ),
        ("update ittybit.settings set starts_per_hour = 0", "a ceiling on starts is reached"),
        (HOLD, "held: no credit"),
        (HOLD.replace('"message": "no credit"', ""), "held: ittybit refuses"),
        (
            "update ittybit.functions set url = null",
            "on-upload has no address: deploy it, then run ./deploy.sh database",
        ),
        (WOKEN % 5, "waiting to be claimed"),
        (WOKEN % 20, "the last answer: none"),
        (WOKEN % 20 + ANSWERED % (503, "null"), "the last answer: HTTP 503"),
        (WOKEN % 20 + ANSWERED % (401, "null"), "the last answer: HTTP 401: it does not accept the signature"),
        (WOKEN % 20 + ANSWERED % (404, "null"), "the last answer: HTTP 404: there is no function at its address"),
        (WOKEN % 20 + ANSWERED % ("null", "'Could not connect'"), "the last answer: Could not connect"),
        (WOKEN % 20 + "; update ittybit.functions set claimed_at = now()", "waiting to be claimed"),
        (WOKEN % 20 + "; alter schema net rename to gone", "the last answer: none"),
    ],
)
def test_explain_says_what_a_job_waits_for(database: Project, statement: str, because: str) -> None:
    database.rule()
    database.put("a.mp4")
    with database.connect("supabase_admin") as connection, connection.transaction(force_rollback=True):
        connection.execute(statement.encode())
        [row] = connection.execute("select * from ittybit.explain('uploads', 'a.mp4')").fetchall()
    assert (row["matches"], row["state"], row["job"]) == (True, "queued", database.job()["id"])
    assert because in row["because"]
    assert ("has claimed nothing since" in row["because"]) == ("last answer" in because)


@pytest.mark.usefixtures("lease")
def test_a_claimed_start_is_in_doubt_when_its_lease_has_ended(database: Project) -> None:
    row = explain(database)
    assert (row["state"], row["because"], row["attempts"]) == ("queued", "a function is working on it", 1)
    database.make_due()
    assert explain(database)["because"] == "an earlier start may have happened: ittybit is searched for it first"


@pytest.mark.parametrize(
    ("outcome", "fields", "says"),
    [
        ("started", {"ittybit_id": "runs/1"}, {"reason": None, "error": None}),
        ("succeeded", {"ittybit_id": "runs/1", "outputs": ["s3://r/a"]}, {"outputs": ["s3://r/a"]}),
        (
            "failed",
            {"ittybit_id": "runs/1", "error": {"message": "corrupt"}},
            {"reason": "ittybit_failed", "error": "corrupt"},
        ),
        ("skipped", {"reason": "no_destination"}, {"reason": "no_destination"}),
    ],
)
def test_explain_shows_the_outcome_of_a_job(
    database: Project, lease: Row, outcome: str, fields: dict[str, Any], says: Row
) -> None:
    database.report(lease, outcome, **fields)
    row = explain(database)
    assert (row["matches"], row["because"], row["state"]) == (True, "it matches", outcome)
    assert says.items() <= row.items()


def test_explain_shows_the_jobs_of_disabled_and_deleted_rules(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.sql("update ittybit.rules set enabled = false")
    row = explain(database)
    assert (row["matches"], row["because"], row["state"]) == (False, "the rule is disabled", "queued")
    database.sql("delete from ittybit.rules")
    row = explain(database)
    assert (row["rule"], row["matches"], row["because"]) == ("clips", False, "the rule is deleted")
    assert (row["state"], row["reason"]) == ("skipped", "rule_deleted")


def test_explain_returns_a_row_for_each_rule(database: Project) -> None:
    database.rule("first")
    database.rule("second", path="clips/**", task=TASK)
    database.put("a.mp4", "clips/b.mp4")
    assert [(row["rule"], row["matches"]) for row in explained(database)] == [("first", True), ("second", False)]
    rows = explained(database, "clips/b.mp4")
    assert [(row["rule"], row["matches"], row["state"]) for row in rows] == [
        ("first", True, "queued"),
        ("second", True, "queued"),
    ]


def test_explain_also_shows_the_earlier_contents_of_a_key(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.put("a.mp4")
    assert sorted((row["because"], row["state"], row["reason"]) for row in explained(database)) == [
        ("an earlier content of this key", "skipped", "superseded"),
        ("waiting to be claimed", "queued", None),
    ]
    store(database, "a.mp4")
    assert ("not recorded yet: it is older than the rule, or the sweep has not reached it", None) in {
        (row["because"], row["state"]) for row in explained(database)
    }
    database.delete("a.mp4")
    assert sorted((row["because"], row["state"]) for row in explained(database) if row["state"] != "queued") == [
        ("an earlier content of this key", "skipped"),
        ("there is no such object", None),
    ]
