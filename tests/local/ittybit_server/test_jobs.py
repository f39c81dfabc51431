"""The generation *jobs*: what its documents show, and how it differs from *automations*."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.ittybit_server import Ittybit, Shapes
from tests.local.ittybit_server.stack import KEY, Stack, picture
from tests.waiting import until

URL = "https://example.com/a.mp4"
# The fields of ittybit's page on a job, and of a step of its pipeline.
JOB = ["id", "object", "kind", "input", "output", "options", "metadata", "status", "error", "tasks"]
STEP = ["id", "object", "kind", "input", "options", "output", "status", "progress", "error"]
STAMPS = ["created_at", "started_at", "finished_at", "updated_at"]


@pytest.fixture(scope="module")
def stack(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(media, Ittybit(api_key=KEY, directory=tmp_path_factory.mktemp("jobs"), api="jobs")) as running:
        yield running


def idle(directory: Path, **options: Any) -> Stack:
    """A stack with an ittybit that never works on its jobs."""
    ittybit = Ittybit(api_key=KEY, directory=directory, api="jobs", **options)
    ittybit.start = lambda: None  # type: ignore[method-assign]
    return Stack(directory, ittybit)


def job(stack: Stack, source: str, kind: str = "video", **fields: object) -> Any:
    """Create a job; return it once it has ended."""
    url = source if "://" in source else stack.file(source)
    return stack.ended(f"/jobs/{stack.post('/jobs', {'input': url, 'kind': kind, **fields})['id']}")


def steps(one: Any) -> list[tuple[str, str]]:
    return [(step["kind"], step["status"]) for step in one["tasks"]]


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert list(body) == ["kind", "message"]
    return answer.status_code, body["kind"], body["message"]


def test_a_job_looks_as_in_the_documents(stack: Stack, tmp_path: Path) -> None:
    body = {"input": stack.file("clip.mp4"), "kind": "video", "options": {"width": 160}, "metadata": {"a": {"b": [1]}}}
    before = time.time()
    created = stack.post("/jobs", body | {"webhook_url": "https://example.com/told"})
    assert list(created) == [*JOB, *STAMPS]
    assert {name: created[name] for name in body} == body
    assert (created["object"], created["status"]) == ("job", "queued")
    assert [created[name] for name in ("output", "error", "started_at", "finished_at")] == [None] * 4
    assert len(created["id"]) == len("job_") + 26
    assert steps(created) == [("probe", "waiting"), ("import", "waiting"), ("video", "waiting")]
    done = stack.ended(f"/jobs/{created['id']}")
    assert (done["status"], done["error"], done["metadata"]) == ("succeeded", None, body["metadata"])
    assert before * 1000 - 1 <= done["created_at"] <= done["started_at"] <= done["finished_at"] <= time.time() * 1000
    (tmp_path / "output.mp4").write_bytes(httpx.get(done["output"]).raise_for_status().content)
    assert picture(tmp_path / "output.mp4")["size"] == (160, 120)


def test_the_steps_of_a_job(stack: Stack) -> None:
    done = job(stack, "clip.mp4")
    assert steps(done) == [("probe", "succeeded"), ("import", "succeeded"), ("video", "succeeded")]
    for step in done["tasks"]:
        assert sorted(step) == sorted([*STEP, *STAMPS])
        assert (step["object"], step["progress"], step["error"]) == ("task", 100, None)
        assert step["created_at"] <= step["started_at"] <= step["finished_at"] <= step["updated_at"]
    probe, _, encode = done["tasks"]
    assert probe["input"] == {"object": "external_file", "url": done["input"]}
    assert {name: probe["output"][name] for name in ("object", "kind", "format", "width", "height")} == {
        "object": "file",
        "kind": "video",
        "format": "mp4",
        "width": 320,
        "height": 240,
    }
    assert encode["output"]["url"] == done["output"]


@pytest.mark.parametrize(
    ("top", "options"),
    [
        ({}, {}),
        ({"connection_id": "right"}, {}),
        ({}, {"connection_id": "right"}),
        ({}, {"input_connection_id": "right", "output_connection_id": "right"}),
        ({"connection_id": "wrong"}, {"connection_id": "wrong", "output_connection_id": "right"}),
    ],
    ids=["none", "top", "options", "both sides", "the most specific one counts"],
)
def test_every_way_to_name_the_connection(
    media: Path, tmp_path: Path, top: dict[str, str], options: dict[str, str]
) -> None:
    with Stack(media, Ittybit(api_key=KEY, directory=tmp_path, api="jobs", encode=False)) as stack:
        ids = {"right": stack.connect()}
        if "wrong" in top.values():
            ids["wrong"] = stack.connect(endpoint="http://127.0.0.1:9")
        assert ids["right"].startswith("conn_")
        named: dict[str, Any] = {name: ids[value] for name, value in top.items()}
        named["options"] = {name: ids[value] for name, value in options.items()}
        done = job(stack, "clip.mp4", output="s3://media/a/clip.mp4", **named)
        assert (done["status"], done["output"]) == ("succeeded", "s3://media/a/clip.mp4"), done["error"]
        assert list(stack.storage.objects) == ["media/a/clip.mp4"]
        assert steps(done)[-1] == ("export", "succeeded")
        assert done["tasks"][-1]["options"] == {"url": "s3://media/a/clip.mp4", "connection_id": ids["right"]}
        (entry,) = stack.ittybit.journal
        assert (entry.call, entry.id, entry.url) == ("POST /jobs", done["id"], stack.file("clip.mp4"))
        assert (entry.destination, entry.connection_id) == ("s3://media/a/clip.mp4", ids["right"])
        if "wrong" not in ids:
            again = job(stack, "s3://media/a/clip.mp4", output="s3://media/b.mp4", **named)
            assert again["status"] == "succeeded", again["error"]


def test_templates_and_folders_in_the_output(stack: Stack) -> None:
    stack.connect(is_default=True)
    today = datetime.now(UTC).date().isoformat()
    done = job(stack, "clip.mp4", "image", output="s3://media/{date}/{filename}-{else}.jpg")
    assert done["output"] == f"s3://media/{today}/clip-{{else}}.jpg"
    stack.storage.objects.clear()
    done = job(stack, "clip.mp4", "adaptive_video", output="s3://media/hls/", options={"format": "hls"})
    assert done["output"] == "s3://media/hls/master.m3u8"
    files = {"media/hls/master.m3u8", "media/hls/stream.m3u8", "media/hls/segment-0.ts"}
    assert set(stack.storage.objects) == files


def test_a_job_of_an_unsupported_kind_is_accepted_and_fails(stack: Stack) -> None:
    assert "no animation" in job(stack, "clip.mp4", "animation")["error"]["message"]


@pytest.mark.parametrize(
    ("source", "output", "reached", "kind"),
    [
        ("none.mp4", None, ["failed", "cancelled", "cancelled"], "request_invalid"),
        ("text.mp4", None, ["succeeded", "succeeded", "failed"], "format_unsupported"),
        ("clip.mp4", "s3://forbidden/a", ["succeeded", "succeeded", "succeeded", "failed"], "request_invalid"),
    ],
)
def test_jobs_that_fail(stack: Stack, source: str, output: str | None, reached: list[str], kind: str) -> None:
    done = job(stack, source, **({"output": output, "connection_id": stack.connect()} if output else {}))
    assert (done["status"], done["output"], done["error"]["kind"]) == ("failed", None, kind)
    assert [status for _, status in steps(done)] == reached
    assert done["tasks"][reached.index("failed")]["error"] == done["error"]
    assert done["id"] in stack.ittybit.failed


@pytest.mark.parametrize(
    ("body", "kind", "about"),
    [
        ({"kind": "video"}, "request_invalid", "input is required"),
        ({"input": URL}, "request_invalid", "kind is required"),
        ({"input": {"url": URL}, "kind": "video"}, "request_invalid", "input"),
        ({"input": "./a.mp4", "kind": "video"}, "invalid_input", "input"),
        ({"input": "ftp://example.com/a", "kind": "video"}, "invalid_input", "input"),
        ({"input": URL, "kind": "speech"}, "request_invalid", "kind"),
        ({"input": URL, "kind": "video", "options": {"format": "gif"}}, "format_unsupported", "options.format"),
        ({"input": URL, "kind": "video", "options": {"width": "0%"}}, "request_invalid", "options.width"),
        ({"input": URL, "kind": "video", "output": "https://example.com/b"}, "request_invalid", "output"),
        ({"input": URL, "kind": "video", "output": "s3://bucket/a/"}, "request_invalid", "output"),
    ],
)
def test_an_invalid_job_is_refused(stack: Stack, body: dict[str, Any], kind: str, about: str) -> None:
    before = len(stack.ittybit.journal)
    status, found, message = refusal(stack.http.post("/jobs", json=body))
    assert (status, found) == (400, kind)
    assert about in message
    assert len(stack.ittybit.journal) == before


def test_unknown_ids_are_not_found(stack: Stack) -> None:
    assert refusal(stack.http.get("/jobs/job_0"))[:2] == (404, "job_not_found")
    body = {"input": URL, "kind": "video", "output": "s3://a/b", "connection_id": "conn_0"}
    assert refusal(stack.http.post("/jobs", json=body))[:2] == (404, "connection_not_found")


@pytest.mark.parametrize(
    ("api", "known", "unknown"),
    [
        ("automations", ["/automations", "/tasks", "/connections"], ["/jobs", "/jobs/job_0"]),
        ("jobs", ["/jobs", "/connections"], ["/automations", "/runs", "/tasks", "/automations/a/run"]),
        ("both", ["/jobs", "/connections", "/automations", "/tasks"], ["/steps"]),
    ],
)
def test_it_speaks_the_chosen_generations(tmp_path: Path, api: Any, known: list[str], unknown: list[str]) -> None:
    with Stack(tmp_path, Ittybit(api_key=KEY, directory=tmp_path, api=api)) as stack:
        for path in known:
            assert stack.get(path, limit=1) == []
        for path in unknown:
            assert refusal(stack.http.get(path))[:2] == (404, "not_found")
            assert refusal(stack.http.post(path, json={}))[:2] == (404, "not_found")


def test_the_same_key_starts_once(tmp_path: Path) -> None:
    with idle(tmp_path) as stack:
        body = {"input": URL, "kind": "video", "metadata": {"mark": "1"}}
        first, again, other = (
            stack.http.post("/jobs", json=body, headers={"Idempotency-Key": key}) for key in ("one", "one", "two")
        )
        assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
        assert again.json() == first.json()
        assert [entry.replay for entry in stack.ittybit.journal] == [False, True, False]
        assert {(entry.call, entry.metadata["mark"]) for entry in stack.ittybit.journal} == {("POST /jobs", "1")}
        assert len(stack.get("/jobs")) == 2


def test_the_list_and_its_filters(tmp_path: Path) -> None:
    with idle(tmp_path) as stack:
        made = [
            stack.post("/jobs", {"input": f"{URL}?n={number}", "kind": kind})["id"]
            for number, kind in enumerate(["video", "audio", "video"])
        ]
        answer = stack.http.get("/jobs", params={"limit": 2})
        assert [one["id"] for one in answer.json()] == [made[2], made[1]]
        assert (answer.headers["Has-More"], answer.headers["Limit"]) == ("true", "2")
        assert [one["id"] for one in stack.http.get(answer.links["next"]["url"]).json()] == [made[0]]
        for params, expected in [
            ({"input": f"{URL}?n=1"}, [made[1]]),
            ({"input": URL}, []),
            ({"kind": "video", "order": "asc"}, [made[0], made[2]]),
            ({"status": "queued"}, made[::-1]),
            ({"status": "succeeded"}, []),
            ({"after": made[1]}, [made[0]]),
        ]:
            assert [one["id"] for one in stack.get("/jobs", **params)] == expected
        assert refusal(stack.http.get("/jobs", params={"status": "waiting"}))[:2] == (400, "request_invalid")


def test_without_credits_no_job_starts(tmp_path: Path) -> None:
    with idle(tmp_path) as stack:
        stack.ittybit.require_payment(True)
        answer = stack.http.post("/jobs", json={"input": URL, "kind": "video"})
        assert refusal(answer)[:2] == (402, "payment_required")


def test_steps_have_progress(stack: Stack) -> None:
    options = {"width": 1920}
    created = stack.post("/jobs", {"input": stack.file("clip.mp4"), "kind": "video", "options": options})
    assert [step["progress"] for step in created["tasks"]] == [None] * 3

    def processing() -> Any:
        one = stack.get(f"/jobs/{created['id']}")
        return one if 0 < (one["tasks"][2]["progress"] or 0) < 100 else None

    seen = until(processing, seconds=30, every=0.01)
    assert seen["status"] == "processing"
    assert steps(seen) == [("probe", "succeeded"), ("import", "succeeded"), ("video", "processing")]
    assert (seen["finished_at"], seen["tasks"][2]["finished_at"]) == (None, None)


def test_the_other_shapes(media: Path, tmp_path: Path) -> None:
    with idle(tmp_path, shapes=Shapes(pending=True)) as stack:
        assert stack.post("/jobs", {"input": URL, "kind": "video"})["status"] == "pending"
    shapes = Shapes(object_output=True, text_error=True)
    with Stack(media, Ittybit(api_key=KEY, directory=tmp_path, api="jobs", encode=False, shapes=shapes)) as stack:
        assert job(stack, "clip.mp4")["output"]["url"].startswith("http://127.0.0.1")
        assert job(stack, "none.mp4")["error"] == "The source answered 404."
