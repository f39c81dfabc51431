"""The jobs of one claim are done side by side, and none affects another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from shared.ledger import Search, Start
from tests.functions.calling import Function
from tests.functions.project import Project
from tests.functions.test_job_steps import STARTS

pytestmark = pytest.mark.generations("automations", "jobs")

TASK = {"kind": "video", "options": {}, "destination": "s3://private/processed/{name}"}


def test_each_job_of_one_object_in_a_batch_has_its_own_mark(project: Project, push_back: Function) -> None:
    tasks = {"large": TASK, "small": TASK | {"destination": "s3://private/small/{name}.mp4"}}
    for name, task in tasks.items():
        project.stack.sql(
            "insert into ittybit.rules (name, bucket_id, task) values (%s, 'private', %s)", (name, Jsonb(task))
        )
    project.upload("private", "batches/a.mp4")

    assert push_back.ask({"type": "jobs.due"}).get_json() == {"claimed": 2, "started": 2}

    jobs = project.stack.sql("select id || '.1' from ittybit.jobs order by 1")
    starts = project.starts("batches/a.mp4")
    assert sorted((entry.url or "").rpartition("&job=")[2] for entry in starts) == [mark for (mark,) in jobs]
    assert all((entry.url or "").endswith(f"&job={entry.idempotency_key}") for entry in starts)


def test_a_key_that_cannot_be_addressed_ends_only_its_own_job(project: Project, push_back: Function) -> None:
    task = TASK | {"destination": "s3://private/processed/{stem}.mp4"}
    project.stack.sql("insert into ittybit.rules (name, bucket_id, task) values ('all', 'open', %s)", [Jsonb(task)])
    project.upload("open", "batches/b.mp4")
    project.stack.sql("update storage.objects set name = 'batches/../c.mp4' where name = 'batches/b.mp4'")
    project.upload("open", "batches/b.mp4")

    assert push_back.ask({"type": "jobs.due"}).get_json() == {"claimed": 2, "started": 1, "skipped": 1}


def test_one_search_finds_all_starts_in_doubt_of_a_batch(project: Project, push_back: Function) -> None:
    project.stack.sql("insert into ittybit.rules (name, bucket_id, task) values ('all', 'private', %s)", [Jsonb(TASK)])
    for number in range(5):
        project.upload("private", f"walk/{number}.mp4")
    lost = [project.stack.ittybit_api.add("POST", STARTS, times=1, drop=when) for when in ("before", "after")]
    push_back.ask({"type": "jobs.due"})
    assert [one.seen for one in lost] == [1, 1]
    project.stack.sql(
        "update ittybit.jobs set in_doubt_since = now(), due_at = now(), state = 'queued', ittybit_id = null"
    )

    asked = project.stack.ittybit_api.requests = []
    project.stack.ittybit_api.add("GET", STARTS, hang=0.1)
    assert push_back.ask({"type": "jobs.due"}).get_json()["started"] == 5
    project.stack.ittybit_api.requests = None
    assert len([one for one in asked if "order=desc" in one.query]) == 1
    assert [len(project.starts(f"walk/{number}.mp4")) for number in range(5)] == [1] * 5


def test_slow_jobs_that_were_lost_twice_do_not_keep_the_others_from_a_drain(
    project: Project, push_back: Function
) -> None:
    project.stack.sql("insert into ittybit.rules (name, bucket_id, task) values ('all', 'private', %s)", [Jsonb(TASK)])
    for number in range(40):
        project.upload("private", f"{'lost' if number < 20 else 'new'}/{number}.mp4")
    project.stack.sql("update ittybit.jobs set lost = 2 where name like 'lost/%%'")
    project.stack.ittybit_api.add("POST", "/tasks|/jobs", times=8, hang=1.5)
    push_back.drain()
    left = "select count(*) from ittybit.jobs where state = 'queued' and name like 'new/%%'"
    assert project.stack.sql(left) == [(0,)]


def test_the_shortest_search_of_a_batch_comes_first(
    project: Project, push_back: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.stack.sql("insert into ittybit.rules (name, bucket_id, task) values ('all', 'private', %s)", [Jsonb(TASK)])
    since = {"long": 30, "short": 20, "almost done": 40, "none": None}
    for name, minutes in since.items():
        project.upload("private", name)
        doubt = "update ittybit.jobs set in_doubt_since = now() - %s * interval '1 minute' where name = %s"
        project.stack.sql(doubt, [minutes, name])
    project.stack.sql(
        "update ittybit.jobs set searched = jsonb_build_object("
        " 'down_to', 'an item', 'oldest', in_doubt_since + interval '1 minute')"
        " where name = 'almost done'"
    )

    names = dict(project.stack.sql("select id, name from ittybit.jobs"))
    begun: list[str] = []
    submit = ThreadPoolExecutor.submit

    def note(pool: ThreadPoolExecutor, step: Any, job: Any, *more: Any) -> Any:
        begun.extend([names[job.job]] if isinstance(job, Start | Search) else [])
        return submit(pool, step, job, *more)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", note)
    assert push_back.drain()["started"] == 4
    assert begun[:4] == ["none", "almost done", "short", "long"]


def test_a_failed_search_leaves_every_job_of_the_batch_in_doubt(project: Project, push_back: Function) -> None:
    project.stack.sql("insert into ittybit.rules (name, bucket_id, task) values ('all', 'private', %s)", [Jsonb(TASK)])
    for number in range(5):
        project.upload("private", f"broken-off/{number}.mp4")
    project.stack.sql("update ittybit.jobs set in_doubt_since = now()")

    project.stack.ittybit_api.add("GET", STARTS, status=400)
    assert push_back.ask({"type": "jobs.due"}).get_json() == {"claimed": 5, "retry": 5}
    assert project.starts("broken-off/0.mp4") == []
    assert project.stack.sql("select count(in_doubt_since) from ittybit.jobs") == [(5,)]


def test_a_batch_asks_once_for_a_connection_that_ittybit_refuses_to_list(project: Project, push_back: Function) -> None:
    project.stack.sql("insert into ittybit.rules (name, bucket_id, task) values ('all', 'private', %s)", [Jsonb(TASK)])
    for number in range(5):
        project.upload("private", f"connection/{number}.mp4")

    refused = project.stack.ittybit_api.add("GET", "/connections", times=9, status=401)
    assert push_back.ask({"type": "jobs.due"}).get_json() == {"claimed": 5, "hold": 5}
    assert refused.seen == 1
    assert project.starts("connection/0.mp4") == []
