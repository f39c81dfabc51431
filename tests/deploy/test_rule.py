"""./deploy.sh rule: rules without writing SQL."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.database.rows import Row
from tests.deploy.clone import Clone
from tests.deploy.developer import EVERY_POSTGRES, Developer

TASK = ("--task", "video", "--options", '{"height": 720}', "--destination", "s3://media/processed/{dir}{stem}-720p.mp4")
CLIPS = ("rule", "add", "clips", "--bucket", "media", "--path", "clips/**", "--type", "video/*", *TASK)


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if "developer" in request.fixturenames:
        developer: Developer = request.getfixturevalue("developer")
        developer.install()
        developer.add_bucket("media")


def rules(developer: Developer) -> list[Row]:
    return developer.project.sql(
        "select name, bucket_id, path, mimetype, min_size, max_size, accept_s3, enabled, output_prefix, automation_id,"
        " task from ittybit.rules order by name"
    )


@EVERY_POSTGRES
def test_a_task_becomes_a_rule_and_a_sample_says_where_its_result_goes(developer: Developer) -> None:
    result = developer.deploy(*CLIPS, "--min-size", "10kB", "--max-size", "2GB", "--sample", "clips/a b.mp4")
    assert result.stdout.splitlines() == [
        "added",
        "clips/a b.mp4 (video/mp4) matches, and its result goes to s3://media/processed/clips/a b-720p.mp4",
    ]
    [rule] = rules(developer)
    assert rule == {
        "name": "clips",
        "bucket_id": "media",
        "path": "clips/**",
        "mimetype": "video/*",
        "min_size": 10 * 1024,
        "max_size": 2 * 1024**3,
        "accept_s3": False,
        "enabled": True,
        "output_prefix": None,
        "automation_id": None,
        "task": {
            "kind": "video",
            "options": {"height": 720},
            "destination": "s3://media/processed/{dir}{stem}-720p.mp4",
        },
    }


SOUND = {"kind": "audio", "next": [{"kind": "upload", "options": {"url": "s3://media/processed/{name}.mp3"}}]}
COPY = {"kind": "upload", "options": {"url": "s3://media/made/{stem}"}}
RUN = {"tasks": [{"kind": "video", "next": [SOUND, COPY]}]}


def test_a_run_becomes_a_rule_and_a_sample_says_where_its_results_go(developer: Developer) -> None:
    arguments = ("rule", "add", "several", "--bucket", "media", "--run")
    said = developer.deploy(*arguments, json.dumps(RUN), "--sample", "clips/a.mp4").stdout.splitlines()
    places = "s3://media/made/a, s3://media/processed/clips/a.mp4.mp3"
    assert said == ["added", f"clips/a.mp4 (video/mp4) matches, and its result goes to {places}"]
    [rule] = developer.project.sql("select task, automation_id, run from ittybit.rules")
    assert rule == {"task": None, "automation_id": None, "run": RUN}
    listed = developer.deploy("rule", "list").stdout
    assert "| run -> s3://media/made/{stem}, s3://media/processed/{name}.mp3 |" in listed
    assert developer.deploy(*arguments, json.dumps(RUN)).stdout == "unchanged\n"

    kept = '{"tasks": [{"kind": "video"}]}'
    said = developer.deploy("--yes", *arguments, kept, "--sample", "clips/a.mp4").stdout.splitlines()
    assert said == ["replaced", said[1], "clips/a.mp4 (video/mp4) matches, and its result stays at ittybit"]
    assert said[1].startswith("  run: {")
    assert said[1].endswith(f" -> {kept}")
    meet = json.dumps({"tasks": [*RUN["tasks"], {"kind": "upload", "options": {"url": "s3://media/made/{name}"}}]})
    said = developer.deploy("--yes", *arguments, meet, "--sample", "a").stdout.splitlines()
    assert said[-1].endswith("triggers no job: two uploads of its run would write one key")


def test_an_automation_becomes_a_rule(developer: Developer) -> None:
    arguments = ("rule", "add", "sound", "--bucket", "later", "--automation", "auto_1", "--accept-s3")
    assert developer.deploy(*arguments, "--sample", "a").stdout.splitlines() == [
        "added",
        "note: there is no bucket later yet",
        "note: if the automation uploads its results by itself, say where with --output-prefix",
        "a (application/octet-stream) matches, and runs auto_1",
    ]
    assert developer.deploy(*arguments[:-1], "--output-prefix", "made/", "--replace").stdout.splitlines() == [
        "replaced",
        "  accept-s3: true -> false",
        "  output-prefix: (none) -> made/",
        "note: there is no bucket later yet",
    ]
    [rule] = rules(developer)
    assert (rule["path"], rule["accept_s3"], rule["output_prefix"]) == ("**", False, "made/")


def test_values_with_shell_and_sql_syntax_are_stored_unchanged(developer: Developer) -> None:
    nasty = "it's $(touch x) `y` \"z\" \\d; drop schema ittybit cascade; -- :name :'name' *"
    developer.deploy("rule", "add", "nasty", "--bucket", nasty, "--path", nasty, "--automation", "auto_1")
    [rule] = rules(developer)
    assert (rule["bucket_id"], rule["path"]) == (nasty, nasty)


def test_the_same_rule_again_changes_nothing_and_other_values_need_a_yes(developer: Developer) -> None:
    developer.deploy(*CLIPS)
    before = developer.project.sql("select * from ittybit.rules")
    assert developer.deploy(*CLIPS).stdout == "unchanged\n"
    changed = [word.replace("720", "1080") for word in CLIPS]

    said = developer.refused(*changed, "--sample", "clips/a.mp4")
    assert said.splitlines()[:3] == [
        "There is a rule clips already, with other values:",
        '  options: {"height": 720} -> {"height": 1080}',
        "  destination: s3://media/processed/{dir}{stem}-720p.mp4 -> s3://media/processed/{dir}{stem}-1080p.mp4",
    ]
    assert "no terminal to ask at" in said
    assert developer.project.sql("select * from ittybit.rules") == before

    developer.deploy("--yes", *changed)
    assert rules(developer)[0]["task"]["options"] == {"height": 1080}
    # The rule still applies to uploads from the same date on.
    assert developer.project.value("select active_since from ittybit.rules") == before[0]["active_since"]


def test_a_rule_deletes_results_with_their_objects_only_with_the_option(developer: Developer) -> None:
    flag = "select delete_results from ittybit.rules"
    developer.deploy(*CLIPS)
    assert developer.project.value(flag) is False
    assert "  delete-results: false -> true" in developer.refused(*CLIPS, "--delete-results")
    assert developer.project.value(flag) is False
    developer.deploy("--yes", *CLIPS, "--delete-results")
    assert developer.project.value(flag) is True
    assert developer.deploy(*CLIPS, "--delete-results").stdout == "unchanged\n"
    assert "deletes results with their objects" in developer.deploy("rule", "list").stdout
    assert developer.deploy(*CLIPS, "--replace").stdout == "replaced\n  delete-results: true -> false\n"
    assert developer.project.value(flag) is False


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("rule",), "rule takes add, list, explain, enable, disable or remove"),
    (("rule", "add"), "rule add takes a name and --bucket"),
    (("rule", "add", "a", "--bucket"), "--bucket takes a value"),
    (("rule", "add", "a", "b", "--bucket", "media"), "a rule has one name, and this is another: b"),
    (("rule", "add", "a", "--bucket", "media"), "the rule has no action"),
    (("rule", "add", "a", "--bucket", "media", "--automation", "x", *TASK), "do not go together"),
    (("rule", "add", "a", "--bucket", "media", "--automation", "x", "--run", "{}"), "--run does not go with"),
    ((*CLIPS, "--run", "{}"), "--run does not go with --automation or --task"),
    (("rule", "add", "a", "--bucket", "media", "--run", '{"tasks": []}'), 'rule "a": run.tasks must be 1 to 64 steps'),
    (("rule", "add", "a", "--bucket", "media", "--run", "tasks"), "invalid input syntax for type json"),
    (("rule", "add", "a", "--bucket", "media", "--colour", "red"), "rule add does not take '--colour'"),
    ((*CLIPS, "--sample-type", "video/mp4"), "--sample-… needs --sample"),
    (
        ("rule", "add", "a", "--bucket", "media", "--automation", "x", "--delete-results"),
        'rule "a": delete_results is for results in the project',
    ),
    (("rule", "list", "all"), "expected 0 arguments, got 1"),
    (("rule", "explain", "media"), "expected 2 arguments, got 1"),
    # Refused by the database, with its own message and without psql's prefix.
    (("rule", "add", "a b", "--bucket", "media", "--automation", "x"), 'constraint "rules_name_check"'),
    ((*CLIPS, "--min-size", "much"), 'invalid size: "much"'),
    ((*CLIPS[:-1], "results/{stem}"), 'rule "clips": task.destination must be s3://bucket/key'),
    ((*CLIPS[:-1], "s3://media/{Stem}"), "  Known are {dir} {stem} {ext} {name} {version} {owner_id}."),
    ((*CLIPS[:-3], "{height", *CLIPS[-2:]), "invalid input syntax for type json"),
    (("rule", "remove", "clips"), "there is no rule clips\n  There are: none yet"),
    (("rule", "enable", "clips"), "there is no rule clips"),
]


def test_an_invalid_rule_is_refused_and_changes_nothing(developer: Developer) -> None:
    for arguments, said in REFUSED:
        refusal = developer.refused("--yes", *arguments)
        assert said in refusal
        assert "psql:" not in refusal
    assert rules(developer) == []


SAMPLES: list[tuple[tuple[str, ...], str]] = [
    (("--sample", "a.mp4"), "does not match: the key does not fit path clips/**"),
    (("--sample", "clips/a.png"), "does not match: the type is not video/*"),
    (("--sample", "clips/a", "--sample-type", "Video/MP4"), "matches, and its result goes to s3://media/clips/a/o"),
    (("--sample", "clips/a.mp4", "--sample-size", "1kB"), "does not match: it is under 2048 bytes"),
    (("--sample", "clips/a.mp4", "--sample-size", "5kB"), "does not match: it is over 4096 bytes"),
    (("--sample", "clips/.emptyFolderPlaceholder", "--sample-type", "video/x"), "it is a folder's placeholder"),
    (("--sample", "clips/é.mp4"), "Supabase Storage takes no such key"),
    (("--sample", "clips/made/a.mp4"), "it is under an output prefix"),
]


def test_a_sample_is_judged_as_an_upload_would_be(developer: Developer) -> None:
    developer.project.settings(output_prefixes=["clips/made/"])
    destination = ("--destination", "s3://media/{dir}{stem}/o", "--min-size", "2kB", "--max-size", "4kB")
    for sample, verdict in SAMPLES:
        said = developer.deploy(*CLIPS[:9], "--task", "video", *destination, *sample).stdout
        assert verdict in said.splitlines()[1]


def test_a_destination_with_the_owners_id_needs_an_owner(developer: Developer) -> None:
    destination = "s3://media/processed/{owner_id}/{version}"
    rule = ("rule", "add", "own", "--bucket", "media", "--task", "image", "--destination", destination)
    arguments = (*rule, "--sample", "a.png")
    assert "{owner_id} needs an owner" in developer.deploy(*arguments).stdout
    said = developer.deploy(*arguments, "--sample-owner", "user-1").stdout.splitlines()
    assert said == [
        "unchanged",
        "a.png (image/png) matches, and its result goes to s3://media/processed/user-1/VERSION",
    ]


def test_rules_are_listed_with_the_counts_of_their_jobs(developer: Developer) -> None:
    assert developer.deploy("rule", "list").stdout == "there are no rules yet: ./deploy.sh rule add\n"
    developer.deploy(*CLIPS)
    developer.deploy("rule", "add", "all", "--bucket", "media", "--automation", "auto_1", "--max-size", "1kB")
    developer.deploy("rule", "disable", "all")
    developer.project.put("clips/a.mp4", "clips/b.mp4", bucket="media", size=2000)
    head, _, *lines = developer.deploy("rule", "list").stdout.splitlines()
    columns = [column.strip() for column in head.split("|")]
    listed = [dict(zip(columns, (part.strip() for part in line.split("|")), strict=True)) for line in lines if line]
    assert listed == [
        row("all", path="**", type="any", does="auto_1", **{"and": "DISABLED, to 1024 bytes"}),
        row("clips", path="clips/**", type="video/*", does=f"video -> {TASK[-1]}", waiting="2"),
    ]


def row(rule: str, **columns: Any) -> dict[str, Any]:
    numbers = {"waiting": "0", "started": "0", "failed": "0"}
    return {"rule": rule, "bucket": "media", "and": ""} | numbers | columns


def test_a_rule_is_switched_off_and_on(developer: Developer) -> None:
    developer.deploy(*CLIPS)
    for verb, said, enabled in (
        ("enable", "unchanged\n", True),
        ("disable", "disabled; queued jobs wait", False),
        ("disable", "unchanged\n", False),
        ("enable", "enabled; for objects that were stored meanwhile, run", True),
    ):
        assert developer.deploy("rule", verb, "clips").stdout.startswith(said)
        assert rules(developer)[0]["enabled"] is enabled


def test_a_rule_that_can_write_another_rules_key_is_refused_and_both_are_named(developer: Developer) -> None:
    developer.deploy(*CLIPS)
    said = developer.refused("rule", "add", "again", *CLIPS[3:])
    assert 'rules "again" and "clips" can write one key: both would be paid for, and one result lost' in said
    assert "Name the results differently" in said
    assert len(rules(developer)) == 1


def test_a_rule_is_removed_after_naming_its_waiting_jobs(developer: Developer) -> None:
    developer.deploy(*CLIPS)
    developer.project.put("clips/a.mp4", "clips/b.mp4", bucket="media")
    developer.project.started("clips/a.mp4", "task_1")
    said = developer.refused("rule", "remove", "clips")
    assert said.startswith(
        "Rule clips has 1 jobs that wait and would be skipped, and 1 at ittybit, which go on to their end.\n"
    )
    assert len(rules(developer)) == 1
    assert developer.deploy("--yes", "rule", "remove", "clips").stdout == "removed clips\n"
    assert sorted(developer.project.states()) == [
        ("clips/a.mp4", "started", None),
        ("clips/b.mp4", "skipped", "rule_deleted"),
    ]


def test_an_object_is_explained(developer: Developer) -> None:
    explain = ("rule", "explain", "media", "clips/a.mp4")
    assert developer.deploy(*explain).stdout == "there are no rules yet: ./deploy.sh rule add\n"
    developer.deploy(*CLIPS)
    assert developer.deploy(*explain).stdout == "clips: there is no such object\n"
    developer.project.put("clips/a.mp4", bucket="media")
    lines = developer.deploy(*explain).stdout.splitlines()
    job = developer.project.job()["id"]
    assert lines[:2] == ["clips: waiting to be claimed", f"  job {job} queued"]


def test_control_characters_in_an_explanation_are_not_printed(developer: Developer) -> None:
    developer.deploy(*CLIPS)
    said = "\x1b[2J\x07\x9b\u2028\nother: it matches"
    developer.project.put("clips/a.mp4", bucket="media")
    failed = "state = 'failed', due_at = null, outputs = array[%s], error = jsonb_build_object('message', %s::text)"
    developer.project.sql(f"update ittybit.jobs set {failed}", said, said)  # noqa: S608 - constants of this file
    developer.project.superuser.execute(
        "update storage.objects set metadata = metadata || jsonb_build_object('mimetype', %s::text)", [said]
    )
    printed = developer.deploy("rule", "explain", "media", "clips/a.mp4").stdout
    lines = printed.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("clips: its type is  [2J other: it matches, not video/*")
    assert all("other: it matches" in line for line in lines)
    assert not set(printed) & set("\x1b\x07\x9b\u2028")


def test_without_the_schema_it_says_what_to_do_first(developer: Developer) -> None:
    developer.project.sql("drop schema ittybit cascade")
    assert developer.refused("rule", "list").splitlines()[-1].endswith("run ./deploy.sh database.")


def test_a_dry_run_prints_the_values_as_they_are_given(clone: Clone) -> None:
    result = clone.deploy("--dry-run", "rule", "add", "a", "--bucket", "it's", "--automation", "auto_1")
    assert result.returncode == 0
    [line] = result.stdout.splitlines()
    assert line.startswith("psql -XqwAt1 -v ON_ERROR_STOP=1 -v VERBOSITY=verbose -v name=a -v bucket=it\\'s -v ")
    assert line.endswith("-f deploy/rule_add.sql")


def test_help_needs_no_settings(clone: Clone) -> None:
    for arguments in (("--help",), ("add", "--help"), ("remove", "-h")):
        assert "rule add NAME --bucket BUCKET" in clone.deploy("rule", *arguments).stdout
