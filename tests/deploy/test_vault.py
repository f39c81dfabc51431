"""Waiting for the calls that were signed before a secret was replaced."""

from __future__ import annotations

from tests.database.project import ON_UPLOAD
from tests.deploy.developer import EVERY_POSTGRES, Developer
from tests.waiting import until

WAIT = "source deploy/psql.sh; source deploy/database.sh; load_environment; connect_to_database\n"


def ready(developer: Developer) -> None:
    developer.install()
    developer.add_bucket("uploads")
    developer.project.rule()


@EVERY_POSTGRES
def test_without_calls_on_their_way_it_does_not_wait(developer: Developer) -> None:
    ready(developer)
    developer.project.put("a.mp4")
    developer.project.messages()
    result = developer.clone.bash(WAIT + "wait_for_calls 0")
    assert (result.returncode, result.stderr) == (0, "")


def test_it_waits_for_queued_calls_and_not_for_later_ones(developer: Developer) -> None:
    ready(developer)
    wake(developer)
    wake(developer)
    # A call of somebody else does not count.
    developer.project.sql("select net.http_post('https://others.test')")
    assert developer.clone.bash(WAIT + "wait_for_calls 0").returncode == 1

    with developer.bash(WAIT + "wait_for_calls 60") as waiting:
        until(lambda: "answers to 2 calls" in waiting.stderr)
        take(developer, 1)
        until(lambda: "answers to 1 calls" in waiting.stderr)
        began = second(developer)
        until(lambda: second(developer) > began)
        # A call that is signed in a later second is not waited for.
        wake(developer)
        take(developer, 2)
        assert waiting.end() == 0
    assert [message["url"] for message in developer.project.messages()].count(ON_UPLOAD) == 1


def wake(developer: Developer) -> None:
    developer.project.sql("select ittybit.post_wake_up(%s)", ON_UPLOAD)


def take(developer: Developer, number: int) -> None:
    """Take a call out of the queue, as pg_net does when it is done."""
    developer.project.superuser.execute("delete from net.http_request_queue where id = %s", [number])


def second(developer: Developer) -> int:
    return int(developer.project.value("select floor(extract(epoch from clock_timestamp()))"))


def test_it_waits_for_an_upload_that_has_signed_and_not_committed(developer: Developer) -> None:
    ready(developer)
    with (
        developer.slow_upload("slow.mp4", metadata='{"size": 1}') as slow,
        developer.bash(WAIT + "wait_for_calls 60") as waiting,
    ):
        until(lambda: "answers to 1 calls" in waiting.stderr)
        slow.commit()
        # Now the call is in the queue.
        assert developer.project.value("select count(*) from net.http_request_queue") == 1
        began = second(developer)
        until(lambda: second(developer) > began + 1)
        assert waiting.process.poll() is None
        developer.project.messages()
        assert waiting.end() == 0


def test_when_it_takes_too_long_it_says_so_and_fails(developer: Developer) -> None:
    ready(developer)
    developer.project.put("a.mp4")
    result = developer.clone.bash(WAIT + "if wait_for_calls 1; then exit 0; else exit 7; fi")
    assert result.returncode == 7
    assert result.stderr.splitlines()[-1] == "  1 calls that were signed earlier are not answered yet"


def test_without_the_database_it_stops_even_inside_an_if(developer: Developer) -> None:
    developer.clone.write_env(developer.env | {"DATABASE_URL": "postgresql:///x?host=/nowhere"})
    result = developer.clone.bash(WAIT + "if wait_for_calls 1; then exit 0; else exit 7; fi")
    assert result.returncode == 2
