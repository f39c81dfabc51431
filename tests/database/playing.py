"""A function and an ittybit reduced to what the ledger sees of them, and everything that can happen in between.

The witness is ittybit's own journal: what was started, whatever the ledger believes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from tests.database.project import ON_UPLOAD, Project
from tests.database.rows import Row

NAME = "clips/a.mp4"


class Play:
    """One rule, one object and its job, between a ledger and an ittybit.

    Attributes:
        journal: the marks of what ittybit started, in order.
        job: the object's first job.
    """

    def __init__(self, database: Project) -> None:
        self.database = database
        self.journal: list[str] = []
        database.rule(path="clips/*")
        database.settings(nudge=False)
        database.put(NAME, etag="same")
        self.job: uuid.UUID = database.job()["id"]
        self.last: list[Row] = []

    def begin(self, mark: str) -> str:
        """Start a run at ittybit and return its id."""
        self.journal.append(mark)
        return f"run of {mark}"

    def send(self) -> list[Row]:
        """Let everything be due and sent, and return the messages."""
        self.database.messages()
        self.database.make_due()
        self.database.send()
        self.last = [message["body"] for message in self.database.messages()]
        return self.last

    def deliver(self, message: Row, *, heard: bool = True, said: int = 1) -> None:
        """Let the function do its step.

        Args:
            message: what the database sent.
            heard: whether its report arrives, or it is killed before.
            said: how often it says its report.
        """
        job, attempt = message["job"], message["attempt"]
        answer = self.database.claim(job, attempt)
        if not answer["claimed"]:
            return
        report: Row
        if answer["step"] == "check":
            report = {"outcome": "succeeded", "ittybit_id": answer["ittybit_id"]}
        elif answer["look_since"] and answer["mark"] in self.journal:
            report = {"outcome": "started", "ittybit_id": f"run of {answer['mark']}"}
        else:
            report = answer["otherwise"] or {"outcome": "started", "ittybit_id": self.begin(answer["mark"])}
        for _ in range(said if heard else 0):
            self.database.report(job, attempt, **report)

    def settle(self) -> None:
        """Let everything go well until nothing moves any more."""
        for _ in range(6):
            for message in self.send():
                self.deliver(message)

    def state(self) -> str:
        """Return the first job's state, and its reason if it has one."""
        [row] = self.database.sql("select state, reason from ittybit.jobs where id = %s", self.job)
        return " ".join(word for word in row.values() if word)


def _sent(play: Play) -> None:
    play.send()


def _claimed(play: Play) -> None:
    play.database.claim(play.job, play.send()[0]["attempt"])


def _in_doubt(play: Play) -> None:
    [message] = play.send()
    play.begin(play.database.claim(play.job, message["attempt"])["mark"])
    play.database.report(play.job, message["attempt"], "retry", in_doubt=True)


def _started(play: Play) -> None:
    play.deliver(play.send()[0])


def _succeeded(play: Play) -> None:
    _started(play)
    play.deliver(play.send()[0])


def _failed(play: Play) -> None:
    _started(play)
    [message] = play.send()
    mark = play.journal[0]
    play.database.report(play.job, message["attempt"], "failed", ittybit_id=f"run of {mark}", reason="corrupt")


def _skipped(play: Play) -> None:
    [message] = play.send()
    play.database.claim(play.job, message["attempt"])
    play.database.report(play.job, message["attempt"], "skipped", reason="gone")


STATES: dict[str, Callable[[Play], None]] = {
    "queued": lambda _: None,
    "sent": _sent,
    "claimed": _claimed,
    "in doubt": _in_doubt,
    "started": _started,
    "succeeded": _succeeded,
    "failed": _failed,
    "skipped": _skipped,
}


def _nudge_lost(play: Play) -> None:
    play.send()


def _delivered_twice(play: Play) -> None:
    for message in [*play.last, *play.send()]:
        play.deliver(message)
        play.deliver(message)


def _delivered_late(play: Play) -> None:
    old = [*play.last, *play.send()]
    for message in play.send() + old:
        play.deliver(message)


def _claim_answer_lost(play: Play) -> None:
    for message in play.send():
        play.database.claim(message["job"], message["attempt"])


def _killed(play: Play) -> None:
    for message in play.send():
        play.deliver(message, heard=False)


def _report_said_twice(play: Play) -> None:
    for message in play.send():
        play.deliver(message, said=2)


def _report_late(play: Play) -> None:
    old = play.send()
    known = len(play.journal)
    for message in old:
        play.deliver(message, heard=False)
    for message in play.send():
        play.deliver(message)
    _say_started(play, old, known)


def _report_out_of_order(play: Play) -> None:
    old = play.send()
    known = len(play.journal)
    for message in old:
        play.deliver(message, heard=False)
    play.settle()
    _say_started(play, old, known)


def _say_started(play: Play, old: list[Row], known: int) -> None:
    for message, mark in zip(old, play.journal[known:], strict=False):
        play.database.report(message["job"], message["attempt"], "started", ittybit_id=f"run of {mark}")


def _uploaded_again(play: Play) -> None:
    play.database.delete(NAME)
    play.database.put(NAME, etag="same")


def _gate(shut: str, opened: str) -> Callable[[Play], None]:
    """Shut a gate, let everything be tried, see that nothing starts, and open it."""

    def event(play: Play) -> None:
        play.database.sql(shut)
        known = len(play.journal)
        play.settle()
        assert len(play.journal) == known
        play.database.sql(opened)

    return event


def _refused_for_the_clock(play: Play) -> None:
    for _ in range(3):
        play.send()


def _deleted_rule(play: Play) -> None:
    play.database.sql("delete from ittybit.rules")


def _restored(play: Play) -> None:
    """What happened since the dump is as if it had not: the state is that of the dump."""
    play.database.settings(home="elsewhere/5")


def _copied(play: Play) -> None:
    """Everything is the copy's from here on, the journal too."""
    play.journal.clear()
    play.database.settings(home="elsewhere/5")
    # The functions are the original's, and claim there.
    assert len(play.send()) <= 1
    play.database.sql("select ittybit.adopt(as_copy => true)")
    play.database.settings(on_upload_url=ON_UPLOAD)


EVENTS: dict[str, Callable[[Play], None]] = {
    "nudge lost, or the claim before it took effect": _nudge_lost,
    "nudge delivered twice": _delivered_twice,
    "nudge delivered late": _delivered_late,
    "claim's answer lost, or the function killed before the call": _claim_answer_lost,
    "function killed in or after the call, or its report lost before it took effect": _killed,
    "report's answer lost, and said again": _report_said_twice,
    "report late": _report_late,
    "report out of order": _report_out_of_order,
    "object overwritten": lambda play: void(play.database.put(NAME)),
    "same bytes again": lambda play: void(play.database.put(NAME, etag="same")),
    "object renamed": lambda play: void(play.database.move(NAME, "clips/b.mp4")),
    "object moved out of reach": lambda play: void(play.database.move(NAME, "b.mp4")),
    "object deleted": lambda play: play.database.delete(NAME),
    "object deleted and uploaded again": _uploaded_again,
    "rule edited": lambda play: void(play.database.sql("update ittybit.rules set automation_id = 'other'")),
    "rule disabled, and enabled again": _gate(
        "update ittybit.rules set enabled = false", "update ittybit.rules set enabled = true"
    ),
    "rule deleted": _deleted_rule,
    "pause": _gate("select ittybit.pause()", "select ittybit.resume()"),
    "hold": _gate(
        "insert into ittybit.holds (scope, probe_at) values ('all', now() + interval '1 hour')",
        "delete from ittybit.holds",
    ),
    "ceiling": _gate(
        "update ittybit.settings set starts_per_hour = 0", "update ittybit.settings set starts_per_hour = 1000"
    ),
    "clock of the function's host wrong": _refused_for_the_clock,
    "database restored or moved, and gone on with": _restored,
    "database copied, and the copy adopted": _copied,
}


def void(_: object) -> None:
    """Take an answer that nobody needs."""
