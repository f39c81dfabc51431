"""Leases that end without a report: jobs that may have killed the function are claimed apart from others."""

from __future__ import annotations

import pytest

from tests.database.project import Project, report

OLD = [f"old-{number:02}.mp4" for number in range(20)]


def lost(database: Project, times: int) -> None:
    """Store objects whose jobs were lost ``times`` times, as by a function that is killed."""
    database.rule()
    database.put(*OLD)
    database.sql(
        "update ittybit.jobs set lost = %s,"
        " due_at = created_at - interval '1 hour' + interval '1 second' * substring(name from '[0-9]+')::integer",
        times,
    )


@pytest.mark.parametrize(("times", "together"), [(1, 20), (2, 8), (3, 2), (4, 1), (40, 1)])
def test_often_lost_jobs_are_claimed_fewer_at_a_time(database: Project, times: int, together: int) -> None:
    lost(database, times)
    assert database.names(database.claim()) == OLD[:together]


def test_of_the_lost_jobs_those_that_were_lost_least_often_come_first(database: Project) -> None:
    lost(database, 2)
    database.sql("update ittybit.jobs set lost = 5 where name = %s", OLD[0])
    database.sql("update ittybit.jobs set lost = 3 where name in (%s, %s, %s)", *OLD[2:5])
    for expected in ([OLD[1], *OLD[5:8]], OLD[8:12], OLD[12:16], OLD[16:], OLD[2:4], OLD[4:5], OLD[:1]):
        leases = database.claim()
        assert database.names(leases) == expected
        database.reports(*(report(lease, "started", ittybit_id=f"runs/{lease['mark']}") for lease in leases))


@pytest.mark.parametrize("failed", [False, True], ids=["at once", "after it failed"])
def test_a_start_that_kills_its_function_is_claimed_apart_although_each_search_for_it_ends(
    database: Project, failed: bool
) -> None:
    database.rule()
    database.put("killer.mp4")
    for times in (1, 2):
        [start] = database.claim()
        search = database.next_lease()
        if failed:
            database.report(search, "retry", in_doubt=True, error={"service": "ittybit", "status": 500})
            search = database.next_lease()
        assert (start["step"], search["step"]) == ("start", "search")
        database.report(search, "retry", reason="not_started")
        assert database.job()["lost"] == times
    database.put("other.mp4")
    [killer] = database.claim()
    assert database.names([killer]) == ["killer.mp4"]
    assert database.names(database.claim()) == ["other.mp4"]
    database.report(killer, "started", ittybit_id="runs/1")
    assert database.job("killer.mp4")["lost"] == 0


def test_while_lost_jobs_are_leased_the_others_are_claimed_together(database: Project) -> None:
    lost(database, 2)
    database.put("new.mp4", "newer.mp4")

    apart = database.claim()
    assert database.work() == 2
    assert database.names(database.claim()) == ["new.mp4", "newer.mp4"]
    assert database.claim() == []

    reports = [{**lease, "outcome": "started", "ittybit_id": f"runs/{lease['mark']}"} for lease in apart]
    assert database.names(database.claim("on-upload", 100, *reports)) == OLD[8:16]


def test_searches_of_lost_jobs_are_claimed_together_with_anything(database: Project) -> None:
    lost(database, 2)
    database.sql("update ittybit.jobs set lost = 5, in_doubt_since = created_at where name >= %s", OLD[10])
    apart = database.claim()
    searches = database.claim()
    assert database.names(apart) == OLD[:8]
    assert (database.names(searches), {lease["step"] for lease in searches}) == (OLD[10:], {"search"})
    # The leased searches do not keep lost starts back.
    database.reports(*(report(lease, "started", ittybit_id=f"runs/{lease['mark']}") for lease in apart))
    assert database.names(database.claim()) == OLD[8:10]


def test_when_lost_jobs_are_lost_again_the_next_ones_are_claimed(database: Project) -> None:
    lost(database, 2)
    assert database.names(database.claim()) == OLD[:8]
    assert database.claim() == []
    database.sql("update ittybit.jobs set claimed_at = claimed_at - interval '10 seconds' where lost > 1")
    assert database.names(database.claim()) == OLD[8:16]
