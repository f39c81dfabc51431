"""Uploads of any name, version, owner and metadata succeed; one with a readable size is recorded."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.database.project import Project
from tests.inputs import STORABLE, nearly, storable

NAMES = storable().filter(bool)
VERSIONS = st.none() | storable(pieces=2)
OWNERS = st.none() | storable(pieces=3)
# Values that PostgreSQL accepts as jsonb.
TEXTS = st.text(STORABLE, max_size=20)
SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | TEXTS
    | st.floats(allow_nan=False).filter(lambda number: abs(number) != float("inf"))
)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(TEXTS, SCALARS, max_size=2)
METADATA = VALUES | nearly(
    {"size": 5, "eTag": '"e"', "mimetype": "video/mp4"}, size=VALUES, eTag=VALUES, mimetype=storable() | VALUES
).filter(lambda metadata: all(_is_storable(value) for value in metadata.values()))
STORED = st.tuples(NAMES, VERSIONS, OWNERS, METADATA)


def _is_storable(value: Any) -> bool:
    """Whether jsonb can store it: the JSON of the tests has more values than that."""
    match value:
        case str():
            return "\0" not in value and value == value.encode("utf-8", "ignore").decode()
        case float():
            return abs(value) < float("inf")
        case int():
            return abs(value) < 10**300
        case list():
            return all(map(_is_storable, value))
        case dict():
            return all(_is_storable(one) for pair in value.items() for one in pair)
    return True


@given(first=STORED, then=STORED)
@example(first=("a.mp4", "v1", None, {"size": "many"}), then=("a.mp4", "v2", None, {"size": 10**30}))
@example(first=("a/", None, None, {"size": 5}), then=("b", None, None, None))
@example(first=("../processed/{name}", "v1", "..", {"size": 5}), then=("b", None, "", "size"))
def test_no_upload_move_or_removal_fails(database: Project, first: tuple[Any, ...], then: tuple[Any, ...]) -> None:
    database.reset()
    database.rule()
    database.rule(
        "filled", task={"kind": "video", "destination": "s3://results/{owner_id}/{dir}{stem}-{version}.{ext}"}
    )
    database.rule("choosy", path="**/*.mp4", mimetype="video/*", min_size=1, max_size=10**12)
    name, version, owner, metadata = first
    row = [name, version, owner, Jsonb(metadata), Jsonb({"of": "the uploader"})]
    insert = (
        "insert into storage.objects (bucket_id, name, version, owner_id, metadata, user_metadata)"
        " values ('uploads', %s, %s, %s, %s, %s)"
    )
    database.storage.execute(insert, row)
    # An object with a readable size has a job for both rules that it matches.
    size = metadata.get("size") if isinstance(metadata, dict) else None
    is_processed = "select ittybit.reason_to_skip(to_jsonb(o)) is null from storage.objects as o"
    if type(size) is int and 0 <= size < 2**63 and database.value(is_processed):
        assert {job["rule"] for job in database.jobs()} >= {"clips", "filled"}
        assert database.warnings == []
    for job in database.jobs():
        task = job["action"].get("task", {})
        if (address := task.get("destination")) is not None:
            assert address.startswith("s3://results/")
            assert database.value("select ittybit.is_safe_key(%s)", address.removeprefix("s3://results/"))
        assert "of" not in task
    name, version, owner, metadata = then
    with database.writing("storage.object.move") as connection:
        connection.execute(
            "update storage.objects set name = %s, version = %s, owner_id = %s, metadata = %s",
            [name, version, owner, Jsonb(metadata)],
        )
    with database.writing("storage.object.delete") as connection:
        connection.execute("delete from storage.objects")
