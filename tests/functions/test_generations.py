"""How the generation of ittybit's API is detected, and what is sent in each."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from local.functions import ROOT
from shared.errors import Answered, ServiceError, Unanswered, Unsupported
from shared.ittybit import GENERATIONS
from shared.ittybit_models import Action, Connection, Listed, Searched, Task, Work, bare
from tests.functions.calling import Function
from tests.functions.ittybit_alone import CONNECTION, RUN, Alone, alone, client
from tests.functions.project import Job, Project
from tests.functions.scripted import ORIGIN, Answer, Scripted
from tests.functions.test_ittybit import ended
from tests.functions.test_job_steps import FAILED

VECTORS = sorted((ROOT / "tests" / "vectors" / "ittybit").glob("*.json"))
THERE, GONE = Answer([]), Answer({"kind": "not_found", "message": "There is no such path."}, 404)
COPY = Action(task=Task(kind="video", options={"height": 240}))
SOURCE = "https://supabase.example.com/a.mp4?token=t&job=a.1"


@pytest.fixture(params=["automations", "jobs"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Alone]:
    """An ittybit of each generation, at a new address: its generation is not detected yet."""
    with alone(tmp_path, request.param) as one:
        yield one


def test_the_generation_is_detected_once_a_process_and_only_with_get_requests(other: Alone) -> None:
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
        ([Answer({"data": []})], "automations"),
        ([GONE, THERE], "jobs"),
        ([Answer({"kind": "k", "message": "m"}, 405), THERE], "jobs"),
        ([Answer({"kind": "k", "message": "m"}, 410), THERE], "jobs"),
    ],
)
def test_the_api_that_answers_is_used(scripted: Scripted, answers: list[Answer], spoken: str) -> None:
    scripted.script(ittybit=answers)
    assert client(ORIGIN, ITTYBIT_API="auto").generation == spoken


@pytest.mark.parametrize("at", [0, 1], ids=["automations", "jobs"])
@pytest.mark.parametrize(
    "said",
    [
        *[Answer({"kind": "k", "message": "m"}, status) for status in (400, 401, 402, 403, 429, 500, 503)],
        Answer(b"<html>not here</html>", 404),
        Answer({"error": "not found"}, 404),
        Answer({"automations": []}),
        Answer(b"<html>Welcome</html>"),
    ],
    ids=lambda said: str(said.status),
)
def test_detection_is_repeated_after_an_answer_that_decides_nothing(scripted: Scripted, said: Answer, at: int) -> None:
    before = [GONE] * at
    scripted.script(ittybit=[*before, said])
    auto = client(ORIGIN, seconds=2, ITTYBIT_API="auto")
    with pytest.raises(ServiceError) as caught:
        auto.start(COPY, SOURCE, "a.1")
    assert caught.value.effect in ("retry", "hold")
    assert not caught.value.in_doubt
    assert {path for _, path, _ in scripted.requests} == {"/automations", "/jobs"} - ({"/jobs"} if at == 0 else set())
    assert "neither" not in caught.value.message
    scripted.script(ittybit=[THERE])
    assert auto.generation == "automations"


def test_without_either_api_a_start_is_held_with_a_message(scripted: Scripted) -> None:
    scripted.script(ittybit=[GONE])
    with pytest.raises(ServiceError, match="neither /automations nor /jobs") as caught:
        client(ORIGIN, ITTYBIT_API="auto").start(COPY, SOURCE, "a.1")
    assert caught.value.effect == "hold"


@pytest.mark.parametrize("api", ["automations", "jobs"])
def test_a_start_that_fails_is_not_sent_to_the_other_generation(scripted: Scripted, api: str) -> None:
    scripted.script(ittybit=[GONE])
    with pytest.raises(Answered):
        client(ORIGIN, ITTYBIT_API=api).start(COPY, SOURCE, "a.1")
    assert [path for _, path, _ in scripted.requests] == ["/jobs" if api == "jobs" else "/tasks"]


def test_an_api_that_disappears_while_a_process_runs_fails_no_job(scripted: Scripted) -> None:
    made = Answer({"id": "job_1", "status": "queued"}, 201)
    scripted.script(ittybit=[THERE, GONE, GONE, GONE, THERE, made])
    auto = client(ORIGIN, ITTYBIT_API="auto")
    with pytest.raises(Unanswered, match="no longer has /automations") as caught:
        auto.start(COPY, SOURCE, "a.1")
    assert (caught.value.effect, caught.value.in_doubt) == ("retry", False)
    assert auto.start(COPY, SOURCE, "a.1").ref == "jobs/job_1"
    asked = ["/automations", "/tasks", "/automations", "/automations", "/jobs", "/jobs"]
    assert [path for _, path, _ in scripted.requests] == asked


@pytest.mark.parametrize(
    ("spelling", "options", "top"),
    [
        ("options", {"connection_id": "con_1"}, {}),
        ("output", {"output_connection_id": "con_1"}, {}),
        ("top", {}, {"connection_id": "con_1"}),
        ("none", {}, {}),
    ],
)
def test_a_job_names_its_connection_as_the_setting_says(
    scripted: Scripted, spelling: str, options: dict[str, str], top: dict[str, str]
) -> None:
    scripted.script(ittybit=[Answer({"id": "job_1", "status": "queued"}, 201)])
    speaking = client(ORIGIN, ITTYBIT_API="jobs", ITTYBIT_JOB_CONNECTION=spelling, ITTYBIT_CONNECTION_ID="con_1")
    task = Task(kind="video", options={"height": 240}, destination="s3://media/processed/a.mp4")
    work = speaking.start(Action(task=task), SOURCE, "a.1", bucket="media", name="a.mp4", version="v")
    [(_, path, body)] = scripted.requests
    assert (path, work.ref) == ("/jobs", "jobs/job_1")
    assert json.loads(body) == {
        "input": SOURCE,
        "kind": "video",
        "options": {"height": 240, **options},
        "output": "s3://media/processed/a.mp4",
        "metadata": {"bucket": "media", "name": "a.mp4", "version": "v", "job": "a.1"},
        **top,
    }


def test_many_files_go_into_a_folder_and_a_result_that_stays_has_no_connection(scripted: Scripted) -> None:
    scripted.script(ittybit=[Answer({"id": "job_1"}, 201)])
    hls = Task(kind="adaptive_video", destination="s3://media/processed/a/master.m3u8")
    speaking = client(ORIGIN, ITTYBIT_API="jobs", ITTYBIT_CONNECTION_ID="con_1")
    for action in (Action(task=hls), COPY):
        speaking.start(action, SOURCE, "a.1")
    folder, kept = (json.loads(body) for *_, body in scripted.requests)
    assert folder["output"] == "s3://media/processed/a/"
    assert (kept.get("output"), kept["options"]) == (None, {"height": 240})


def test_a_full_page_is_not_the_last_when_the_list_does_not_say_so(scripted: Scripted) -> None:
    page = [{"id": f"job_{number}"} for number in range(2)]
    marked = [{"id": "job_2", "metadata": {"job": "a.1"}}]
    scripted.script(ittybit=[Answer(page), Answer(marked)])
    now = datetime.now(UTC)
    assert client(ORIGIN, ITTYBIT_API="jobs").find(COPY, "a.1", now, now, Searched()) == "jobs/job_2"
    scripted.script(ittybit=[Answer(page)])
    with pytest.raises(Unanswered, match="repeats a page"):
        client(ORIGIN, ITTYBIT_API="jobs").find(COPY, "a.1", now, now, Searched())


def test_work_of_either_generation_is_checked_in_its_own_api(tmp_path: Path) -> None:
    with alone(tmp_path, "both") as both:
        speaking = [client(both.origin, ITTYBIT_API=api) for api in GENERATIONS]
        refs = [one.start(COPY, both.source, "a.1").ref for one in speaking]
        assert [ref.partition("/")[0] for ref in refs] == ["tasks", "jobs"]
        assert client(both.origin, ITTYBIT_API="auto").generation == "automations"
        for one, ref in itertools.product(speaking, refs):
            done = ended(functools.partial(one.work, ref))
            assert (done.ref, done.state, len(done.outputs)) == (ref, "succeeded", 1)


@pytest.mark.generations("jobs")
def test_an_automation_fails_with_a_message_where_ittybit_has_none(project: Project, on_upload: Function) -> None:
    with pytest.raises(Unsupported):
        client(ORIGIN, ITTYBIT_API="jobs").start(RUN, SOURCE, "a.1")
    job = Job._make(project, "private", "an automation.mp4", "old", {"automation_id": "auto_1"})
    assert on_upload.drain() == FAILED
    assert (job["state"], job["reason"]) == ("failed", "unsupported")
    assert job["error"]["message"] == "this ittybit has no automations; write a task"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_each_documented_answer_is_read(path: Path) -> None:
    vector: dict[str, Any] = json.loads(path.read_text())
    shapes: list[type[BaseModel]] = [Work, Listed] if vector["is"] == "work" else [Connection]
    read: dict[str, Any] = {}
    for shape in shapes:
        read |= shape.model_validate(bare(vector["answer"])).model_dump(mode="json")
    assert {name: read[name] for name in vector["read"]} == vector["read"]


def test_a_connection_is_made_and_listed_in_both_generations(other: Alone) -> None:
    made = other.client.create_connection(CONNECTION)
    assert [one.id for one in other.client.connections()] == [made.id]


def test_a_gateways_404_for_a_job_counts_as_no_answer(scripted: Scripted) -> None:
    scripted.script(ittybit=[Answer({"message": "no Route matched"}, 404)])
    with pytest.raises(Unanswered):
        client(ORIGIN).work("jobs/job_1")
