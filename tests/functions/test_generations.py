"""Which generation of ittybit's API is spoken, and what is sent in it."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.functions import ROOT
from shared.errors import Answered, ServiceError, Unanswered, Unsupported
from shared.ittybit import GENERATIONS
from shared.ittybit_models import Action, Connection, Task, Work, bare
from tests.functions.calling import Function
from tests.functions.ittybit_alone import CONNECTION, RUN, Alone, alone, client
from tests.functions.project import Job, Project
from tests.functions.scripted import ORIGIN, Said, Scripted
from tests.functions.test_ittybit import ended
from tests.functions.test_job_steps import FAILED

VECTORS = sorted((ROOT / "tests" / "vectors" / "ittybit").glob("*.json"))
THERE, GONE = Said([]), Said({"kind": "not_found", "message": "There is no such path."}, 404)
COPY = Action(task=Task(kind="video", options={"height": 240}))
SOURCE = "https://supabase.example.com/a.mp4?token=t&job=a.1"


@pytest.fixture(params=["automations", "jobs"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Alone]:
    """An ittybit of each generation, none of whose questions was asked yet."""
    with alone(tmp_path, request.param) as one:
        yield one


def test_it_is_asked_once_for_a_process_by_questions_alone(other: Alone) -> None:
    other.faults.requests = []
    for _ in range(2):
        auto = client(other.origin, ITTYBIT_API="auto")
        assert auto.start(COPY, other.source, "a.1").ref.startswith("jobs/" if other.generation == "jobs" else "tasks/")
    asked = [(one.method, one.path, one.query) for one in other.faults.requests if one.path != "/a.mp4"]
    expected = [("GET", "/automations", "limit=1"), ("GET", "/jobs", "limit=1")]
    started = ("POST", "/jobs" if other.generation == "jobs" else "/tasks", "")
    assert asked == [*(expected if other.generation == "jobs" else expected[:1]), started, started]


@pytest.mark.parametrize(
    ("answers", "spoken"),
    [
        ([THERE], "automations"),
        ([Said({"data": []})], "automations"),
        ([GONE, THERE], "jobs"),
        ([Said({"kind": "k", "message": "m"}, 405), THERE], "jobs"),
        ([Said({"kind": "k", "message": "m"}, 410), THERE], "jobs"),
    ],
)
def test_the_api_that_answers_is_used(scripted: Scripted, answers: list[Said], spoken: str) -> None:
    scripted.script(ittybit=answers)
    assert client(ORIGIN, ITTYBIT_API="auto").generation == spoken


@pytest.mark.parametrize("at", [0, 1], ids=["automations", "jobs"])
@pytest.mark.parametrize(
    "said",
    [
        *[Said({"kind": "k", "message": "m"}, status) for status in (400, 401, 402, 403, 429, 500, 503)],
        Said(b"<html>not here</html>", 404),
        Said({"error": "not found"}, 404),
        Said({"automations": []}),
        Said(b"<html>Welcome</html>"),
    ],
    ids=lambda said: str(said.status),
)
def test_an_answer_that_decides_nothing_is_asked_for_again(scripted: Scripted, said: Said, at: int) -> None:
    before = [GONE] * at
    scripted.script(ittybit=[*before, said])
    auto = client(ORIGIN, seconds=2, ITTYBIT_API="auto")
    with pytest.raises(ServiceError) as caught:
        auto.start(COPY, SOURCE, "a.1")
    assert caught.value.effect in ("retry", "hold")
    assert not caught.value.in_doubt
    assert {path for _, path, _ in scripted.asked} == {"/automations", "/jobs"} - ({"/jobs"} if at == 0 else set())
    assert "neither" not in caught.value.message
    scripted.script(ittybit=[THERE])
    assert auto.generation == "automations"


def test_with_neither_it_says_so_and_starts_wait(scripted: Scripted) -> None:
    scripted.script(ittybit=[GONE])
    with pytest.raises(ServiceError, match="neither /automations nor /jobs") as caught:
        client(ORIGIN, ITTYBIT_API="auto").start(COPY, SOURCE, "a.1")
    assert caught.value.effect == "hold"


@pytest.mark.parametrize("api", ["automations", "jobs"])
def test_a_start_that_fails_is_not_sent_to_the_other_generation(scripted: Scripted, api: str) -> None:
    scripted.script(ittybit=[GONE])
    with pytest.raises(Answered):
        client(ORIGIN, ITTYBIT_API=api).start(COPY, SOURCE, "a.1")
    assert [path for _, path, _ in scripted.asked] == ["/jobs" if api == "jobs" else "/tasks"]


def test_an_api_that_goes_while_a_process_lives_ends_no_job(scripted: Scripted) -> None:
    made = Said({"id": "job_1", "status": "queued"}, 201)
    scripted.script(ittybit=[THERE, GONE, GONE, GONE, THERE, made])
    auto = client(ORIGIN, ITTYBIT_API="auto")
    with pytest.raises(Unanswered, match="no longer has /automations") as caught:
        auto.start(COPY, SOURCE, "a.1")
    assert (caught.value.effect, caught.value.in_doubt) == ("retry", False)
    assert auto.start(COPY, SOURCE, "a.1").ref == "jobs/job_1"
    asked = ["/automations", "/tasks", "/automations", "/automations", "/jobs", "/jobs"]
    assert [path for _, path, _ in scripted.asked] == asked


@pytest.mark.parametrize(
    ("spelling", "options", "top"),
    [
        ("options", {"connection_id": "con_1"}, {}),
        ("output", {"output_connection_id": "con_1"}, {}),
        ("top", {}, {"connection_id": "con_1"}),
        ("none", {}, {}),
    ],
)
def test_a_job_as_it_is_sent(scripted: Scripted, spelling: str, options: dict[str, str], top: dict[str, str]) -> None:
    scripted.script(ittybit=[Said({"id": "job_1", "status": "queued"}, 201)])
    speaking = client(ORIGIN, ITTYBIT_API="jobs", ITTYBIT_JOB_CONNECTION=spelling, ITTYBIT_CONNECTION_ID="con_1")
    task = Task(kind="video", options={"height": 240}, destination="s3://media/processed/a.mp4")
    work = speaking.start(Action(task=task), SOURCE, "a.1", bucket="media", name="a.mp4", version="v")
    [(_, path, body)] = scripted.asked
    assert (path, work.ref) == ("/jobs", "jobs/job_1")
    assert json.loads(body) == {
        "input": SOURCE,
        "kind": "video",
        "options": {"height": 240, **options},
        "output": "s3://media/processed/a.mp4",
        "metadata": {"bucket": "media", "name": "a.mp4", "version": "v", "job": "a.1"},
        **top,
    }


def test_a_job_of_many_files_has_a_folder_and_one_that_stays_has_no_connection(scripted: Scripted) -> None:
    scripted.script(ittybit=[Said({"id": "job_1"}, 201)])
    hls = Task(kind="adaptive_video", destination="s3://media/processed/a/master.m3u8")
    speaking = client(ORIGIN, ITTYBIT_API="jobs", ITTYBIT_CONNECTION_ID="con_1")
    for action in (Action(task=hls), COPY):
        speaking.start(action, SOURCE, "a.1")
    folder, kept = (json.loads(body) for *_, body in scripted.asked)
    assert folder["output"] == "s3://media/processed/a/"
    assert (kept.get("output"), kept["options"]) == (None, {"height": 240})


def test_where_a_list_says_nothing_of_more_a_full_page_is_not_the_last(scripted: Scripted) -> None:
    page = [{"id": f"job_{number}"} for number in range(2)]
    marked = [{"id": "job_2", "metadata": {"job": "a.1"}}]
    scripted.script(ittybit=[Said(page), Said(marked)])
    now = datetime.now(UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.ittybit_search.MAX_PAGES", 9)
        assert client(ORIGIN, ITTYBIT_API="jobs").find(COPY, "a.1", now, now) == "jobs/job_2"
        scripted.script(ittybit=[Said(page)])
        with pytest.raises(Unanswered, match="repeats a page"):
            client(ORIGIN, ITTYBIT_API="jobs").find(COPY, "a.1", now, now)


def test_a_started_job_is_followed_in_the_other_generation(tmp_path: Path) -> None:
    with alone(tmp_path, "both") as both:
        speaking = [client(both.origin, ITTYBIT_API=api) for api in GENERATIONS]
        refs = [one.start(COPY, both.source, "a.1").ref for one in speaking]
        assert [ref.partition("/")[0] for ref in refs] == ["tasks", "jobs"]
        assert client(both.origin, ITTYBIT_API="auto").generation == "automations"
        for one, ref in itertools.product(speaking, refs):
            done = ended(functools.partial(one.work, ref))
            assert (done.ref, done.state, len(done.outputs)) == (ref, "succeeded", 1)


@pytest.mark.generations("jobs")
def test_an_automation_is_refused_in_words_where_there_is_none(project: Project, on_upload: Function) -> None:
    with pytest.raises(Unsupported):
        client(ORIGIN, ITTYBIT_API="jobs").start(RUN, SOURCE, "a.1")
    job = Job._make(project, "private", "an automation.mp4", "old", {"automation_id": "auto_1"})
    assert on_upload.drain() == FAILED
    assert (job["state"], job["reason"]) == ("failed", "unsupported")
    assert job["error"]["message"] == "this ittybit has no automations; write a task"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_each_documented_answer_is_read(path: Path) -> None:
    vector: dict[str, Any] = json.loads(path.read_text())
    shape: type[Work | Connection] = Work if vector["is"] == "work" else Connection
    read = shape.model_validate(bare(vector["answer"])).model_dump(mode="json")
    assert {name: read[name] for name in vector["read"]} == vector["read"]


def test_a_connection_is_made_alike_in_both(other: Alone) -> None:
    made = other.client.create_connection(CONNECTION)
    assert [one.id for one in other.client.connections()] == [made.id]


def test_a_gateway_s_404_for_a_job_ends_nothing(scripted: Scripted) -> None:
    scripted.script(ittybit=[Said({"message": "no Route matched"}, 404)])
    with pytest.raises(Unanswered):
        client(ORIGIN).work("jobs/job_1")
