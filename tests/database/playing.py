"""A function and an ittybit, reduced to what the ledger sees of them, and the events that can happen to a job.

Ittybit's journal lists the real starts: the tests compare the ledger with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest

from tests.database.project import PROJECT, PUSH_BACK, TASK, Project, report
from tests.database.rows import Row

NAME = "clips/a.mp4"
KILLER = "clips/killer.mp4"
ANOTHER = "https://another.test"
# Longer than any lease, and than the pause between two wake-ups of a function that is down.
LONG = 2 * 3600


class Play:
    """The function and ittybit, for one rule with one object and its job.

    Attributes:
        journal: the marks of the starts at ittybit, in order.
        renamed: the marks of the starts whose source ittybit does not find.
        finds_objects: whether Storage finds the objects that the function asks for.
        project: the function's SUPABASE_URL.
        job: the object's first job.
    """

    def __init__(self, database: Project, name: str = NAME) -> None:
        self.database = database
        self.journal: list[str] = []
        self.renamed: set[str] = set()
        self.finds_objects = True
        self.project = PROJECT
        if not database.sql("select from ittybit.rules"):
            database.rule(path="clips/*", task=TASK, delete_results=True)
        database.put(name, etag="same")
        self.job: uuid.UUID = database.job(name)["id"]

    def wake(self) -> int:
        """Let time pass and run pg_cron's tick; return how many wake-ups it made."""
        self.database.messages()
        self.database.pass_time(LONG)
        self.database.wake()
        return len(self.database.messages())

    def claim(self, *reports: Row) -> list[Row]:
        return self.database.claim("push-back", 100, *reports, project=self.project)

    def begin(self, mark: str) -> str:
        """Start a run at ittybit and return its id."""
        self.journal.append(mark)
        return f"runs/{mark}"

    def write(self, lease: Row) -> None:
        """Let ittybit write the result of a job that is being checked."""
        address = "select action -> 'task' ->> 'destination' from ittybit.jobs where id = %s"
        _, _, bucket, name = self.database.value(address, lease["job"]).split("/", 3)
        self.database.put(name, bucket=bucket, operation="storage.s3.upload")

    def step(self, lease: Row) -> Row:
        """Do the step of a claimed job, and return its report."""
        if lease["step"] == "delete":
            for result in lease["results"]:
                self.database.delete(result["name"], bucket=result["bucket_id"])
            return report(lease, "deleted")
        if lease["step"] == "check":
            was_fetched = lease["ittybit_id"].removeprefix("runs/") not in self.renamed
            if was_fetched:
                self.write(lease)
            return report(lease, "succeeded" if was_fetched else "failed", ittybit_id=lease["ittybit_id"])
        if lease["step"] == "search":
            if lease["mark"] in self.journal:
                return report(lease, "started", ittybit_id=f"runs/{lease['mark']}")
            return report(lease, "retry", reason="not_started")
        if not self.finds_objects:
            return report(lease, "skipped", reason="gone")
        return report(lease, "started", ittybit_id=self.begin(lease["mark"]))

    def drain(self, *, sent: int = 1) -> None:
        """Claim, work and report until nothing is due; send each report ``sent`` times."""
        known: list[Row] = []
        while leases := self.claim(*known):
            if KILLER in [lease.get("name") for lease in leases]:
                # The function dies here. It may have started the other jobs of the batch.
                known = [self.step(lease) for lease in leases if lease.get("name") != KILLER]
                return
            known = [self.step(lease) for lease in leases]
            for _ in range(sent - 1):
                self.database.reports(*known)

    def lose(self) -> list[Row]:
        """Kill a function after its calls, and return the reports that it did not send."""
        self.wake()
        return [self.step(lease) for lease in self.claim()]

    def settle(self) -> None:
        """Let everything work until no job is due any more."""
        for _ in range(8):
            if not self.database.value("select count(due_at) from ittybit.jobs"):
                return
            if self.wake():
                self.drain()

    def state(self) -> str:
        """Return the first job's state, and its reason if it has one."""
        [row] = self.database.sql("select state, reason from ittybit.jobs where id = %s", self.job)
        return " ".join(word for word in row.values() if word)


def _in_doubt(play: Play) -> None:
    [lease] = play.claim()
    play.begin(lease["mark"])
    play.database.report(lease, "retry", in_doubt=True)


def _started(play: Play) -> None:
    [lease] = play.claim()
    play.database.reports(play.step(lease))


def _checked(play: Play) -> Row:
    _started(play)
    play.wake()
    [lease] = play.claim()
    return lease


def _failed(play: Play) -> None:
    lease = _checked(play)
    play.database.report(lease, "failed", ittybit_id=lease["ittybit_id"], reason="corrupt")


STATES: dict[str, Callable[[Play], object]] = {
    "queued": lambda _: None,
    "claimed": lambda play: play.claim(),
    "in doubt": _in_doubt,
    "started": _started,
    "being checked": _checked,
    "succeeded": lambda play: play.database.reports(play.step(_checked(play))),
    "failed": _failed,
    "skipped": lambda play: play.database.report(play.claim()[0], "skipped", reason="not_addressable"),
}


def _woken_for_nothing(play: Play) -> None:
    play.wake()
    for _ in range(3):
        play.drain()
    play.settle()
    play.drain()


def _drained_at_once(play: Play) -> None:
    play.wake()
    first, second = play.claim(), play.claim()
    for lease in second + first:
        play.database.reports(play.step(lease))


def _claim_answer_lost(play: Play) -> None:
    play.wake()
    play.claim()


def _report_sent_twice(play: Play) -> None:
    play.wake()
    play.drain(sent=2)


def _report_late(play: Play) -> None:
    old = play.lose()
    play.wake()
    leases = play.claim()
    play.database.reports(*old)
    play.database.reports(*map(play.step, leases))


def _report_out_of_order(play: Play) -> None:
    old = play.lose()
    play.settle()
    play.database.reports(*old)


def _killed_by_another_job(play: Play) -> None:
    play.database.put(KILLER)
    play.settle()
    assert play.database.job(KILLER)["lost"] > 2
    play.database.delete(KILLER)
    # The killer's start is in doubt: a function looks for it once more, and starts nothing.
    play.wake()
    play.database.reports(*(play.step(lease) for lease in play.claim()))


def _wrongly_gone(play: Play) -> None:
    play.finds_objects = False
    play.wake()
    play.drain()
    play.finds_objects = True


def _uploaded_again(play: Play) -> None:
    play.database.delete(NAME)
    play.database.put(NAME, etag="same")


def _renamed_before_it_was_fetched(play: Play) -> None:
    play.database.move(NAME, "clips/b.mp4")
    play.renamed = set(play.journal)


def _gate(shut: str, opened: str) -> Callable[[Play], None]:
    """Shut a gate, check that nothing starts, and open it again."""

    def event(play: Play) -> None:
        play.database.sql(shut)
        known = len(play.journal)
        play.settle()
        assert len(play.journal) == known
        play.database.sql(opened)

    return event


def _function_down(play: Play) -> None:
    for _ in range(3):
        play.wake()


def _copied(play: Play) -> None:
    """From here on this is the copy. Its journal is empty."""
    play.journal.clear()
    play.project = ANOTHER
    before = play.database.jobs()
    with pytest.raises(psycopg.errors.RaiseException, match="was set up for"):
        play.claim()
    assert play.database.jobs() == before
    play.database.sql("select ittybit.adopt(%s, open_jobs => 'skip')", ANOTHER)
    play.database.sql("update ittybit.functions set url = %s where name = 'push-back'", PUSH_BACK)


def _moved(play: Play) -> None:
    play.project = ANOTHER
    play.database.sql("select ittybit.adopt(%s, open_jobs => 'look')", ANOTHER)


EVENTS: dict[str, Callable[[Play], object]] = {
    "wake-up lost": lambda play: play.wake(),
    "wake-up doubled, late, replayed, or sent by a copy of the database": _woken_for_nothing,
    "two functions drain at once": _drained_at_once,
    "function down, or the clock of its host wrong": _function_down,
    "claim's answer lost, or the function killed before the call": _claim_answer_lost,
    "function killed in or after the call, or its report lost": lambda play: play.lose(),
    "function killed by another job of the batch": _killed_by_another_job,
    "report's answer lost, and sent again": _report_sent_twice,
    "report late": _report_late,
    "report out of order": _report_out_of_order,
    "object overwritten": lambda play: play.database.put(NAME),
    "same bytes again": lambda play: play.database.put(NAME, etag="same"),
    "object renamed": lambda play: play.database.move(NAME, "clips/b.mp4"),
    "object renamed before ittybit fetched it": _renamed_before_it_was_fetched,
    "object moved out of reach": lambda play: play.database.move(NAME, "b.mp4"),
    "object deleted": lambda play: play.database.delete(NAME),
    "object deleted and uploaded again": _uploaded_again,
    "Storage says that the object is gone, and it is not": _wrongly_gone,
    "rule edited": lambda play: play.database.sql("update ittybit.rules set task = task || '{\"options\": {}}'"),
    "rule disabled, and enabled again": _gate(
        "update ittybit.rules set enabled = false", "update ittybit.rules set enabled = true"
    ),
    "rule deleted": lambda play: play.database.sql("delete from ittybit.rules"),
    "pause": _gate("select ittybit.pause()", "select ittybit.resume()"),
    "hold": _gate(
        "insert into ittybit.holds (scope, probe_at) values ('all', now() + interval '1 year')",
        "delete from ittybit.holds",
    ),
    "ceiling": _gate(
        "update ittybit.settings set starts_per_hour = 0", "update ittybit.settings set starts_per_hour = 1000"
    ),
    "database upgraded, or restored in the same project": lambda _: None,
    "database moved to another project, which takes over": _moved,
    "database restored beside the original, branched, or made from a template": _copied,
}
