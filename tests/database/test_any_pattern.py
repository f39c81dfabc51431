"""Python and SQL agree on every pattern and key, and a destination template never leaves its bucket."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from shared.database_webhook import ObjectEvent, check
from shared.errors import Refused, Skipped
from shared.globs import matches_mimetype, matches_path
from shared.objects import check_destination
from shared.settings import load
from tests.database.project import Project
from tests.functions.calling import NOWHERE
from tests.inputs import storable

PIECES = st.lists(st.sampled_from(["*", "**", "/", "a", "b.mp4", ".", "\n", "\1", "İ", "K", "[", "\\", "?", ";", " "]))
TEXTS = storable() | PIECES.map("".join)


def fill(glob: str, text: str) -> str:
    """The glob with its stars replaced by text: a path that often matches."""
    return glob.replace("**", text).replace("*", "x")


FITS = """
select ittybit.fits(
  jsonb_populate_record(null::ittybit.rules, jsonb_build_object(
    'path_pattern', ittybit.glob_pattern(%(path)s), 'path_like', ittybit.glob_like(%(path)s),
    'mimetype_pattern', ittybit.mimetype_pattern(%(type)s),
    'mimetype_like', ittybit.glob_like(lower(%(type)s::text collate "C")) || '%%'
  )),
  %(name)s,
  jsonb_build_object('mimetype', %(mimetype)s::text)
)
"""


def fits(database: Project, **values: str | None) -> bool:
    """Whether an object matches a rule with these patterns, as the trigger decides it."""
    [row] = database.developer.execute(FITS.encode(), {"type": None, "mimetype": None, **values}).fetchall()
    [answer] = row.values()
    return bool(answer)


@given(glob=TEXTS, text=TEXTS, filled=st.booleans())
@example(glob="\1", text="anything", filled=False)
def test_sql_and_python_match_the_same_paths(database: Project, glob: str, text: str, filled: bool) -> None:
    path = fill(glob, text) if filled else text
    assert fits(database, path=glob, name=path) == matches_path(glob, path)


@given(pattern=TEXTS, text=TEXTS, filled=st.booleans())
def test_sql_and_python_match_the_same_media_types(database: Project, pattern: str, text: str, filled: bool) -> None:
    mimetype = fill(pattern, text) if filled else text
    in_sql = fits(database, path="**", name="a", type=pattern, mimetype=mimetype)
    assert in_sql == matches_mimetype(pattern, mimetype)


@given(key=TEXTS)
def test_sql_and_python_accept_the_same_keys(database: Project, key: str) -> None:
    in_python = False
    with suppress(ValueError):
        check_destination(f"s3://media/{key}")
        in_python = True
    assert database.value("select ittybit.is_safe_key(%s)", key) == in_python


PLAIN = load(NOWHERE | {"WATCH_BUCKET": "uploads", "ITTYBIT_AUTOMATION_ID": "auto_1"})
KEYS = st.lists(
    st.sampled_from(["a", "/", ".emptyFolderPlaceholder", ".ittybit", "processed", "b.mp4"]), min_size=1, max_size=5
).map("".join)


@given(name=KEYS, size=st.integers(0, 2), is_delete_marker=st.booleans())
@example(name="processed/a", size=0, is_delete_marker=False)
def test_the_database_and_plain_mode_skip_the_same_objects(
    database: Project, name: str, size: int, is_delete_marker: bool
) -> None:
    row = {"bucket_id": "uploads", "name": name, "metadata": {"size": size}, "is_delete_marker": is_delete_marker}
    event = {"type": "INSERT", "table": "objects", "schema": "storage", "record": row}
    reason = None
    try:
        check(ObjectEvent.model_validate(event), PLAIN)
    except Skipped as skipped:
        reason = skipped.reason
    in_sql = database.value("select ittybit.reason_to_skip(%s)", Jsonb(row))
    assert in_sql == reason


PLACEHOLDERS = st.sampled_from(["{dir}", "{stem}", "{ext}", "{name}", "{version}", "{owner_id}"])
PARTS = (
    PLACEHOLDERS
    | st.sampled_from(["s3://", "results", "/", "-", "{", "}", "{{", "..", ".", "made/"])
    | storable(pieces=1)
)
TEMPLATES = st.lists(PARTS, max_size=6).map("".join)
PLAUSIBLE = st.lists(PLACEHOLDERS | st.sampled_from(["/", "-", "x", ".."]), min_size=1, max_size=5).map(
    lambda parts: "s3://results/" + "".join(parts)
)


@given(
    template=PLAUSIBLE | TEMPLATES,
    name=storable().filter(bool),
    version=st.none() | storable(pieces=3),
    owner=st.none() | storable(pieces=3),
)
def test_an_accepted_template_never_leaves_its_bucket(
    database: Project, template: str, name: str, version: str | None, owner: str | None
) -> None:
    database.sql("delete from ittybit.rules")
    try:
        database.rule(task={"kind": "video", "destination": template})
    except psycopg.errors.InvalidParameterValue:
        return
    address = database.value("select ittybit.render_destination(%s, %s, %s, %s)", template, name, version, owner)
    if address is not None:
        bucket = template.removeprefix("s3://").partition("/")[0]
        assert address.startswith(f"s3://{bucket}/")
        check_destination(address)


@given(path=TEXTS.filter(bool), mimetype=TEXTS, prefix=TEXTS, automation=TEXTS, bucket=TEXTS)
@pytest.mark.usefixtures("database")
def test_a_rule_is_accepted_or_refused_and_never_breaks_an_upload(
    database: Project, path: str, mimetype: str, prefix: str, automation: str, bucket: str
) -> None:
    columns = {"path": path, "mimetype": mimetype, "output_prefix": prefix, "automation_id": automation}
    database.sql("delete from ittybit.rules")
    with suppress(psycopg.errors.CheckViolation, psycopg.errors.InvalidRegularExpression, Refused):
        database.rule(bucket_id=bucket, **columns)
    with suppress(psycopg.errors.CheckViolation, psycopg.errors.InvalidRegularExpression):
        database.rule("path", path=path)
    with suppress(psycopg.errors.CheckViolation, psycopg.errors.InvalidRegularExpression):
        database.rule("type", mimetype=mimetype)
    with suppress(psycopg.errors.CheckViolation):
        database.rule("prefix", output_prefix=prefix)
    database.put("a/b.mp4", mimetype="video/mp4")
    assert database.warnings == []
    database.delete("a/b.mp4")
