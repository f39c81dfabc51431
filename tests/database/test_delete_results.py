"""delete_results: deleting a source deletes the results that ittybit wrote for it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.database.project import RUN, TASK, Project
from tests.database.rows import Row
from tests.database.without_triggers import triggers_off

S3 = "storage.s3.upload"
SOURCE = "a.mp4"
ADAPTIVE = {"kind": "adaptive_video", "destination": "s3://results/{stem}/master.m3u8"}
VERSIONED = TASK | {"destination": "s3://results/{version}.mp4"}


class Storage:
    """The functions, ittybit and Storage: it writes results, and deletes those that the ledger names."""

    def __init__(self, database: Project) -> None:
        self.database = database
        self.fails = False
        self.deleted: list[str] = []

    def write(self, *names: str, **content: Any) -> None:
        """Let ittybit write results."""
        self.database.put(*names, **{"bucket": "results", "operation": S3} | content)

    def start(self, *results: str, source: str = SOURCE) -> Row:
        """Start an object's due jobs, write these results, and return the lease of the check."""
        for lease in self.due():
            if lease["step"] in ("start", "search") and self.database.names([lease]) == [source]:
                self.database.report(lease, "started", ittybit_id=f"tasks/{lease['mark']}")
        if results:
            self.write(*results)
        [check] = [one for one in self.due() if one["step"] == "check"]
        return check

    def finish(self, *results: str, source: str = SOURCE) -> None:
        """Let an object's job succeed with these results."""
        check = self.start(*results, source=source)
        self.database.report(check, "succeeded", ittybit_id=check["ittybit_id"])

    def due(self) -> list[Row]:
        self.database.make_due()
        return self.database.claim("push-back")

    def drain(self) -> None:
        """Do the deletions that are due, until there are none."""
        for _ in range(6):
            for lease in self.due():
                assert lease["step"] == "delete"
                if self.fails:
                    self.database.report(lease, "retry", error={"service": "storage", "status": 503})
                    continue
                for result in lease["results"]:
                    self.database.delete(result["name"], bucket=result["bucket_id"])
                    self.deleted.append(result["name"])
                self.database.report(lease, "deleted")

    @property
    def left(self) -> list[str]:
        found = self.database.sql("select name from storage.objects where bucket_id = 'results' order by 1")
        return [row["name"] for row in found]

    def plan(self, source: str = SOURCE) -> dict[str, tuple[bool, str]]:
        """The dry run: for each result, whether it is deleted and why."""
        planned = self.database.sql("select * from ittybit.results_of('uploads', %s)", source)
        return {row["result"].removeprefix("s3://results/"): (row["is_deleted"], row["because"]) for row in planned}


GOES = (True, "deleted with its object")
NOT_OURS = (False, "it is not what ittybit wrote for this rule")
SHARED = (False, "it is a result of another object as well")


@pytest.fixture
def storage(database: Project) -> Storage:
    """With a rule that deletes results with their source."""
    database.rule(task=TASK, delete_results=True)
    return Storage(database)


@pytest.fixture
def made(storage: Storage) -> Storage:
    """With a source and its result."""
    storage.database.put(SOURCE)
    storage.finish("a.mp4")
    return storage


def test_deleting_a_source_deletes_its_result_and_records_when(made: Storage) -> None:
    assert made.plan() == {"a.mp4": GOES}
    made.database.delete(SOURCE)
    made.drain()
    assert (made.left, made.database.outputs(), made.plan()) == ([], [], {})
    job = made.database.job()
    assert (job["state"], job["due_at"], job["orphaned_by"]) == ("succeeded", None, "gone")
    assert job["results_deleted_at"] is not None
    [because] = made.database.sql("select because from ittybit.explain('uploads', %s) where job is not null", SOURCE)
    assert because == {"because": "it was deleted with its results"}


def test_without_delete_results_nothing_is_recorded_and_nothing_deleted(database: Project) -> None:
    database.rule(task=TASK)
    storage = Storage(database)
    database.put(SOURCE)
    storage.finish("a.mp4")
    assert database.value("select count(version) from ittybit.outputs") == 0
    assert storage.plan() == {"a.mp4": (False, "the rule is without delete_results")}
    # Turning it on later concerns only results that are written later.
    database.sql("update ittybit.rules set delete_results = true")
    assert storage.plan() == {"a.mp4": NOT_OURS}
    database.delete(SOURCE)
    assert (storage.due(), storage.left) == ([], ["a.mp4"])


@pytest.mark.parametrize(
    "columns",
    [
        {"automation_id": "auto_1"},
        {"automation_id": "auto_1", "output_prefix": "made/"},
        {"task": {"kind": "video", "options": {}}},
    ],
)
def test_delete_results_is_refused_without_results_in_the_project(database: Project, columns: dict[str, Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="delete_results is for results in the project"):
        database.rule(**columns, delete_results=True)


@pytest.mark.parametrize(
    "change",
    ["update ittybit.rules set delete_results = false", "delete from ittybit.rules"],
    ids=["off", "deleted"],
)
def test_after_turning_delete_results_off_no_more_results_are_deleted(made: Storage, change: str) -> None:
    made.database.delete(SOURCE)
    made.database.sql(change)
    made.drain()
    assert (made.left, made.deleted) == (["a.mp4"], [])


def test_a_disabled_rule_and_a_pause_do_not_stop_deletions(made: Storage) -> None:
    made.database.sql("update ittybit.rules set enabled = false")
    made.database.sql("select ittybit.pause()")
    made.database.delete(SOURCE)
    made.drain()
    assert made.left == []


# Files that others have written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "owner"),
    [
        ("storage.object.upload", None),  # a server with the secret key
        ("storage.object.upload", "8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e"),
        (S3, "8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e"),  # S3 with a session token
        ("storage.s3.object.copy", None),
        (S3, None),  # after the job's end, ittybit writes nothing more
    ],
)
def test_a_file_that_somebody_wrote_over_a_result_stays(made: Storage, operation: str, owner: str | None) -> None:
    made.database.put("a.mp4", bucket="results", operation=operation, owner_id=owner)
    assert made.plan() == {"a.mp4": NOT_OURS}
    made.database.delete(SOURCE)
    assert (made.due(), made.left) == ([], ["a.mp4"])


def test_a_users_files_among_or_over_the_results_of_a_running_job_stay(storage: Storage) -> None:
    storage.database.sql("delete from ittybit.rules")
    storage.database.rule(task=ADAPTIVE, delete_results=True)
    storage.database.put(SOURCE)
    check = storage.start("a/master.m3u8", "a/0.ts", "a/1.ts")
    storage.write("a/1.ts", "a/mine.ts", owner_id="8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e")
    storage.write("a/by-hand.ts", operation="storage.object.upload")
    storage.database.put("private.mp4", bucket="results", owner_id="8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e")
    storage.database.move("private.mp4", "a/moved-in.ts", bucket="results", to_bucket="results")
    storage.database.report(check, "succeeded", ittybit_id=check["ittybit_id"])
    storage.database.delete(SOURCE)
    storage.drain()
    assert sorted(storage.deleted) == ["a/0.ts", "a/master.m3u8"]
    assert storage.left == ["a/1.ts", "a/by-hand.ts", "a/mine.ts", "a/moved-in.ts"]


@pytest.mark.parametrize("beside", ["victim/clip.jpeg", "victim/clip/still.jpeg"])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_deleting_a_result_folder_keeps_what_another_job_wrote_into_it(
    database: Project, beside: str, is_deleted: bool
) -> None:
    # Uploading victim.mp4 makes victim/ a result folder, in which another user's results may be.
    database.rule(
        "folder", task=ADAPTIVE | {"destination": "s3://results/{dir}{stem}/master.m3u8"}, delete_results=True
    )
    still = {"kind": "image", "destination": f"s3://results/{beside.replace('victim/clip', '{dir}{stem}')}"}
    database.rule("still", task=still, path="victim/**", delete_results=is_deleted)
    storage = Storage(database)
    database.put("victim.mp4", "victim/clip.mp4")
    for lease in storage.due():
        database.report(lease, "started", ittybit_id=f"tasks/{lease['mark']}")
    storage.write("victim/master.m3u8", "victim/clip/master.m3u8", "victim/clip/0.ts", beside)
    for lease in storage.due():
        database.report(lease, "succeeded", ittybit_id=lease["ittybit_id"])
    stays = dict.fromkeys(["victim/clip/master.m3u8", "victim/clip/0.ts", beside], SHARED)
    assert storage.plan("victim.mp4") == {"victim/master.m3u8": GOES} | stays
    database.delete("victim.mp4")
    storage.drain()
    assert storage.deleted == ["victim/master.m3u8"]
    database.delete("victim/clip.mp4")
    storage.drain()
    assert storage.left == ([] if is_deleted else [beside])


def test_deleting_a_nested_result_folder_keeps_what_the_outer_folders_job_wrote(database: Project) -> None:
    # Uploading clip/360.mp4 makes clip/360/ a result folder, into which another user's job may write.
    database.rule(task=ADAPTIVE | {"destination": "s3://results/{dir}{stem}/master.m3u8"}, delete_results=True)
    storage = Storage(database)
    database.put("clip.mp4", "clip/360.mp4")
    for lease in storage.due():
        database.report(lease, "started", ittybit_id=f"tasks/{lease['mark']}")
    storage.write("clip/360/0.ts")
    for lease in storage.due():
        database.report(lease, "succeeded", ittybit_id=lease["ittybit_id"])
    assert storage.plan("clip/360.mp4") == {"clip/360/0.ts": SHARED}
    database.delete("clip/360.mp4")
    assert (storage.due(), storage.left) == ([], ["clip/360/0.ts"])
    database.delete("clip.mp4")
    storage.drain()
    assert storage.left == []


def test_a_result_that_was_overwritten_while_the_triggers_were_off_stays(made: Storage) -> None:
    with triggers_off(made.database):
        made.database.superuser.execute("update storage.objects set version = 'other' where bucket_id = 'results'")
    made.database.delete(SOURCE)
    assert (made.due(), made.left) == ([], ["a.mp4"])


def test_a_shared_result_is_deleted_with_the_source_that_wrote_it_last(storage: Storage) -> None:
    storage.database.put("a.mov")
    storage.finish("a.mp4", source="a.mov")
    storage.database.put(SOURCE)
    storage.finish("a.mp4")
    assert storage.plan("a.mov") == {"a.mp4": NOT_OURS}
    storage.database.delete("a.mov")
    assert (storage.due(), storage.left) == ([], ["a.mp4"])
    storage.database.delete(SOURCE)
    storage.drain()
    assert storage.left == []


def test_a_result_that_two_runs_may_have_written_stays_while_one_source_is_there(made: Storage) -> None:
    # A claim starts one job at a time for each key, but a start that is reported late may be the second.
    made.database.put("a.mov")
    made.database.sql(
        "insert into ittybit.outputs select o.bucket_id, o.name, j.id, o.version"
        " from ittybit.outputs as o, ittybit.jobs as j where j.name = 'a.mov'"
    )
    assert made.plan() == {"a.mp4": SHARED}
    made.database.delete(SOURCE)
    assert made.left == ["a.mp4"]
    assert [lease["step"] for lease in made.due()] == ["start"]


# Overwritten, moved and deleted sources -------------------------------------------------------------------------------


def test_overwriting_a_source_deletes_nothing_and_replaces_its_result(made: Storage) -> None:
    made.database.put(SOURCE)
    assert [lease["step"] for lease in made.due()] == ["start"]
    made.finish("a.mp4")
    assert (made.left, made.deleted) == (["a.mp4"], [])
    made.database.delete(SOURCE)
    made.drain()
    assert (made.left, made.deleted) == ([], ["a.mp4"])


def test_deleting_a_source_also_deletes_the_results_of_its_earlier_contents(storage: Storage) -> None:
    storage.database.sql("delete from ittybit.rules")
    storage.database.rule(task=VERSIONED, delete_results=True)
    first = storage.database.put(SOURCE)
    storage.finish(f"{first}.mp4")
    second = storage.database.put(SOURCE)
    # A month later the first content's row is still there. It names the result.
    storage.database.sql(
        "update ittybit.jobs set orphaned_at = now() - interval '31 days' where orphaned_at is not null"
    )
    storage.database.sql("select ittybit.tidy()")
    storage.finish(f"{second}.mp4")
    assert storage.left == sorted([f"{first}.mp4", f"{second}.mp4"])
    storage.database.delete(SOURCE)
    storage.drain()
    assert storage.left == []


@pytest.mark.parametrize(("to", "to_bucket"), [("trash/a.mp4", "uploads"), ("a.mp4", "published")])
def test_moving_a_source_out_of_the_rule_keeps_its_results(made: Storage, to: str, to_bucket: str) -> None:
    made.database.sql("update ittybit.rules set path = '*'")
    made.database.move(SOURCE, to, to_bucket=to_bucket)
    assert made.plan() == {"a.mp4": (False, "the object was renamed or moved")}
    # Deleting a later object of the same name keeps them too.
    made.database.put(SOURCE, size=0)
    made.database.delete(SOURCE)
    made.database.delete(to, bucket=to_bucket)
    assert (made.due(), made.left) == ([], ["a.mp4"])


def test_a_renamed_source_keeps_its_results_until_it_is_deleted(made: Storage) -> None:
    made.database.move(SOURCE, "b.mp4")
    assert (made.due(), made.left, made.plan(), made.plan("b.mp4")) == ([], ["a.mp4"], {}, {"a.mp4": GOES})
    made.database.delete("b.mp4")
    made.drain()
    assert made.left == []


def test_a_renamed_result_is_deleted_with_its_source(made: Storage) -> None:
    made.database.move("a.mp4", "shelf/best.mp4", bucket="results", to_bucket="results")
    made.database.move("shelf/best.mp4", "best.mp4", bucket="results", to_bucket="published")
    assert made.plan() == {"s3://published/best.mp4": GOES}
    made.database.delete(SOURCE)
    made.drain()
    assert (made.deleted, made.database.sql("select from storage.objects")) == (["best.mp4"], [])


def test_when_a_source_is_deleted_during_its_job_the_results_are_deleted_after_the_job(storage: Storage) -> None:
    storage.database.put(SOURCE)
    check = storage.start()
    storage.database.delete(SOURCE)
    storage.write("a.mp4")
    assert storage.left == ["a.mp4"]
    storage.database.report(check, "succeeded", ittybit_id=check["ittybit_id"])
    storage.drain()
    assert (storage.left, storage.database.job()["state"]) == ([], "succeeded")


def test_the_results_of_a_failed_job_are_deleted_and_its_reason_stays(storage: Storage) -> None:
    storage.database.put(SOURCE)
    check = storage.start("a.mp4")
    storage.database.report(check, "failed", ittybit_id=check["ittybit_id"], error={"message": "of ittybit"})
    storage.fails = True
    storage.database.delete(SOURCE)
    storage.drain()
    storage.fails = False
    storage.drain()
    job = storage.database.job()
    assert (job["state"], job["reason"], job["error"]) == ("failed", "ittybit_failed", {"message": "of ittybit"})
    assert storage.left == []


def test_deleting_a_source_while_a_retry_waits_deletes_the_former_results(made: Storage) -> None:
    assert made.database.value("select ittybit.retry(id) from ittybit.jobs")
    made.database.delete(SOURCE)
    made.drain()
    assert (made.left, made.database.states()) == ([], [(SOURCE, "skipped", "gone")])


def test_a_job_whose_results_are_being_deleted_cannot_be_retried(made: Storage) -> None:
    made.database.delete(SOURCE)
    assert made.database.value("select ittybit.retry(id) from ittybit.jobs") is False
    made.drain()
    assert made.left == []


def test_a_source_uploaded_again_before_the_deletion_keeps_its_new_result(made: Storage) -> None:
    made.database.delete(SOURCE)
    made.database.put(SOURCE)
    # The deletion waits for the job that overwrites the result.
    made.start("a.mp4")
    [check] = made.due()
    assert check["step"] == "check"
    made.database.report(check, "succeeded", ittybit_id=check["ittybit_id"])
    made.drain()
    assert (made.left, made.deleted) == (["a.mp4"], [])
    assert {job["due_at"] for job in made.database.jobs()} == {None}


def test_a_start_waits_while_the_old_result_at_its_destination_is_being_deleted(made: Storage) -> None:
    made.database.delete(SOURCE)
    [deletion] = made.due()
    made.database.put(SOURCE)
    assert made.database.claim("push-back") == []
    made.database.delete("a.mp4", bucket="results")
    made.database.report(deletion, "deleted")
    made.finish("a.mp4")
    made.drain()
    assert (made.left, made.deleted) == (["a.mp4"], [])


def test_when_a_source_is_uploaded_again_and_fails_the_deleted_contents_result_is_deleted(made: Storage) -> None:
    made.database.delete(SOURCE)
    made.database.put(SOURCE)
    [lease] = made.due()
    made.database.report(lease, "failed", reason="ittybit_failed")
    made.drain()
    assert made.left == []


def test_deleting_source_and_results_in_one_statement_needs_no_function(made: Storage) -> None:
    made.database.rule("both", bucket_id="results", task=TASK | {"destination": "s3://uploads/x/{stem}.mp4"})
    with made.database.writing("storage.object.delete_many") as connection:
        connection.execute("delete from storage.objects where true")
    assert (made.due(), made.database.outputs()) == ([], [])


# Leases and reports of deletions --------------------------------------------------------------------------------------


def test_a_large_folder_is_deleted_in_several_leases(storage: Storage) -> None:
    storage.database.sql("delete from ittybit.rules")
    storage.database.rule(task=ADAPTIVE, delete_results=True)
    storage.database.put(SOURCE)
    storage.finish("a/master.m3u8", *(f"a/{height}/{n}.ts" for height in (360, 720) for n in range(300)))
    assert len(storage.plan()) == 601
    storage.database.delete(SOURCE)
    sizes = []
    while leases := storage.due():
        [lease] = leases
        sizes.append(len(lease["results"]))
        storage.database.delete(*(result["name"] for result in lease["results"]), bucket="results")
        storage.database.report(lease, "deleted")
    assert (sizes, storage.left) == ([250, 250, 101], [])


def test_deletions_back_off_while_storage_is_down(made: Storage) -> None:
    made.database.delete(SOURCE)
    waits = []
    for _ in range(4):
        [lease] = made.due()
        made.database.report(lease, "retry", error={"service": "storage", "status": 503})
        waits.append(made.database.seconds_left())
    assert all(15 * 2**n * 0.79 < wait < 15 * 2**n * 1.21 for n, wait in enumerate(waits))
    job = made.database.job()
    assert (job["state"], job["error"]["status"], job["results_deleted_at"]) == ("succeeded", 503, None)
    made.drain()
    assert (made.left, made.database.job()["error"]) == ([], None)


def test_a_deletion_whose_answer_was_lost_counts_as_done(made: Storage) -> None:
    made.database.delete(SOURCE)
    [lease] = made.due()
    made.database.delete("a.mp4", bucket="results")
    made.database.report(lease, "retry", error={"service": "storage", "status": None})
    job = made.database.job()
    assert (job["due_at"], job["error"], job["failures"]) == (None, None, 0)
    assert job["results_deleted_at"] is not None


def test_only_the_current_lease_can_report_a_deletion(made: Storage) -> None:
    made.database.delete(SOURCE)
    [lost] = made.due()
    [lease] = made.due()
    assert made.database.report(lost, "deleted")["refused"] == "claimed again since"
    for outcome in ("skipped", "hold", "undecided"):
        assert made.database.report(lease, outcome)["refused"] == "succeeded"
    assert made.database.report(lease, "started", ittybit_id="tasks/2")["refused"].startswith("started as ")
    # While the result is there, a report does not end the deletion.
    assert "refused" not in made.database.report(lease, "deleted")
    assert made.database.job()["results_deleted_at"] is None
    assert made.database.seconds_left() <= 0
    made.drain()
    assert made.left == []


def test_reporting_a_start_as_a_deletion_is_refused(storage: Storage) -> None:
    storage.database.put(SOURCE)
    [lease] = storage.due()
    assert storage.database.report(lease, "deleted")["refused"] == "queued"
    assert storage.database.job()["in_doubt_since"] is not None


def test_pg_cron_wakes_for_a_deletion_and_the_status_counts_it(made: Storage) -> None:
    made.database.messages()
    made.database.delete(SOURCE)
    assert made.database.wake() == 1
    line = "select value from ittybit.status where what = %s"
    assert made.database.value(line, "results to delete") == "1"
    assert made.database.value(line, "at ittybit") == "0"
    made.drain()
    assert (made.database.wake(), made.database.value(line, "results to delete")) == (0, "0")


def test_a_copy_of_the_database_deletes_no_results(made: Storage) -> None:
    made.database.delete(SOURCE)
    made.database.make_due()
    with pytest.raises(psycopg.errors.RaiseException, match="was set up for"):
        made.database.claim("push-back", project="https://copy.test")
    made.database.sql("select ittybit.adopt('https://copy.test', open_jobs => 'skip')")
    assert made.database.claim("push-back", project="https://copy.test") == []
    assert made.left == ["a.mp4"]


def test_a_row_is_kept_until_its_results_are_deleted(made: Storage) -> None:
    made.database.delete(SOURCE)
    made.database.sql("update ittybit.jobs set orphaned_at = now() - interval '31 days'")
    made.database.sql("select ittybit.tidy()")
    made.drain()
    assert made.left == []
    made.database.sql("select ittybit.tidy()")
    assert made.database.jobs() == []


# Any order of events --------------------------------------------------------------------------------------------------

EVENTS: dict[str, Callable[[Storage], object]] = {
    "upload": lambda storage: storage.database.put(SOURCE),
    "same bytes": lambda storage: storage.database.put(SOURCE, etag="same"),
    "delete": lambda storage: storage.database.delete(SOURCE),
    "rename": lambda storage: storage.database.move(SOURCE, "b.mp4"),
    "move away": lambda storage: storage.database.move(SOURCE, "trash/a.mp4"),
    "delete the other": lambda storage: storage.database.delete("b.mp4"),
    "overwrite the result": lambda storage: storage.database.put("a.mp4", bucket="results", owner_id="somebody"),
    "rename the result": lambda storage: storage.database.move(
        "a.mp4", "kept.mp4", bucket="results", to_bucket="results"
    ),
    "delete the result": lambda storage: storage.database.delete("a.mp4", bucket="results"),
    "start": lambda storage: _step(storage, "start"),
    "search": lambda storage: _step(storage, "search"),
    "check": lambda storage: _step(storage, "check"),
    "delete results": lambda storage: _step(storage, "delete"),
    "tidy": lambda storage: storage.database.sql("select ittybit.tidy()"),
}


def _step(storage: Storage, *steps: str) -> None:
    """Do the due steps of these kinds; the leases of the others are lost."""
    for lease in storage.due():
        if lease["step"] not in steps:
            continue
        if lease["step"] == "delete":
            assert storage.database.value("select orphaned_by from ittybit.jobs where id = %s", lease["job"]) == "gone"
            for result in lease["results"]:
                [stored] = storage.database.sql(
                    "select owner_id, version from storage.objects where bucket_id = %s and name = %s",
                    result["bucket_id"],
                    result["name"],
                )
                assert stored["owner_id"] is None
                storage.database.delete(result["name"], bucket=result["bucket_id"])
            storage.database.report(lease, "deleted")
        elif lease["step"] == "check":
            storage.database.report(lease, "succeeded", ittybit_id=lease["ittybit_id"])
        elif lease["step"] == "search":
            storage.database.report(lease, "retry", reason="not_started")
        else:
            storage.database.report(lease, "started", ittybit_id=f"tasks/{lease['mark']}")
            storage.write(lease["action"]["task"]["destination"].removeprefix("s3://results/"))


@given(events=st.lists(st.sampled_from(sorted(EVENTS)), max_size=14))
@example(events=["start", "check", "move away", "delete results"])
def test_only_results_are_deleted_and_only_when_their_source_was_deleted(database: Project, events: list[str]) -> None:
    database.reset()
    database.rule(path="*", task=TASK, delete_results=True)
    storage = Storage(database)
    for event in ["upload", *events]:
        before = {row["id"] for row in database.sql("select id from storage.objects where owner_id is null")}
        try:
            EVENTS[event](storage)
        except psycopg.errors.UniqueViolation:
            continue  # Storage refuses to move an object over another
        if event not in ("delete results", "delete the result", "delete", "delete the other", "overwrite the result"):
            after = {row["id"] for row in database.sql("select id from storage.objects")}
            assert before <= after
    for _ in range(12):
        database.pass_time(2 * 3600)
        _step(storage, "start", "search", "check", "delete")
    assert {job["due_at"] for job in database.jobs()} <= {None}
    assert database.warnings == []
    # Each result that is left belongs to a source that is there, was moved away, or was overwritten.
    for row in database.sql("select j.orphaned_by from ittybit.jobs as j, ittybit.results_to_delete(j.id)"):
        assert row["orphaned_by"] != "gone"


def test_deleting_a_source_deletes_all_results_of_its_run(database: Project) -> None:
    database.rule(run=RUN, delete_results=True)
    database.put("a.mov")
    database.started("a.mov", "runs/1")
    for result in ("a.mp4", "a.jpeg"):
        database.put(result, bucket="results", operation="storage.s3.upload", owner_id=None)
    database.report(database.next_lease(), "succeeded", ittybit_id="runs/1")
    database.delete("a.mov")
    [lease] = database.claim("push-back")
    assert (lease["step"], sorted(one["name"] for one in lease["results"])) == ("delete", ["a.jpeg", "a.mp4"])


def test_delete_results_is_refused_for_a_run_without_an_upload(database: Project) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="delete_results is for results in the project"):
        database.rule(run={"tasks": [{"kind": "video"}]}, delete_results=True)
