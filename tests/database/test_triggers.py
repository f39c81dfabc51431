"""From an object to the ledger: what starts, what does not, and why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.project import ON_UPLOAD, PUSH_BACK, TASK, Project
from tests.database.rows import put


def test_a_matching_object_becomes_a_job_and_a_call(database: Project) -> None:
    database.rule(path="clips/**", mimetype="video/*", min_size=10, max_size=2000)
    version = database.put("clips/a.mp4", size=1234, etag="abc", mimetype="Video/MP4; codecs=avc1")
    job = database.job()
    assert (job["bucket_id"], job["name"], job["version"], job["rule"]) == ("uploads", "clips/a.mp4", version, "clips")
    assert (job["etag"], job["size"], job["automation_id"], job["task"]) == ('"abc"', 1234, "auto_1", None)
    assert (job["state"], job["attempt"], job["claimed"], job["generation"]) == ("queued", 1, 0, 1)
    assert database.value("select due_at between now() + interval '50 s' and now() + interval '60 s' from ittybit.jobs")
    [message] = database.messages()
    assert message["url"] == ON_UPLOAD
    assert message["body"] == {"job": str(job["id"]), "attempt": 1}


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ({"bucket_id": "results"}, {}),
        ({"path": "clips/*"}, {}),
        ({"mimetype": "image/*"}, {}),
        ({"min_size": 1001}, {}),
        ({"max_size": 999}, {}),
        ({"enabled": False}, {}),
    ],
)
def test_an_object_that_no_rule_matches_leaves_nothing(
    database: Project, rule: dict[str, Any], content: dict[str, Any]
) -> None:
    database.rule(**rule)
    database.put("a.mp4", **content)
    assert database.jobs() == []
    assert database.messages() == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("clips/.emptyFolderPlaceholder", {"size": 0}, "folder"),
        ("clips/", {}, "folder"),
        (".ittybit/probe.mp4", {}, "probe"),
        ("processed/a.mp4", {}, "output_prefix"),
        ("made/deep/a.mp4", {}, "output_prefix"),
        ("a.mp4", {"size": 0}, "empty"),
        ("a.mp4", {"operation": "storage.s3.upload"}, "s3_write"),
        ("a.mp4", {"operation": "storage.s3.upload.complete_multipart"}, "s3_write"),
        ("a.mp4", {"operation": "storage.s3.object.copy"}, "s3_write"),
    ],
)
def test_what_starts_nothing_says_why(database: Project, name: str, content: dict[str, Any], reason: str) -> None:
    database.rule(output_prefix="made/")
    database.put(name, **content)
    job = database.job()
    assert (job["state"], job["reason"], job["due_at"]) == ("skipped", reason, None)
    assert job["finished_at"] is not None
    assert database.messages() == []


def test_a_delete_marker_starts_nothing(database: Project) -> None:
    database.rule()
    with database.writing("storage.object.delete") as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version, metadata, is_delete_marker)"
            " values ('uploads', 'a.mp4', 'v', '{\"size\": 1000}', true)"
        )
    assert database.states() == [("a.mp4", "skipped", "delete_marker")]


def test_other_folders_start_with_the_same_letters(database: Project) -> None:
    database.rule(output_prefix="made/")
    database.put("processed.mp4", "made-up/a.mp4", "x/processed/a.mp4", "x/.ittybit/a.mp4")
    assert {job["state"] for job in database.jobs()} == {"queued"}


def test_a_write_through_s3_starts_only_the_rule_that_accepts_it(database: Project) -> None:
    database.rule("careful")
    database.rule("trusting", accept_s3=True)
    database.put("a.mp4", operation="storage.s3.upload")
    assert {job["rule"]: (job["state"], job["reason"]) for job in database.jobs()} == {
        "careful": ("skipped", "s3_write"),
        "trusting": ("queued", None),
    }


def test_a_rule_that_accepts_s3_still_starts_nothing_under_an_output_prefix(database: Project) -> None:
    database.rule(accept_s3=True)
    database.put("processed/a.mp4", operation="storage.s3.upload")
    assert database.states() == [("processed/a.mp4", "skipped", "output_prefix")]


def test_two_rules_on_one_object_make_two_jobs(database: Project) -> None:
    database.rule("first", automation_id="one")
    database.rule("second", task=TASK)
    database.put("clips/a.mp4")
    first, second = database.jobs()
    assert (first["automation_id"], first["task"]) == ("one", None)
    assert (second["automation_id"], second["task"]["destination"]) == (None, "s3://results/clips/a.mp4")
    assert second["task"]["options"] == {"height": 720}
    assert {message["url"] for message in database.messages()} == {ON_UPLOAD, PUSH_BACK}
    assert database.outputs() == [("results", "clips/a.mp4")]


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("s3://results/{owner_id}/{stem}.mp4", "no_destination"),
        ("s3://uploads/{dir}{stem}.mp4", "destination_is_source"),
    ],
)
def test_a_task_without_a_place_for_its_output_says_so(database: Project, destination: str, reason: str) -> None:
    database.rule(task=TASK | {"destination": destination})
    database.put("clips/a.mp4")
    assert database.states() == [("clips/a.mp4", "skipped", reason)]
    assert database.outputs() == []


def test_a_write_that_is_rolled_back_leaves_nothing(database: Project) -> None:
    database.rule(task=TASK)
    with database.writing("storage.object.copy", trial=True) as connection:
        put(connection, "a.mp4")
        assert [job["name"] for job in connection.execute("select name from storage.objects")] == ["a.mp4"]
    assert (database.jobs(), database.outputs(), database.messages()) == ([], [], [])


def test_a_row_without_final_metadata_is_not_looked_at(database: Project) -> None:
    database.rule()
    with database.writing("storage.object.upload") as connection:
        for version in ("1", "2"):
            connection.execute(
                "insert into storage.objects (bucket_id, name, version, metadata)"
                " values ('uploads', 'a.mp4', %s, '{\"contentLength\": 1000, \"mimetype\": \"video/mp4\"}')"
                " on conflict (bucket_id, name) do update set version = excluded.version",
                [version],
            )
    assert database.jobs() == []


def test_a_write_that_leaves_version_and_name_alone_is_no_new_content(database: Project) -> None:
    database.rule()
    version = database.put("a.mp4")
    with database.writing("storage.object.info") as connection:
        connection.execute("update storage.objects set user_metadata = '{}', version = %s", [version])
    assert database.states() == [("a.mp4", "queued", None)]


def test_no_call_is_made_while_the_sender_says_so(database: Project) -> None:
    database.rule()
    database.settings(nudge=False)
    database.put("a.mp4")
    job = database.job()
    assert (job["state"], job["attempt"]) == ("queued", 0)
    assert database.value("select due_at <= clock_timestamp() from ittybit.jobs")
    assert database.messages() == []
