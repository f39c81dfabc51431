"""What push-back deletes when a source is deleted, and how it handles Storage's answers."""

from __future__ import annotations

import json
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import ledger, objects
from shared.http import Deadline
from shared.settings import load
from shared.worker import DELETING_SECONDS
from tests.functions.calling import NOWHERE, Function
from tests.functions.project import Job, Project
from tests.functions.scripted import ORIGIN, Answer, Scripted
from tests.inputs import nasty

pytestmark = pytest.mark.generations("automations", "jobs")

DELETION = "/storage/v1/object/private"
SAID = {"statusCode": "500", "error": "Internal", "message": "the disk is full"}
# Longer than the deadline: the client does not repeat the request, but fails at once.
AT_ONCE = {"Retry-After": "60"}


@pytest.fixture
def job(push_back: Function, project: Project, request: pytest.FixtureRequest) -> Job:
    """A job with a result whose source was deleted, so that the result is to be deleted too."""
    job = Job.of_task(project, f"deleted/{re.sub(r'[^a-z0-9]+', '-', request.node.name)}/a clip+1;(2).mp4")
    project.stack.sql("update ittybit.rules set delete_results = true")
    assert push_back.drain() == {"claimed": 1, "started": 1}
    job.ended_at_ittybit()
    job.now()
    assert push_back.drain() == {"claimed": 1, "succeeded": 1}
    assert results(job) == [f"processed/{job.name}"]
    project.upload("private", f"processed/{job.name}.txt")
    project.remove("private", job.name)
    return job


def results(job: Job) -> list[str]:
    rows = job.project.stack.sql(
        "select name from storage.objects where name like %s order by 1", (f"processed/{job.name}",)
    )
    return [name for (name,) in rows]


def test_only_the_result_is_deleted_and_through_the_storage_api(job: Job, push_back: Function) -> None:
    assert push_back.drain() == {"claimed": 1, "deleted": 1}
    assert (results(job), job["state"], job["due_at"], job["error"]) == ([], "succeeded", None, None)
    assert job["results_deleted_at"] is not None
    neighbour = f"object/private/processed/{job.name}.txt".replace(" ", "%20").replace("+", "%2B").replace(";", "%3B")
    assert job.project.http.get(
        f"{job.project.stack.supabase_url}/storage/v1/{neighbour}", headers=job.project.key
    ).is_success
    assert push_back.drain() == {"claimed": 0}


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "body": SAID},
        {"status": 503, "headers": AT_ONCE},
        {"status": 400, "body": {"statusCode": "403", "error": "Unauthorized", "message": "no"}},
        {"status": 404, "body": {}},  # a gateway's 404
        {"status": 200, "body": {"message": "Successfully deleted"}},
        {"drop": "before"},
    ],
    ids=lambda fault: str(fault.get("status", "dropped")),
)
def test_a_deletion_that_storage_does_not_confirm_is_retried(
    job: Job, push_back: Function, fault: dict[str, object]
) -> None:
    job.project.stack.supabase.add("DELETE", DELETION, **fault)  # type: ignore[arg-type] # of any kind
    assert push_back.drain() == {"claimed": 1, "retry": 1}
    assert (results(job), job["state"], job["failures"]) == ([f"processed/{job.name}"], "succeeded", 1)
    assert job["error"]["service"] == "storage"
    job.now()
    assert push_back.drain() == {"claimed": 1, "deleted": 1}
    assert (results(job), job["error"]) == ([], None)


def test_a_deletion_whose_answer_is_lost_is_not_sent_again(job: Job, push_back: Function) -> None:
    lost = job.project.stack.supabase.add("DELETE", DELETION, times=9, drop="after")
    assert push_back.drain() == {"claimed": 1, "retry": 1}
    # Another object may have the name by now. The ledger saw that nothing is left to delete.
    assert (lost.seen, results(job), job["due_at"]) == (1, [], None)
    assert job["results_deleted_at"] is not None


def test_a_deletion_is_not_repeated_when_its_time_is_over(job: Job, push_back: Function) -> None:
    turned_away = job.project.stack.supabase.add("DELETE", DELETION, times=9, status=503, headers={"Retry-After": "4"})
    assert push_back.drain() == {"claimed": 1, "retry": 1}
    assert turned_away.seen == 1


def test_nothing_is_deleted_when_the_answer_to_the_claim_comes_late(
    job: Job, push_back: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody may have stored another object under the name since the ledger looked.
    answered = 0.0

    def claim(*arguments: Any) -> ledger.Claimed:
        nonlocal answered
        claimed = ledger_claim(*arguments)
        answered = DELETING_SECONDS + 0.1
        return claimed

    ledger_claim = ledger.claim
    monkeypatch.setattr(ledger, "claim", claim)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + answered, sleep=time.sleep)
    monkeypatch.setattr("shared.http.time", clock)
    sent = job.project.stack.supabase.add("DELETE", DELETION, status=500, body=SAID)
    assert push_back.drain()["retry"] == 1
    assert (sent.seen, results(job)) == (0, [f"processed/{job.name}"])


def test_an_overwritten_result_is_kept(job: Job, push_back: Function) -> None:
    job.project.upload("private", f"processed/{job.name}", b"somebody's own")
    push_back.drain()
    assert results(job) == [f"processed/{job.name}"]


# Without a bucket, or with one that is only dots, the path is not that of a deletion.
@given(bucket=nasty().filter(lambda bucket: bucket.strip(".")), names=st.lists(nasty(), min_size=1, max_size=3))
def test_a_deletion_names_exactly_its_objects(scripted: Scripted, bucket: str, names: list[str]) -> None:
    scripted.script(storage=[Answer([{"name": name} for name in names])])
    objects.delete(load(NOWHERE | {"SUPABASE_URL": ORIGIN}), bucket, names, Deadline(5))
    [(_, path, asked)] = scripted.requests
    assert (path, json.loads(asked)) == (f"/storage/v1/object/{bucket}", {"prefixes": names})
