"""Rules: which are refused and with what message, and what changing one does."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.database.project import RUN, TASK, Project, upload

LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ([TASK], r'rule "clips": task must be an object'),
        (None, 'rule "clips": task must be an object'),
        (TASK | {"option": {}, "priority": 1}, 'rule "clips": task has unknown fields: option, priority'),
        (TASK | {"kind": None}, 'rule "clips": task.kind must be a kind of ittybit task, such as "video"'),
        (TASK | {"kind": 7}, 'rule "clips": task.kind must be'),
        (TASK | {"kind": "Video"}, 'rule "clips": task.kind must be'),
        ({"destination": TASK["destination"]}, 'rule "clips": task.kind must be'),
        (TASK | {"options": []}, 'rule "clips": task.options must be an object'),
        (TASK | {"options": None}, 'rule "clips": task.options must be an object'),
        (
            TASK | {"destination": "https://a/b"},
            'rule "clips": task.destination must be s3://bucket/key with a bucket name that S3 allows',
        ),
        (TASK | {"destination": None}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://uploads/{name}"}, "task.destination is the object itself"),
        (TASK | {"destination": "s3://uploads/{dir}{stem}.{ext}"}, "task.destination is the object itself"),
        (TASK | {"destination": "s3://results"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://results/"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://results/{dir}"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://results//a"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://results/../a"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://results/café.mp4"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://{name}/a"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://%00/a.mp4"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": "s3://../a.mp4"}, 'rule "clips": task.destination must be'),
        (TASK | {"destination": f"s3://{'b' * 101}/a.mp4"}, 'rule "clips": task.destination must be'),
        (
            TASK | {"destination": "s3://r/{steam}{Dir}"},
            r"task.destination has unknown placeholders: \{steam\}, \{Dir\}",
        ),
        (TASK | {"destination": "s3://r/{stem"}, r"task.destination has unknown placeholders: \{stem"),
        (
            TASK | {"kind": "adaptive_video", "destination": "s3://r/{dir}master.m3u8"},
            'rule "clips": task.destination needs a folder for each object: adaptive_video writes many files',
        ),
        (TASK | {"kind": "adaptive_video", "destination": "s3://r/{stem}.m3u8"}, "needs a folder for each object"),
    ],
)
def test_a_task_that_could_never_work_is_refused(database: Project, task: Any, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        database.rule(task=task)


def steps(*tasks: Any) -> dict[str, Any]:
    return {"tasks": list(tasks)}


def encode(*following: Any, kind: str = "video", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "next": list(following)} | fields


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (None, r'run must be \{"tasks": \['),
        ([encode()], r'run must be \{"tasks": \['),
        (7, r'run must be \{"tasks": \['),
        ({}, r'run must be \{"tasks": \['),
        ({"tasks": {}}, r'run must be \{"tasks": \['),
        (steps(encode()) | {"metadata": {}}, r'run must be \{"tasks": \['),
        (steps(), "run.tasks must be 1 to 64 steps"),
        (steps(*[encode()] * 65), "run.tasks must be 1 to 64 steps"),
        (steps(encode(*[encode()] * 64)), "run.tasks must be 1 to 64 steps"),
        (steps("video"), "run.tasks.0 must be an object"),
        (steps(encode(), encode([])), "run.tasks.1.next.0 must be an object"),
        (steps(encode(url="s3://a/b", colour=1)), "run.tasks.0 has unknown fields: url, colour"),
        (steps({"next": []}), "run.tasks.0.kind must be a kind"),
        (steps(encode(encode(kind="Video"))), "run.tasks.0.next.0.kind must be a kind"),
        (steps(encode(options=[])), "run.tasks.0.options must be an object"),
        (steps(encode(next={})), "run.tasks.0.next must be an array of steps"),
        (steps(encode(next="run.tasks.0")), "run.tasks.0.next must be an array of steps"),
        (steps(encode(upload("s3://r/{stem}") | {"next": []})), "run.tasks.0.next.0 has unknown fields: next"),
        (
            steps(encode(upload("s3://r/{stem}", folder="a"))),
            "run.tasks.0.next.0.options of an upload must be url, and",
        ),
        (steps(encode(upload("s3://r/{stem}", connection_id="a/b"))), "run.tasks.0.next.0.options of an upload"),
        (steps(encode(upload("s3://r/{stem}", connection_id=1))), "run.tasks.0.next.0.options of an upload"),
        (steps({"kind": "upload"}), "run.tasks.0.options.url must be s3://bucket/key"),
        (steps({"kind": "upload", "options": {"url": 7}}), "run.tasks.0.options.url must be s3://bucket/key"),
        (steps(encode(upload("https://a/b"))), "run.tasks.0.next.0.options.url must be s3://bucket/key"),
        (steps(encode(upload("s3://r/../{stem}"))), "run.tasks.0.next.0.options.url must be s3://bucket/key"),
        (steps(encode(upload("s3://r/{dir}"))), "run.tasks.0.next.0.options.url must be s3://bucket/key"),
        (steps(encode(upload("s3://r/{filename}"))), r"options.url has unknown placeholders: \{filename\}"),
        (steps(encode(upload("s3://uploads/{name}"))), "run.tasks.0.next.0.options.url is the object itself"),
        (
            steps(encode(upload("s3://r/{dir}{stem}.{ext}")), encode(encode(upload("s3://r/{name}")))),
            "run.tasks.1.next.0.next.0.options.url is the address of another upload too",
        ),
        (
            steps(encode(upload("s3://r/{dir}master.m3u8"), kind="adaptive_video")),
            "run.tasks.0.next.0.options.url needs a folder for each object: adaptive_video writes many files",
        ),
    ],
)
def test_a_run_that_could_never_work_is_refused_with_its_field(database: Project, run: Any, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f'rule "clips": .*{message}'):
        database.rule(run=run)
    assert database.sql("select * from ittybit.rules") == []


@pytest.mark.parametrize(
    "run",
    [
        RUN,
        steps(encode()),
        steps({"kind": "image", "options": {}}, upload("s3://results/{name}", connection_id="con_1")),
        steps(*[encode(upload(f"s3://results/{{stem}}-{number}.mp4")) for number in range(32)]),
        steps(encode(upload("s3://results/{dir}{stem}/master.m3u8"), kind="adaptive_video")),
    ],
)
def test_a_run_that_can_work_is_accepted(database: Project, run: Any) -> None:
    database.rule(run=run)
    assert database.value("select run from ittybit.rules") == run


def test_a_rule_that_can_write_a_key_of_another_rules_run_is_refused(database: Project) -> None:
    database.rule("first", run=RUN)
    for action in (
        {"task": TASK},
        {"run": steps(encode(upload("s3://results/own"), upload("s3://results/{dir}{stem}.jpeg")))},
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match='rules "second" and "first" can write one key'):
            database.rule("second", **action)
    database.rule("third", run=steps(encode(upload("s3://results/{dir}{stem}.webm"), upload("s3://uploads/a.jpeg"))))


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"automation_id": None}, "one_action"),
        ({"automation_id": "a", "task": TASK}, "one_action"),
        ({"task": TASK, "run": RUN}, "one_action"),
        ({"automation_id": "a", "run": RUN}, "one_action"),
        ({"automation_id": "a/b"}, "automation_id"),
        ({"name": "two words"}, "name"),
        ({"bucket_id": ""}, "bucket_id"),
        ({"path": ""}, "path"),
        ({"mimetype": "video"}, "mimetype"),
        ({"min_size": -1}, "min_size"),
        ({"min_size": 10, "max_size": 9}, "check"),
        ({"output_prefix": "results"}, "output_prefix"),
        ({"output_prefix": "/"}, "output_prefix"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_a_check(
    database: Project, columns: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        database.rule(**columns)


@pytest.mark.parametrize(
    "destination",
    [
        "s3://results/fixed.mp4",
        "s3://results/{dir}{stem}.{ext}",
        "s3://results/{owner_id}/{version}/{name}",
        "s3://uploads/processed/{dir}{stem}-720p.mp4",
        None,
    ],
)
def test_a_task_that_can_work_is_accepted(database: Project, destination: str | None) -> None:
    database.rule(task={"kind": "video"} | ({"destination": destination} if destination else {}))
    assert database.value("select task ->> 'destination' from ittybit.rules") == destination


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("s3://results/{dir}{stem}-720p.mp4", "s3://results/{dir}{stem}-720p.mp4", True),
        ("s3://results/{name}", "s3://results/{dir}{stem}.mp4", True),
        ("s3://results/clips/{stem}.mp4", "s3://results/{dir}{stem}.mp4", True),
        ("s3://results/fixed.mp4", "s3://results/fixed.mp4", True),
        ("s3://results/{dir}{stem}-720p.mp4", "s3://results/{dir}{stem}.mp4", False),
        ("s3://results/{dir}{stem}.mp4", "s3://results/{dir}{stem}.jpeg", False),
        ("s3://results/{name}", "s3://uploads/processed/{name}", False),
    ],
)
def test_two_rules_that_can_write_one_key_are_refused_with_both_names(
    database: Project, one: str, other: str, meet: bool
) -> None:
    database.rule("first", task=TASK | {"destination": one})
    database.rule("second", task=TASK | {"destination": other}, enabled=False)
    enable = "update ittybit.rules set enabled = true where name = 'second'"
    if not meet:
        assert database.sql(enable) == []
        return
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='rules "second" and "first" can write one key'):
        database.sql(enable)
    # A rule for another bucket's objects can write the same key too.
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='rules "third" and "first"'):
        database.rule("third", bucket_id="published", task=TASK | {"destination": other})
    database.sql("update ittybit.rules set enabled = false where name = 'first'")
    assert database.sql(enable) == []


def test_rules_for_different_folders_may_share_a_destination_template(database: Project) -> None:
    for folder in ("cats", "dogs"):
        database.rule(folder, path=f"{folder}/**", task=TASK)
    assert database.value("select count(*) from ittybit.rules") == 2


def change(database: Project, assignment: str) -> bool:
    """Change the rule, and return whether it applies only to later content from now on."""
    database.sql("update ittybit.rules set active_since = %s", LONG_AGO)
    database.sql(f"update ittybit.rules set {assignment}")  # noqa: S608 - from this file
    return bool(database.value("select active_since > now() - interval '1 minute' from ittybit.rules"))


@pytest.mark.parametrize(
    "assignment",
    ["path = 'more/**'", "mimetype = null", "min_size = 0", "max_size = 10", "accept_s3 = true", "bucket_id = 'b'"],
)
def test_active_since_moves_when_a_rule_can_match_other_objects(database: Project, assignment: str) -> None:
    database.rule(path="clips/*", mimetype="video/*", min_size=5)
    assert change(database, assignment)


@pytest.mark.parametrize(
    "assignment",
    ["automation_id = 'auto_2'", "output_prefix = 'made/'", "name = 'renamed'", "path = path", "enabled = false"],
)
def test_active_since_stays_when_a_rule_cannot_match_new_objects(database: Project, assignment: str) -> None:
    database.rule(path="clips/*")
    assert not change(database, assignment)


def test_active_since_moves_when_a_rule_is_enabled_again(database: Project) -> None:
    database.rule(enabled=False)
    assert change(database, "enabled = true")


def test_a_job_keeps_the_action_it_was_made_with(database: Project) -> None:
    database.rule(automation_id="before")
    database.put("a.mp4")
    database.sql("update ittybit.rules set automation_id = 'after'")
    database.put("b.mp4")
    assert [job["action"]["automation_id"] for job in database.jobs()] == ["before", "after"]


def test_renaming_a_rule_renames_it_in_its_jobs(database: Project) -> None:
    database.rule("old")
    database.rule("other")
    database.put("a.mp4")
    database.sql("update ittybit.rules set name = 'new' where name = 'old'")
    assert [job["rule"] for job in database.jobs()] == ["new", "other"]


def test_deleting_a_rule_skips_waiting_jobs_and_keeps_those_that_may_have_started(database: Project) -> None:
    database.rule()
    database.put("waiting.mp4", "started.mp4", "claimed.mp4")
    leases = {one["name"]: one for one in database.claim()}
    database.report(leases["started.mp4"], "started", ittybit_id="runs/1")
    database.report(leases["waiting.mp4"], "retry")
    database.sql("delete from ittybit.rules")
    assert sorted(database.states()) == [
        ("claimed.mp4", "queued", None),
        ("started.mp4", "started", None),
        ("waiting.mp4", "skipped", "rule_deleted"),
    ]
    waiting = database.job("waiting.mp4")
    assert waiting["due_at"] is None
    assert waiting["finished_at"] is not None


def test_a_disabled_rule_records_nothing(database: Project) -> None:
    database.rule(enabled=False)
    database.put("a.mp4")
    assert database.jobs() == []
