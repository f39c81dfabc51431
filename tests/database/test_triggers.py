"""The triggers: which objects get a job, which do not, and why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.database.project import ON_UPLOAD, PUSH_BACK, TASK, Project, upload
from tests.database.rows import put


def test_a_matching_object_gets_a_job_and_wakes_its_function(database: Project) -> None:
    database.rule(path="clips/**", mimetype="video/*", min_size=10, max_size=2000)
    version = database.put("clips/a.mp4", size=1234, etag="abc", mimetype="Video/MP4; codecs=avc1")
    job = database.job()
    assert (job["bucket_id"], job["name"], job["version"], job["rule"]) == ("uploads", "clips/a.mp4", version, "clips")
    assert (job["etag"], job["size"], job["action"]) == ('"abc"', 1234, {"automation_id": "auto_1"})
    assert (job["function"], job["state"], job["attempt"], job["generation"]) == ("on-upload", "queued", 0, 1)
    assert database.seconds_left() <= 0
    [message] = database.messages()
    assert (message["url"], message["body"]) == (ON_UPLOAD, {"type": "jobs.due"})


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
def test_an_object_that_no_rule_matches_leaves_no_row_and_no_wake_up(
    database: Project, rule: dict[str, Any], content: dict[str, Any]
) -> None:
    database.rule(**rule)
    database.put("a.mp4", **content)
    assert database.jobs() == []
    assert database.messages() == []


def test_names_that_only_resemble_an_excluded_folder_get_a_job(database: Project) -> None:
    database.rule(output_prefix="made/")
    database.put("processed.mp4", "made-up/a.mp4", "x/processed/a.mp4", "x/.ittybit/a.mp4")
    assert {job["state"] for job in database.jobs()} == {"queued"}


@pytest.mark.parametrize("operation", ["upload", "upload.complete_multipart", "object.copy"])
def test_a_write_through_s3_starts_only_the_rule_that_accepts_it(database: Project, operation: str) -> None:
    database.rule("careful")
    database.rule("trusting", accept_s3=True)
    database.put("a.mp4", operation=f"storage.s3.{operation}")
    assert {job["rule"]: (job["state"], job["reason"], job["due_at"] is None) for job in database.jobs()} == {
        "careful": ("skipped", "s3_write", True),
        "trusting": ("queued", None, False),
    }


SOUND = "s3://results/{dir}{stem}.mp3"


def test_each_rule_that_matches_makes_a_job(database: Project) -> None:
    database.rule("first", automation_id="one")
    database.rule("second", task=TASK)
    database.rule("third", task={"kind": "image", "options": {"width": 64}})
    database.rule(
        "zone",
        run={
            "tasks": [
                {"kind": "audio", "options": {"format": "{stem}"}, "next": [upload(SOUND, connection_id="con_1")]}
            ]
        },
    )
    database.put("clips/a.mp4")
    assert [(job["function"], job["action"]) for job in database.jobs()] == [
        ("on-upload", {"automation_id": "one"}),
        ("push-back", {"task": TASK | {"destination": "s3://results/clips/a.mp4"}}),
        ("on-upload", {"task": {"kind": "image", "options": {"width": 64}}}),
        (
            "push-back",
            {
                "run": {
                    "tasks": [
                        {
                            "kind": "audio",
                            "options": {"format": "{stem}"},
                            "next": [upload("s3://results/clips/a.mp3", connection_id="con_1")],
                        }
                    ]
                }
            },
        ),
    ]
    assert {message["url"] for message in database.messages()} == {ON_UPLOAD, PUSH_BACK}


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("s3://results/{owner_id}/{stem}.mp4", "no_destination"),
        ("s3://uploads/{dir}{stem}.mp4", "destination_is_source"),
    ],
)
def test_a_task_without_a_possible_destination_is_skipped(database: Project, destination: str, reason: str) -> None:
    database.rule(task=TASK | {"destination": destination})
    database.put("clips/a.mp4")
    assert database.states() == [("clips/a.mp4", "skipped", reason)]


BRACES = "a{filename}.mp4"


@pytest.mark.parametrize(
    ("first", "second", "name", "reason"),
    [
        ("s3://results/{owner_id}/{stem}.mp4", "s3://results/{stem}.jpeg", "a.mp4", "no_destination"),
        # Only SQL can store such a name, and ittybit would read it as a template of its own.
        ("s3://results/one.mp4", "s3://results/{name}.jpeg", BRACES, "no_destination"),
        ("s3://results/{stem}.mp4", "s3://uploads/{dir}{stem}.mp4", "a.mp4", "destination_is_source"),
        ("s3://results/{dir}{stem}.mp4", "s3://results/{name}", "a.mp4", "destinations_meet"),
        ("s3://results/{dir}{stem}.mp4", "s3://results/{name}", "a.mov", None),
    ],
)
def test_a_run_without_a_destination_for_each_result_is_not_started(
    database: Project, first: str, second: str, name: str, reason: str | None
) -> None:
    database.rule(
        run={"tasks": [{"kind": "video", "next": [upload(first), {"kind": "image", "next": [upload(second)]}]}]}
    )
    database.put(name)
    assert database.states() == [(name, "skipped" if reason else "queued", reason)]
    assert database.value("select files from ittybit.backfill('clips')") == 0
    assert (len(database.claim("push-back")), len(database.outputs())) == ((0, 0) if reason else (1, 2))


def test_a_task_whose_destination_would_be_a_template_is_skipped(database: Project) -> None:
    database.rule(task=TASK)
    database.put(BRACES)
    assert database.states() == [(BRACES, "skipped", "no_destination")]


def test_a_write_that_is_rolled_back_leaves_nothing(database: Project) -> None:
    database.rule(task=TASK)
    with database.writing("storage.object.copy", trial=True) as connection:
        put(connection, "a.mp4")
        assert [job["name"] for job in connection.execute("select name from storage.objects")] == ["a.mp4"]
    assert (database.jobs(), database.messages()) == ([], [])


def test_a_row_without_final_metadata_gets_no_job(database: Project) -> None:
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


def test_an_update_without_a_new_version_or_name_gets_no_job(database: Project) -> None:
    database.rule()
    version = database.put("a.mp4")
    with database.writing("storage.object.info") as connection:
        connection.execute("update storage.objects set user_metadata = '{}', version = %s", [version])
    assert database.states() == [("a.mp4", "queued", None)]
