"""The headers that a page of another origin needs."""

from __future__ import annotations

import httpx

ORIGIN = {"Origin": "https://app.example"}


def test_a_preflight_is_answered_by_the_gateway_for_every_origin(anonymous: httpx.Client) -> None:
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,tus-resumable"}
    for path in ("/object/none/a", "/upload/resumable", "/upload/resumable/x"):
        answer = anonymous.options(path, headers=ORIGIN | asked)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "PATCH" in answer.headers["access-control-allow-methods"].split(",")
        assert answer.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]


def test_every_answer_may_be_read_by_every_origin(client: httpx.Client, anonymous: httpx.Client) -> None:
    for answer in (
        client.get("/bucket", headers=ORIGIN),
        anonymous.get("/bucket", headers=ORIGIN),
        anonymous.get("/bucket", headers=ORIGIN | {"apikey": "none"}),
        anonymous.post("/upload/resumable", headers=ORIGIN),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


def test_a_page_may_read_the_headers_of_resumable_uploads(client: httpx.Client) -> None:
    answer = client.post("/upload/resumable", headers=ORIGIN | {"Tus-Resumable": "1.0.0"})
    assert answer.status_code == 400
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Location", "Upload-Offset", "Upload-Length", "Tus-Resumable"} <= set(exposed)


def test_options_of_resumable_uploads_list_the_extensions(anonymous: httpx.Client) -> None:
    answer = anonymous.options("/upload/resumable")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert {"creation", "creation-with-upload", "termination"} <= set(answer.headers["tus-extension"].split(","))
