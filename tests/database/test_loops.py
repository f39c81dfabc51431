"""Results never trigger further jobs, even with the worst configurations, each run for eight rounds.

The ittybit in here does what a rule says and writes the result at once, through S3 as the real one does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.database.project import TASK, Project
from tests.database.project import upload as upload_step
from tests.database.rows import Row
from tests.database.without_triggers import store

S3 = "storage.s3.upload"
ROUNDS = 8
Writer = Callable[[Row], list[tuple[str, str]]]


def split(destination: str) -> tuple[str, str]:
    bucket, _, key = destination.removeprefix("s3://").partition("/")
    return bucket, key


def as_declared(job: Row) -> list[tuple[str, str]]:
    """A task's file, at its destination; or a run's files, each at its upload's address."""

    def uploads(steps: list[Row]) -> list[str]:
        return [
            url for step in steps for url in [step.get("options", {}).get("url"), *uploads(step.get("next", []))] if url
        ]

    match job["action"]:
        case {"task": {"destination": destination}}:
            return [split(destination)]
        case {"run": {"tasks": steps}}:
            return list(map(split, uploads(steps)))
    return []


def adaptive(job: Row) -> list[tuple[str, str]]:
    """A playlist, and its segments in folders of their own."""
    bucket, key = split(job["action"]["task"]["destination"])
    folder = key.rpartition("/")[0]
    return [(bucket, key)] + [(bucket, f"{folder}/{height}p/{n:03}.ts") for height in (360, 720) for n in range(20)]


class Ittybit:
    """Starts due jobs, writes their results, and lists every start."""

    def __init__(self, database: Project, writes: Writer, *, triggers: bool = True) -> None:
        self.database = database
        self.writes = writes
        self.triggers = triggers
        self.written: set[tuple[str, str]] = set()
        self.started: list[tuple[str, str]] = []

    def play(self) -> None:
        """Claim, run and report everything that is due, and run the sweep and the backfill, several times."""
        for _ in range(ROUNDS):
            self.database.make_due()
            for function in ("on-upload", "push-back"):
                for lease in self.database.claim(function):
                    self.step(lease)
            for _ in range(4):
                self.database.sql("select ittybit.sweep_page(), ittybit.backfill_page()")

    def step(self, lease: Row) -> None:
        if lease["step"] == "check":
            self.database.report(lease, "succeeded", ittybit_id=lease["ittybit_id"])
            return
        self.database.report(lease, "started", ittybit_id=f"runs/{lease['mark']}")
        self.started.append((lease["bucket"], lease["name"]))
        for bucket, name in self.writes(lease):
            self.write(bucket, name)

    def write(self, bucket: str, name: str) -> None:
        self.written.add((bucket, name))
        if self.triggers:
            self.database.put(name, bucket=bucket, operation=S3)
        else:
            store(self.database, name, bucket=bucket, owner_id=None)


@pytest.fixture(params=[True, False], ids=["triggers", "sweep only"])
def ittybit(request: pytest.FixtureRequest, database: Project) -> Ittybit:
    """One whose results the triggers see, and one whose results only the sweep sees."""
    return Ittybit(database, as_declared, triggers=request.param)


def upload(ittybit: Ittybit, *names: str) -> None:
    ittybit.database.put(*names)
    ittybit.play()


def only_uploads_started(ittybit: Ittybit, *names: str, times: int = 1) -> bool:
    expected = [("uploads", name) for name in names] * times
    return sorted(ittybit.started) == sorted(expected) and bool(ittybit.written)


def to_uploads(key: str, **task: Any) -> Row:
    return TASK | {"destination": f"s3://uploads/{key}"} | task


@pytest.mark.parametrize("accept_s3", [False, True])
@pytest.mark.parametrize("key", ["{dir}{stem}-720p.mp4", "{name}.mp4", "one.mp4", "processed/{name}", "{version}"])
def test_results_in_the_watched_bucket_start_nothing(ittybit: Ittybit, key: str, accept_s3: bool) -> None:
    ittybit.database.rule(task=to_uploads(key), accept_s3=accept_s3)
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov")


@pytest.mark.parametrize("accept_s3", [False, True])
def test_several_results_of_a_run_in_the_watched_bucket_start_nothing(ittybit: Ittybit, accept_s3: bool) -> None:
    next_to_it = [
        upload_step("s3://uploads/{dir}{stem}-720p.mp4"),
        {"kind": "image", "next": [upload_step("s3://uploads/{name}.jpeg")]},
    ]
    ittybit.database.rule(run={"tasks": [{"kind": "video", "next": next_to_it}]}, accept_s3=accept_s3)
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov")
    assert len(ittybit.written) == 2


@pytest.mark.parametrize("accept_s3", [False, True])
def test_results_of_two_rules_that_feed_each_other_start_nothing(ittybit: Ittybit, accept_s3: bool) -> None:
    there = TASK | {"destination": "s3://results/{stem}.mp4"}
    back = TASK | {"destination": "s3://uploads/{stem}-again.mov"}
    ittybit.database.rule("there", task=there, accept_s3=accept_s3)
    ittybit.database.rule("back", bucket_id="results", task=back, accept_s3=accept_s3)
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov")
    ittybit.started.clear()
    ittybit.database.put("mine.mov", bucket="results")
    ittybit.play()
    assert ittybit.started == [("results", "mine.mov")]


@pytest.mark.parametrize("accept_s3", [False, True])
def test_the_many_files_of_an_adaptive_result_start_nothing(ittybit: Ittybit, accept_s3: bool) -> None:
    ittybit.writes = adaptive
    task = to_uploads("{dir}{stem}/master.m3u8", kind="adaptive_video")
    ittybit.database.rule(task=task, accept_s3=accept_s3)
    ittybit.database.rule("beside", task=to_uploads("{name}.jpeg"), path="**.ts", accept_s3=accept_s3)
    upload(ittybit, "clips/a.mov")
    assert only_uploads_started(ittybit, "clips/a.mov")
    assert len(ittybit.written) == 41


@pytest.mark.parametrize("accept_s3", [False, True])
def test_overwritten_results_start_nothing(ittybit: Ittybit, accept_s3: bool) -> None:
    ittybit.database.rule(task=to_uploads("{dir}{stem}-720p.mp4"), accept_s3=accept_s3)
    upload(ittybit, "a.mov")
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov", times=2)
    # A person may overwrite a result. It stays a result.
    upload(ittybit, "a-720p.mp4")
    assert only_uploads_started(ittybit, "a.mov", times=2)


@pytest.mark.parametrize("accept_s3", [False, True])
@pytest.mark.parametrize("key", ["{dir}{stem}-720p.mp4", "processed/{stem}.mp4"])
def test_results_renamed_or_moved_out_of_a_prefix_start_nothing(database: Project, key: str, accept_s3: bool) -> None:
    ittybit = Ittybit(database, as_declared)
    database.rule(task=to_uploads(key), accept_s3=accept_s3)
    database.rule("other", bucket_id="results", accept_s3=accept_s3, output_prefix="made/")
    upload(ittybit, "a.mov")
    [(_, result)] = ittybit.written
    database.move(result, "renamed.mp4")
    ittybit.play()
    database.move("renamed.mp4", "again.mp4", to_bucket="results")
    ittybit.play()
    database.move("again.mp4", "home.mp4", bucket="results")
    ittybit.play()
    assert only_uploads_started(ittybit, "a.mov")


def test_a_renamed_result_starts_nothing_after_its_source_and_rows_are_deleted(database: Project) -> None:
    ittybit = Ittybit(database, as_declared)
    database.rule(task=to_uploads("{stem}-720p.mp4"), accept_s3=True)
    upload(ittybit, "a.mov")
    database.move("a-720p.mp4", "renamed.mp4")
    database.delete("a.mov")
    database.sql("update ittybit.jobs set orphaned_at = now() - interval '31 days' where orphaned_at is not null")
    assert database.value("select ittybit.tidy()") == 1
    database.sql("delete from ittybit.jobs")
    database.sql("update ittybit.rules set active_since = '-infinity'")
    store(database, "renamed.mp4", owner_id=None)
    upload(ittybit, "renamed.mp4")
    assert only_uploads_started(ittybit, "a.mov")


@pytest.mark.parametrize("accept_s3", [False, True])
def test_a_copy_of_a_result_is_processed_once_and_its_results_start_nothing(ittybit: Ittybit, accept_s3: bool) -> None:
    """A copy looks like new content. It is processed once, and its results start nothing."""
    ittybit.database.rule(task=to_uploads("{dir}{stem}-720p.mp4"), accept_s3=accept_s3)
    upload(ittybit, "a.mov")
    ittybit.database.put("copy.mp4", operation="storage.object.copy")
    ittybit.play()
    assert only_uploads_started(ittybit, "a.mov", "copy.mp4")


def test_a_copy_through_s3_starts_nothing(ittybit: Ittybit) -> None:
    ittybit.database.rule(task=to_uploads("{dir}{stem}-720p.mp4"))
    upload(ittybit, "a.mov")
    ittybit.database.put("copy.mp4", operation="storage.s3.object.copy")
    ittybit.play()
    assert only_uploads_started(ittybit, "a.mov")


def by_itself(prefix: str, bucket: str = "uploads") -> Writer:
    """The files of an automation that uploads by itself, to addresses that the ledger does not know."""

    def writes(job: Row) -> list[tuple[str, str]]:
        return [
            (bucket, f"{prefix}{job['name']}{'' if prefix else '-720p.mp4'}"),
            (bucket, f"{prefix}{job['name']}.jpeg"),
        ]

    return writes


@pytest.mark.parametrize("accept_s3", [False, True])
@pytest.mark.parametrize("declared", ["processed/", "made/here/"])
def test_an_automations_uploads_under_its_prefix_start_nothing(
    ittybit: Ittybit, declared: str, accept_s3: bool
) -> None:
    ittybit.writes = by_itself(declared)
    ittybit.database.rule(output_prefix=declared, accept_s3=accept_s3)
    ittybit.database.rule("images", output_prefix="images/", path="**.jpeg", accept_s3=accept_s3)
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov")


def test_an_automations_result_that_is_moved_out_of_its_prefix_starts_nothing(database: Project) -> None:
    ittybit = Ittybit(database, by_itself("made/"))
    database.rule(output_prefix="made/")
    database.rule("other", bucket_id="results")
    upload(ittybit, "a.mov")
    database.move("made/a.mov", "home.mov")
    ittybit.play()
    database.move("home.mov", "away.mov", to_bucket="results")
    ittybit.play()
    assert only_uploads_started(ittybit, "a.mov")


@pytest.mark.parametrize("accept_s3", [False, True])
def test_results_of_automations_that_feed_each_other_start_nothing(ittybit: Ittybit, accept_s3: bool) -> None:
    ittybit.writes = lambda job: [
        ("results", f"there/{job['name']}") if job["bucket"] == "uploads" else ("uploads", f"back/{job['name']}")
    ]
    ittybit.database.rule("there", output_prefix="there/", accept_s3=accept_s3)
    ittybit.database.rule("back", bucket_id="results", output_prefix="back/", accept_s3=accept_s3)
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov")


@pytest.mark.parametrize("bucket", ["uploads", "results"])
def test_uploads_of_an_automation_without_an_output_prefix_start_nothing(ittybit: Ittybit, bucket: str) -> None:
    ittybit.writes = by_itself("", bucket)
    ittybit.database.rule()
    ittybit.database.rule("other", bucket_id="results", task=to_uploads("{name}.mp4"))
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov")
    reasons = {job["reason"] for job in ittybit.database.jobs() if job["state"] == "skipped"}
    assert reasons == {"s3_write" if ittybit.triggers else "origin_unknown"}


def test_results_start_nothing_after_their_source_and_its_rows_are_deleted(ittybit: Ittybit) -> None:
    database = ittybit.database
    database.rule(task=to_uploads("{dir}{stem}-720p.mp4"))
    ittybit.writes = lambda job: as_declared(job) if job["action"]["task"]["kind"] == "video" else adaptive(job)
    database.rule("hls", task=to_uploads("hls/{name}/master.m3u8", kind="adaptive_video"), path="*.mov")
    upload(ittybit, "a.mov")
    assert only_uploads_started(ittybit, "a.mov", times=2)

    database.delete("a.mov")
    database.sql("update ittybit.jobs set orphaned_at = now() - interval '31 days' where orphaned_at is not null")
    assert database.value("select ittybit.tidy()") == 2
    database.sql("update ittybit.rules set active_since = '-infinity'")
    database.sql("delete from ittybit.jobs")
    for bucket, name in ittybit.written:
        store(database, name, bucket=bucket, owner_id=None)
    ittybit.play()
    assert database.jobs() == []
    assert database.value("select files from ittybit.backfill('clips')") == 0
    assert only_uploads_started(ittybit, "a.mov", times=2)


def test_a_retry_by_a_person_starts_once_more(ittybit: Ittybit) -> None:
    ittybit.database.rule(task=to_uploads("{dir}{stem}-720p.mp4"), accept_s3=True)
    upload(ittybit, "a.mov")
    assert ittybit.database.value("select ittybit.retry(id) from ittybit.jobs where name = 'a.mov'")
    ittybit.play()
    assert only_uploads_started(ittybit, "a.mov", times=2)


def test_a_rule_made_later_does_not_start_existing_results(ittybit: Ittybit) -> None:
    ittybit.database.rule(task=to_uploads("{dir}{stem}-720p.mp4"))
    upload(ittybit, "a.mov")
    ittybit.database.rule("later", task=to_uploads("later/{name}"), accept_s3=True, path="**.mp4")
    for bucket, name in sorted(ittybit.written):
        ittybit.write(bucket, name)
    assert ittybit.database.value("select files from ittybit.backfill('later')") == 0
    ittybit.play()
    assert only_uploads_started(ittybit, "a.mov")


def test_the_results_of_a_deleted_rule_start_nothing(ittybit: Ittybit) -> None:
    ittybit.database.rule(task=to_uploads("{dir}{stem}-720p.mp4"))
    upload(ittybit, "a.mov")
    ittybit.database.sql("delete from ittybit.rules")
    ittybit.database.rule("later", task=to_uploads("later/{name}"), accept_s3=True)
    for bucket, name in sorted(ittybit.written):
        ittybit.write(bucket, name)
    ittybit.play()
    assert only_uploads_started(ittybit, "a.mov")
    assert ittybit.database.jobs("a-720p.mp4") == []
