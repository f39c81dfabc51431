"""The sender: what is due is sent once, and no more than is answered. Time is moved by shifting rows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.database.project import ON_UPLOAD, PUSH_BACK, TASK, Project
from tests.database.rows import Connection


def attempts(database: Project) -> list[int]:
    return [job["attempt"] for job in database.jobs()]


def test_where_nothing_is_due_nothing_is_sent(database: Project) -> None:
    database.rule()
    assert database.send() == 0
    database.put("leased.mp4")
    [nudged] = database.messages()
    assert nudged["body"]["attempt"] == 1
    assert database.send() == 0
    assert database.messages() == []


def test_an_idle_hour_makes_no_call(database: Project) -> None:
    database.rule()
    database.rule("task", task=TASK)
    database.put("done.mp4")
    database.messages()
    database.sql("update ittybit.jobs set state = 'succeeded', due_at = null, finished_at = now()")
    for _ in range(720):
        assert database.send() == 0
    for _ in range(360):
        database.sql("select ittybit.sweep_page(), ittybit.backfill_page()")
    database.sql("select ittybit.tidy()")
    assert database.messages() == []


def test_a_due_job_is_sent_once_and_leased(waiting: Project) -> None:
    assert waiting.send() == 3
    jobs = waiting.jobs()
    messages = waiting.messages()
    assert [message["body"] for message in messages] == [{"job": str(job["id"]), "attempt": 1} for job in jobs]
    assert [job["state"] for job in jobs] == ["queued"] * 3
    leased = "select due_at - now() between interval '50 seconds' and interval '60 seconds' from ittybit.jobs limit 1"
    assert waiting.value(leased)
    assert waiting.send() == 0


def test_a_call_goes_to_the_function_that_does_the_work(database: Project) -> None:
    database.rule("automation")
    database.rule("task", task=TASK)
    database.put_unsent(1)
    assert database.send() == 2
    assert sorted(message["url"] for message in database.messages()) == [ON_UPLOAD, PUSH_BACK]


def test_a_call_waits_no_longer_than_pg_net_should(waiting: Project) -> None:
    waiting.send()
    assert {message["timeout_milliseconds"] for message in waiting.messages()} == {5000}


def test_when_the_lease_ends_the_next_attempt_is_sent(waiting: Project) -> None:
    for attempt in (1, 2, 3):
        assert waiting.send() == 3
        assert {message["body"]["attempt"] for message in waiting.messages()} == {attempt}
        waiting.make_due()
    assert attempts(waiting) == [3, 3, 3]


def test_what_is_due_longest_is_sent_first(waiting: Project) -> None:
    for age, job in enumerate(waiting.jobs()):
        waiting.sql("update ittybit.jobs set due_at = now() - %s * interval '1 s' where id = %s", age, job["id"])
    waiting.settings(unanswered_calls=2)
    assert waiting.send() == 2
    assert attempts(waiting) == [0, 1, 1]


def test_senders_at_the_same_time_send_no_job_twice(waiting: Project) -> None:
    with waiting.connect("postgres") as first, waiting.connect("postgres") as second:
        with first.transaction():
            assert sent_by(first) == 3
            assert sent_by(second) == 0
        assert sent_by(second) == 0
    assert attempts(waiting) == [1, 1, 1]
    assert len(waiting.messages()) == 3


def test_many_senders_share_what_is_due(database: Project) -> None:
    database.rule()
    database.put_unsent(40)
    together = threading.Barrier(4)

    def send(connection: Connection) -> int:
        together.wait()
        return sent_by(connection)

    connections = [database.connect("postgres") for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(send, connections)) == 40
    finally:
        for connection in connections:
            connection.close()
    assert set(attempts(database)) == {1}
    assert len({message["body"]["job"] for message in database.messages()}) == 40


def sent_by(connection: Connection) -> int:
    [row] = connection.execute("select ittybit.send_due() as sent").fetchall()
    return int(row["sent"])


def test_no_more_calls_are_made_than_may_be_unanswered(waiting: Project) -> None:
    waiting.settings(unanswered_calls=2)
    assert waiting.send() == 2
    # pg_net has delivered them; no function has claimed.
    messages = waiting.messages()
    assert waiting.send() == 0
    waiting.claim(messages[0]["body"]["job"], 1)
    assert waiting.send() == 1


def test_a_refused_claim_is_an_answer(database: Project) -> None:
    database.rule(task=TASK | {"destination": "s3://results/one.mp4"})
    database.put_unsent(3)
    database.settings(unanswered_calls=1)
    assert database.send() == len(database.messages()) == 1
    database.started("1.mp4", "task_1")
    assert database.send() == len(database.messages()) == 1
    assert database.send() == 0
    assert database.claim(database.job("2.mp4")["id"], 1) == {"claimed": False, "reason": "output_busy"}
    assert database.send() == 1


@pytest.mark.parametrize(("url", "queued"), [(ON_UPLOAD, ON_UPLOAD), ("https://a.test", "https://a.test/")])
def test_nothing_is_added_while_calls_wait_in_pg_nets_queue(waiting: Project, url: str, queued: str) -> None:
    waiting.settings(unanswered_calls=2, on_upload_url=url)
    assert waiting.send() == 2
    waiting.make_due()
    assert waiting.send() == 0
    assert {message["url"] for message in waiting.messages()} == {queued}
    assert waiting.send() == 2


def test_other_peoples_calls_in_pg_nets_queue_are_no_concern(waiting: Project) -> None:
    waiting.settings(unanswered_calls=1)
    waiting.sql("select net.http_post('https://elsewhere.test/') from generate_series(1, 5)")
    assert waiting.send() == 1


def test_without_addresses_or_settings_nothing_is_sent(waiting: Project) -> None:
    waiting.settings(on_upload_url=None)
    assert waiting.send() == 0
    waiting.sql("delete from ittybit.settings")
    assert waiting.send() == 0
    assert attempts(waiting) == [0, 0, 0]


def test_without_a_secret_nothing_is_sent_and_the_reason_is_told(waiting: Project) -> None:
    with waiting.connect("postgres") as connection, connection.transaction(force_rollback=True):
        connection.execute("delete from vault.secrets")
        with pytest.raises(psycopg.errors.RaiseException, match="no secret"):
            connection.execute("select ittybit.send_due()")
    assert attempts(waiting) == [0, 0, 0]
