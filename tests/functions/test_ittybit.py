from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from werkzeug import Response

from local.ittybit_server import Shapes
from local.server import Server
from shared import ittybit_requests
from shared.errors import Answered, ServiceError, Unanswered, Undecided, Unfinished
from shared.ittybit_models import Action, Connection, Listed, Searched, Task, Work
from shared.ittybit_requests import read
from tests.functions.ittybit_alone import CONNECTION, RUN, Alone, alone, client, start
from tests.functions.scripted import ORIGIN, Answer, Scripted
from tests.waiting import until

READINGS = {
    "automations": ["overview", "singular", "envelope", "legacy_status", "text_error"],
    "jobs": ["overview", "envelope", "text_error", "pending", "object_output"],
}
AUTOMATIONS_ALONE = pytest.mark.parametrize("ittybit", [("automations", "overview")], indirect=True)


@pytest.fixture(
    scope="module",
    params=[(generation, reading) for generation, readings in READINGS.items() for reading in readings],
    ids="-".join,
)
def ittybit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """An ittybit for each way to read each generation's documentation."""
    generation, reading = request.param
    shapes = Shapes(**({} if reading == "overview" else {reading: True}))
    with alone(tmp_path_factory.mktemp("ittybit"), generation, shapes) as running:
        yield running


def ended(look: Callable[[], Work]) -> Work:
    """The run or task, once it has ended."""
    return until(lambda: work if (work := look()).state != "ongoing" else None) or look()


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ittybit_requests, "PAGE", 2)


@AUTOMATIONS_ALONE
def test_a_run_goes_from_started_to_succeeded_with_the_outputs_of_all_its_tasks(ittybit: Alone) -> None:
    started = ittybit.client.start(ittybit.action("video", "audio"), f"{ittybit.source}?job=a.1", "a.1")
    assert started.ref.startswith("runs/run_")
    assert started.state == "ongoing"
    run = ended(lambda: ittybit.client.work(started.ref))
    assert run.state == "succeeded"
    assert len(run.outputs) == 2
    assert all(address.startswith(f"{ittybit.origin}/results/") for address in run.outputs)
    assert run.progress == 100


def test_a_task_goes_from_started_to_failed_with_ittybit_s_words(ittybit: Alone) -> None:
    client = ittybit.client
    connection = client.create_connection(CONNECTION | {"name": client._connection_name})
    task = Task(kind="video", options={"height": 240}, destination="s3://media/processed/a.mp4")
    started = client.start(Action(task=task), f"{ittybit.missing}?job=b.1", "b.1", bucket="b")
    entry = ittybit.stand_in.journal[-1]
    assert (entry.id, entry.idempotency_key) == (started.id, "b.1")
    assert (entry.connection_id, entry.destination) == (connection.id, "s3://media/processed/a.mp4")
    assert started.ref == f"{'jobs' if ittybit.generation == 'jobs' else 'tasks'}/{started.id}"
    made = ended(lambda: ittybit.client.work(started.ref))
    assert made.state == "failed"
    assert made.error
    assert made.error.message == "The source answered 404."
    listed = read(Listed, ittybit.client._api.call("GET", started.ref))
    assert listed.marks == {"b.1"}
    if ittybit.generation == "jobs":
        assert entry.metadata == {"bucket": "b", "job": "b.1"}
        return
    run = ittybit.client.work(f"runs/{listed.run_id}")
    assert (run.state, run.error and run.error.message) == ("failed", "The source answered 404.")


@pytest.mark.usefixtures("pages_of_two")
def test_connections_are_made_listed_over_all_pages_changed_and_deleted(ittybit: Alone) -> None:
    made = [ittybit.client.create_connection(CONNECTION | {"name": f"connection {n}"}) for n in range(5)]
    listed = {one.id: one for one in ittybit.client.connections()}
    assert [listed[one.id] for one in made] == made
    changed = ittybit.client.update_connection(made[0].id, CONNECTION | {"region": "us-east-1"})
    assert (changed.id, changed.region, changed.secret_access_key) == (made[0].id, "us-east-1", "s3-secret-value")
    for one in made:
        ittybit.client.delete_connection(one.id)
    assert not {one.id for one in made} & {one.id for one in ittybit.client.connections()}
    assert "s3-secret-value" not in repr(made)


@pytest.mark.usefixtures("pages_of_two")
def test_a_task_with_the_mark_is_found_across_pages(ittybit: Alone) -> None:
    action = ittybit.action("video")
    now = datetime.now(UTC)
    # The decoys are newer: a search that took one for the mark would find it instead.
    decoys = ("job=c.10", "job=c.2&job=x", "x=job=c.1")
    first, signed, *_ = (
        ittybit.client.start(action, f"{ittybit.source}?{query}", "-")
        for query in ("job=c.1", "token=x&job=c.4", *decoys, "", "", "")
    )
    assert ittybit.client.find(action, "c.1", now, now, Searched()) == first.ref
    assert ittybit.client.find(action, "c.4", now, now, Searched()) == signed.ref
    if ittybit.generation == "automations":
        task = ittybit.client.find(Action(task=Task(kind="video")), "c.1", now, now, Searched())
        assert read(Listed, ittybit.client._api.call("GET", str(task))).run_id == first.id
    assert ittybit.client.find(action, "c.3", now, now, Searched()) is None


@pytest.mark.parametrize("hours", [0, -5, 5], ids=["same clock", "ledger behind", "ledger ahead"])
def test_a_search_goes_back_to_the_attempt_even_if_the_ledgers_clock_is_wrong(ittybit: Alone, hours: int) -> None:
    action = ittybit.action("video")
    ittybit.client.start(action, f"{ittybit.source}?job=d.1", "d.1")
    now = datetime.now(UTC) + timedelta(hours=hours)
    assert ittybit.client.find(action, "d.1", now - timedelta(minutes=1), now, Searched())
    assert ittybit.client.find(action, "d.1", now, now, Searched())
    assert ittybit.client.find(action, "d.1", now + timedelta(minutes=2), now, Searched()) is None


@pytest.mark.usefixtures("pages_of_two")
@pytest.mark.parametrize(("minutes", "said"), [(59, Unfinished), (61, Undecided)])
def test_a_search_that_runs_out_of_time_is_repeated_for_an_hour(
    ittybit: Alone, minutes: int, said: type[ServiceError]
) -> None:
    action = ittybit.action("video")
    for _ in range(4):
        ittybit.client.start(action, ittybit.source, "other.1")
    now = datetime.now(UTC)
    hurried = ittybit.within(0.9)
    with pytest.raises(said) as caught:
        hurried.find(action, "never.1", now - timedelta(minutes=minutes), now, Searched())
    assert caught.value.in_doubt
    assert caught.value.effect == "retry"


def test_an_id_with_special_characters_stays_one_part_of_the_address(ittybit: Alone) -> None:
    for strange in ("../tasks", "a/b", "a?b", "a#b", "a%2Fb"):
        with pytest.raises(Answered) as caught:
            ittybit.client.work(f"{'jobs' if ittybit.generation == 'jobs' else 'runs'}/{strange}")
        assert caught.value.status == 404


TASK: dict[str, Any] = {"id": "task_1", "status": "processing", "created_at": 1767225600}


@pytest.mark.parametrize(
    "created_at",
    [
        1767225600,
        1767225600000,
        1767225600.0,
        "2026-01-01T00:00:00Z",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01T00:00:00",
    ],
)
def test_created_at_is_read_in_every_form(created_at: object) -> None:
    assert Listed.model_validate(TASK | {"created_at": created_at}).created_at == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("status", ["succeeded", "ready", "completed"])
def test_every_word_for_success_is_understood(status: str) -> None:
    assert Work.model_validate(TASK | {"status": status}).state == "succeeded"


@pytest.mark.parametrize("status", ["waiting", "validating", "queued", "processing", "finishing", "", "new-word", None])
def test_any_other_status_means_that_the_run_goes_on(status: object) -> None:
    assert Work.model_validate(TASK | {"status": status}).state == "ongoing"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("It broke.", None, "It broke."),
        ({"kind": "k", "message": "It broke."}, "k", "It broke."),
        ({"message": "It broke."}, None, "It broke."),
        ({"kind": "k"}, "k", "ittybit gave no reason"),
        ({"kind": 7, "message": "It broke."}, None, "It broke."),
        ({"kind": "k", "message": None}, "k", "ittybit gave no reason"),
    ],
)
def test_every_form_of_an_error_is_understood(error: object, kind: str | None, message: str) -> None:
    fault = Work.model_validate(TASK | {"status": "failed", "error": error}).error
    assert fault
    assert (fault.kind, fault.message) == (kind, message)


@pytest.mark.parametrize("error", [None, "", {}, [], 0, {"kind": None, "message": None}, {"message": ["It broke."]}])
def test_an_empty_error_does_not_count(error: object) -> None:
    assert Work.model_validate(TASK | {"status": "failed", "error": error}).error is None


@pytest.mark.parametrize(
    "fields",
    [
        {"output": {"url": "https://a/1"}, "input": {"url": "https://a/0?job=a.1"}},
        {"outputs": [{"url": "https://a/1"}], "inputs": [{"url": "https://a/0?job=a.1"}]},
        {"output": "https://a/1", "url": "https://a/0?job=a.1"},
        {
            "outputs": ["https://a/1", {"url": "https://a/1"}, None, {"kind": "x"}],
            "options": {"url": "https://a/0?job=a.1"},
        },
    ],
)
def test_sources_and_outputs_are_found_in_every_form(fields: dict[str, Any]) -> None:
    assert Work.model_validate(TASK | fields).outputs == ("https://a/1",)
    assert Listed.model_validate(TASK | fields).marks == {"a.1"}


@pytest.mark.parametrize("answer", [[], "text", 7, {}, {"data": None}, {"id": 1}])
def test_an_answer_that_is_no_task_leaves_a_start_in_doubt(answer: object) -> None:
    with Server(Response(json.dumps(answer))) as server, pytest.raises(Unanswered) as caught:
        start(client(server.origin), RUN)
    assert caught.value.in_doubt


@pytest.mark.parametrize("item", [7, {}, {"id": 1}, {"id": "x", "created_at": 1e300}])
def test_a_search_does_not_end_with_an_item_that_cannot_be_read(item: object) -> None:
    now = datetime.now(UTC)
    with Server(Response(json.dumps([item]))) as server, pytest.raises(Unanswered):
        client(server.origin).find(RUN, "a.1", now, now, Searched())


@pytest.mark.parametrize("tasks", [7, True, "task_1", {"id": "task_1"}, [7, None, []]])
def test_malformed_tasks_are_ignored(tasks: object) -> None:
    assert Work.model_validate(TASK | {"tasks": tasks}).tasks == ()


@pytest.mark.parametrize("progress", [-1, 101, 1e39, 10**400, float("nan"), float("inf"), "half"])
def test_a_progress_that_is_not_a_percentage_is_ignored(progress: object) -> None:
    assert Work.model_validate(TASK | {"progress": progress}).progress is None


def test_a_tiny_progress_is_read_as_zero() -> None:
    assert Work.model_validate(TASK | {"progress": 2.8e-215}).progress == 0


@pytest.mark.parametrize(
    "date",
    [
        "Thu, 99999999999999999999 Jan 2026 00:00:00 GMT",
        "Thu, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Thu, 01 Jan 2026 00:00:00 +99999999999999",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "yesterday",
    ],
)
def test_a_search_ends_although_ittybits_date_header_is_invalid(scripted: Scripted, date: str) -> None:
    scripted.script(ittybit=[Answer([TASK | {"url": "https://a/b?job=h.1"}], headers={"Date": date})])
    now = datetime.now(UTC)
    assert client(ORIGIN).find(RUN, "g.1", now, now, Searched()) is None


def test_the_repr_of_a_connection_has_no_secret() -> None:
    assert "s3-secret" not in repr(Connection(id="con_1", secret_access_key="s3-secret"))
