"""The functions gone for days, and a ledger of any size: what is sent meanwhile, and in which order it is caught up."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.database.cost import pages, rows_scanned, with_kept_plans
from tests.database.project import ON_UPLOAD, PUSH_BACK, TASK, Project
from tests.database.rows import Row, put
from tests.database.unseen import triggers_off

LEASE = 60
FINISHED = """
insert into ittybit.jobs (rule, bucket_id, name, version, state, attempt, claimed, finished_at)
select 'clips', 'uploads', 'old/' || n || '.mp4', gen_random_uuid(), 'succeeded', 2, 2, now()
from generate_series(1, 100000) as n
"""


def pass_time(database: Project, seconds: float) -> None:
    shift = f"interval '{seconds} seconds'"
    database.sql(
        f"update ittybit.jobs set due_at = due_at - {shift}, created_at = created_at - {shift}"  # noqa: S608 - a number
    )


def knock(database: Project, url: str = ON_UPLOAD) -> list[str]:
    """Send what is due, every call to ``url`` being lost, and return the names of their objects."""
    database.send()
    names = {str(job["id"]): str(job["name"]) for job in database.jobs()}
    return [names[message["body"]["job"]] for message in database.messages() if message["url"] == url]


def in_the_air(database: Project) -> int:
    return int(database.value("select count(*) from ittybit.jobs where due_at > now() and attempt > claimed"))


def answer(database: Project) -> list[str]:
    """Send what is due, every call being answered with a start, and return the names in the order of the calls."""
    database.send()
    jobs = {str(job["id"]): job for job in database.jobs()}
    names = []
    for message in database.messages():
        job, attempt = jobs[message["body"]["job"]], message["body"]["attempt"]
        assert database.claim(job["id"], attempt)["claimed"]
        database.report(job["id"], attempt, "started", ittybit_id=f"run of {job['id']}")
        names.append(str(job["name"]))
    return names


def waiting(database: Project, count: int) -> None:
    """Let 000.mp4 and so on wait, uploaded one second after the other, the last one now."""
    database.settings(nudge=False)
    database.put(*(f"{number:03}.mp4" for number in range(count)))
    age = "(%s - left(name, 3)::integer) * interval '1 second'"
    database.sql(f"update ittybit.jobs set created_at = created_at - {age}, due_at = due_at - {age}", count, count)  # noqa: S608


@pytest.fixture
def outage(database: Project) -> Project:
    """A project whose 60 jobs wait for a function that is gone; 20 calls may be unanswered."""
    database.rule()
    database.settings(unanswered_calls=20)
    waiting(database, 60)
    return database


def numbered(first: int, last: int) -> list[str]:
    return [f"{number:03}.mp4" for number in range(first, last)]


def test_for_four_days_no_more_calls_are_made_than_may_be_unanswered(outage: Project) -> None:
    made = 0
    for _ in range(30):
        made += len(knock(outage))
        assert in_the_air(outage) <= 20
        pass_time(outage, 17)
    assert made <= (30 * 17 / LEASE + 1) * 20
    pass_time(outage, 4 * 86400)
    assert len(knock(outage)) == 20
    assert knock(outage) == []


def test_the_oldest_keep_knocking_and_every_job_has_its_turn(outage: Project) -> None:
    tried = set(knock(outage))
    for _ in range(30):
        pass_time(outage, LEASE + 1)
        names = knock(outage)
        assert names[:18] == numbered(0, 18)
        assert len(names) == 20
        tried.update(names)
    assert len(tried) == 60
    # Nothing has ended, and nothing has been forgotten.
    assert {state for _, state, _ in outage.states()} == {"queued"}
    assert outage.value("select count(*) from ittybit.jobs where due_at is null") == 0


def test_the_oldest_keep_knocking_when_their_leases_end_at_different_times(outage: Project) -> None:
    tried: dict[str, int] = {}
    for tick in range(120):
        for name in knock(outage):
            tried[name] = tick
        assert in_the_air(outage) <= 20
        pass_time(outage, 7)
    # Each of them within little more than a lease.
    assert min(tried[name] for name in numbered(0, 18)) >= 120 - 12
    assert len(tried) > 40


def test_what_is_uploaded_meanwhile_does_not_push_in(outage: Project) -> None:
    for minute in range(12):
        knock(outage)
        outage.settings(nudge=True)
        outage.put(f"new/{minute}.mp4")
        outage.messages()
        pass_time(outage, LEASE + 1)
    assert knock(outage)[:18] == numbered(0, 18)


def test_when_it_is_back_the_oldest_go_first_and_all_go(outage: Project) -> None:
    for _ in range(3):
        knock(outage)
        pass_time(outage, LEASE + 1)
    outage.put("new.mp4")
    outage.messages()
    order = answer(outage)
    assert order[:18] == numbered(0, 18)
    for _ in range(5):
        order += answer(outage)
    pass_time(outage, LEASE + 1)
    order += [name for name in answer(outage) if name not in order]
    assert sorted(order) == sorted([*numbered(0, 60), "new.mp4"])
    assert {state for _, state, _ in outage.states()} == {"started"}


def test_without_anything_tried_it_is_caught_up_oldest_first(outage: Project) -> None:
    """As after the sender itself was down: the database, or pg_cron."""
    pass_time(outage, 4 * 86400)
    assert [answer(outage) for _ in range(4)] == [numbered(0, 20), numbered(20, 40), numbered(40, 60), []]


def test_jobs_that_are_never_answered_do_not_starve_the_others(outage: Project) -> None:
    outage.sql("update ittybit.jobs set attempt = 50 where name < '040.mp4'")
    started: set[str] = set()
    for _ in range(25):
        outage.send()
        for message in outage.messages():
            job = next(job for job in outage.jobs() if str(job["id"]) == message["body"]["job"])
            if job["name"] >= "040.mp4":
                outage.claim(job["id"], message["body"]["attempt"])
                outage.report(job["id"], message["body"]["attempt"], "started", ittybit_id=f"run of {job['name']}")
                started.add(str(job["name"]))
        pass_time(outage, LEASE + 1)
    assert started == set(numbered(40, 60))


def test_one_function_that_is_gone_does_not_hold_up_the_other(outage: Project) -> None:
    outage.rule("task", task=TASK | {"destination": "s3://results/{version}/{name}"})
    outage.settings(nudge=False)
    outage.put(*(f"more/{number:03}.mp4" for number in range(60)))
    outage.sql("delete from ittybit.jobs where rule = 'task' and name not like 'more/%'")
    gone = 0
    started = 0
    for _ in range(8):
        outage.send()
        for message in outage.messages():
            if message["url"] == PUSH_BACK:
                gone += 1
                continue
            job, attempt = uuid.UUID(message["body"]["job"]), message["body"]["attempt"]
            outage.claim(job, attempt)
            outage.report(job, attempt, "started", ittybit_id=f"run of {job}")
            started += 1
    assert (started, gone) == (120, 20)


def test_checks_are_caught_up_as_well_and_count_as_no_starts(outage: Project) -> None:
    outage.sql(
        "update ittybit.jobs set state = 'started', ittybit_id = 'run of ' || name, started_at = now()"
        " where name < '010.mp4'"
    )
    outage.settings(paused=True)
    assert sorted(knock(outage)) == numbered(0, 10)
    pass_time(outage, 4 * 86400)
    assert sorted(knock(outage)) == numbered(0, 10)


def test_the_functions_clock_is_nobodys_concern_here(outage: Project) -> None:
    """A host that refuses every signature as too old or too new is one that does not answer."""
    for _ in range(3):
        knock(outage)
        pass_time(outage, LEASE + 1)
    outage.superuser.execute(
        "insert into net._http_response (id, status_code) select request_id, 401 from ittybit.jobs where attempt > 0"
    )
    told = outage.sql("select because, unanswered, last_answer from ittybit.explain('uploads', '000.mp4')")
    assert told == [{"because": "sent, and not answered yet", "unanswered": 3, "last_answer": "HTTP 401"}]
    assert answer(outage)[0] == "000.mp4"


@contextmanager
def old_snapshot(database: Project) -> Iterator[None]:
    """Keep a transaction open that still sees the ledger as it is now: nothing dead may be cleaned away."""
    with database.connect("postgres") as connection:
        connection.execute("begin isolation level repeatable read")
        connection.execute("select count(*) from ittybit.jobs")
        yield
        connection.rollback()


def uploaded(database: Project, name: str) -> tuple[Row, int, float]:
    """Upload one object as storage does; return its job, the ledger's rows read without an index, and the seconds."""
    with database.writing("storage.object.upload") as connection:
        began = time.monotonic()
        put(connection, name)
        took = time.monotonic() - began
        scanned = rows_scanned(connection, "ittybit.jobs") + rows_scanned(connection, "ittybit.outputs")
    return database.job(name), scanned, took


def test_a_hundred_thousand_finished_jobs_and_an_old_snapshot_change_nothing_for_an_upload(database: Project) -> None:
    database.rule()
    database.rule("task", path="none", task=TASK)
    with triggers_off(database):
        database.superuser.execute(FINISHED)
    with old_snapshot(database):
        # Dead rows that cannot go.
        for _ in range(3):
            database.sql("update ittybit.jobs set attempt = attempt + 1 where name like 'old/1000%'")
            database.send()
        for number in range(3):
            job, scanned, took = uploaded(database, f"{number}.mp4")
            assert (job["state"], job["attempt"], scanned) == ("queued", 1, 0)
            assert took < 0.5
        assert len(database.messages()) == 3
        assert uploaded_over(database, "0.mp4") == 0
        assert removed(database, "1.mp4") == 0
        database.make_due()
        assert cost_of_sending(database) < 2000
        # The overwrite's own call, and the two jobs that wait.
        assert len(database.messages()) == 3


def uploaded_over(database: Project, name: str) -> int:
    with database.writing("storage.object.upload_update") as connection:
        put(connection, name)
        return rows_scanned(connection, "ittybit.jobs")


def removed(database: Project, name: str) -> int:
    with database.writing("storage.object.delete") as connection:
        connection.execute("delete from storage.objects where name = %s", [name])
        return rows_scanned(connection, "ittybit.jobs")


def cost_of_sending(database: Project) -> int:
    with database.connect("supabase_admin") as connection:
        with_kept_plans(connection)
        # What a session reads once, before its first tick.
        with connection.transaction(force_rollback=True):
            pages(connection, "select ittybit.send_due()")
        return pages(connection, "select ittybit.send_due()")


def test_the_sender_costs_the_same_however_many_jobs_wait(outage: Project) -> None:
    small = cost_of_sending(outage)
    outage.messages()
    outage.superuser.execute(
        "insert into ittybit.jobs (rule, bucket_id, name, automation_id, due_at)"
        " select 'clips', 'uploads', 'more/' || n, 'auto_1', now() - n * interval '1 ms'"
        " from generate_series(1, 20000) as n"
    )
    outage.superuser.execute("analyze ittybit.jobs")
    pass_time(outage, 4 * 86400)
    large = cost_of_sending(outage)
    assert len(outage.messages()) == 20
    assert large < small * 2
