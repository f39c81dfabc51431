"""Globs, patterns of media types, safe keys and destination templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from tests.database.project import Project

VECTORS: dict[str, list[list[Any]]] = json.loads((Path(__file__).parents[1] / "vectors" / "globs.json").read_text())

# The characters that storage-api's isValidKey accepts, and others.
SAFE = "ABCXYZabcxyz0189_/!.*'() &$@=;:+,?-"
UNSAFE = '%#~[]{}|\\"<>^`\t\n\x7fé日'


def matches(database: Project, function: str, pattern: str, text: str) -> bool:
    return bool(database.value(f"select %s ~ ittybit.{function}(%s)", text, pattern))


def test_a_glob_means_what_the_vectors_say(database: Project) -> None:
    paths = VECTORS["paths"]
    assert [case for case in paths if matches(database, "glob_pattern", case[0], case[1]) is not case[2]] == []


def fits_mimetype(database: Project, pattern: str, mimetype: str) -> bool:
    compiled = database.value("select ittybit.mimetype_pattern(%s)", pattern)
    like = database.value("select ittybit.glob_like(lower(%s::text collate \"C\")) || '%%'", pattern)
    rule = Jsonb({"path_pattern": "", "path_like": "%", "mimetype_pattern": compiled, "mimetype_like": like})
    fits = "select ittybit.fits(jsonb_populate_record(null::ittybit.rules, %s), 'a', %s)"
    return bool(database.value(fits, rule, Jsonb({"mimetype": mimetype})))


def test_a_media_type_means_what_the_vectors_say(database: Project) -> None:
    mimetypes = VECTORS["mimetypes"]
    assert [case for case in mimetypes if fits_mimetype(database, case[0], case[1]) is not case[2]] == []


def reference(glob: str, path: str) -> bool:
    """Match by the definition, one character at a time, without regular expressions."""
    reachable = {0}
    position = 0
    while position < len(glob):
        deep = glob.startswith("**", position)
        if glob[position] == "*":
            position += 2 if deep else 1
            spread = set(reachable)
            for start in reachable:
                for end in range(start, len(path)):
                    if path[end] == "/" and not deep:
                        break
                    spread.add(end + 1)
            reachable = spread
        else:
            reachable = {at + 1 for at in reachable if at < len(path) and path[at] == glob[position]}
            position += 1
    return len(path) in reachable


PIECES = st.sampled_from(["a", "b", "/", "*", "**", ".", "?", "+", "(", ")", "$", "\\", "[", "]", "^", "{", "|"])
GLOBS = st.lists(PIECES, min_size=1, max_size=8).map("".join)
PATHS = st.lists(st.sampled_from("ab/.?+()$"), max_size=10).map("".join)


@given(glob=GLOBS, path=PATHS)
def test_a_glob_matches_as_the_definition_says(database: Project, glob: str, path: str) -> None:
    assert matches(database, "glob_pattern", glob, path) == reference(glob, path)


STRANGE = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "%", "_", "\\", "."]), min_size=1, max_size=8)


@given(glob=STRANGE.map("".join), path=st.text("ab/%_\\.", max_size=8))
def test_the_like_before_a_glob_passes_all_that_the_glob_matches(database: Project, glob: str, path: str) -> None:
    passes = database.value("select %s::text like ittybit.glob_like(%s)", path, glob)
    if "*" in glob.replace("**", ""):
        assert passes or not reference(glob, path)
    else:
        assert passes == reference(glob, path)


@given(path=st.text(SAFE + UNSAFE, min_size=1, max_size=12))
def test_a_glob_without_stars_matches_only_itself(database: Project, path: str) -> None:
    glob = path.replace("*", "x")
    assert matches(database, "glob_pattern", glob, glob)
    assert not matches(database, "glob_pattern", glob, glob + "a")
    assert not matches(database, "glob_pattern", glob, "a" + glob)


def is_safe_key(database: Project, key: str) -> bool:
    return bool(database.value("select ittybit.is_safe_key(%s)", key))


def test_a_key_may_have_only_the_characters_that_supabase_accepts(database: Project) -> None:
    ascii_and_more = [chr(code) for code in range(1, 128)] + list("éßЯ日\u200b😀")
    refused = {character for character in ascii_and_more if not is_safe_key(database, f"a{character}b")}
    accepted = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/!.*'() &$@=;:+,?-")
    assert refused == set(ascii_and_more) - accepted


def test_a_key_with_empty_or_dot_parts_is_unsafe(database: Project) -> None:
    safe = ["a", "a" * 1024, "a/b", "a/", "...", "a..b/c..", ".hidden/.a"]
    assert [key for key in safe if not is_safe_key(database, key)] == []
    unsafe = ["", "a" * 1025, "/a", "a//b", ".", "..", "../a", "a/..", "a/./b", "a/../b"]
    assert [key for key in unsafe if is_safe_key(database, key)] == []


def render(database: Project, template: str, name: str, version: str | None = "v1", owner: str | None = None) -> Any:
    return database.value("select ittybit.render_destination(%s, %s, %s, %s)", template, name, version, owner)


DESTINATIONS = [
    ("s3://r/{dir}{stem}.mp4", "clips/a.mov", "s3://r/clips/a.mp4"),
    ("s3://r/{dir}{stem}.mp4", "a.mov", "s3://r/a.mp4"),
    ("s3://r/{dir}{stem}.mp4", "x/y/z.tar.gz", "s3://r/x/y/z.tar.mp4"),
    ("s3://r/{stem}-{ext}", "clips/a.MOV", "s3://r/a-MOV"),
    ("s3://r/{stem}-{ext}.x", "clips/README", "s3://r/README-.x"),
    ("s3://r/{stem}-{ext}.x", "clips/.profile", "s3://r/.profile-.x"),
    ("s3://r/{name}", "clips/a.mov", "s3://r/clips/a.mov"),
    ("s3://r/{version}/{stem}", "clips/a.mov", "s3://r/v1/a"),
    ("s3://r/{owner_id}/{stem}", "clips/a.mov", "s3://r/7f-Owner_1/a"),
    ("s3://r/fixed", "clips/a.mov", "s3://r/fixed"),
    ("s3://r/{stem}", "clips/{name}.mov", None),
    ("s3://r/{dir}", "clips/a.mov", None),
    ("s3://r/{dir}", "a.mov", None),
    ("s3://r/{name}", "../a.mov", None),
    ("s3://r/{dir}x", "a//b", None),
]


def test_templates_are_filled_in(database: Project) -> None:
    led = [(template, name, render(database, template, name, "v1", "7f-Owner_1")) for template, name, _ in DESTINATIONS]
    assert led == DESTINATIONS


# Templates with a version and an owner, one of which is missing or unsafe.
INCOMPLETE = [
    ("s3://r/{version}/a", None, "me"),
    ("s3://r/{owner_id}/a", "v1", None),
    ("s3://r/{owner_id}/a", "v1", ""),
    ("s3://r/{owner_id}/a", "v1", "../you"),
    ("s3://r/{owner_id}/a", "v1", "me/you"),
    ("s3://r/{owner_id}/a", "v1", "{name}"),
    ("s3://r/{owner_id}/a", "v1", "me\n"),
]


def test_a_template_with_missing_or_unsafe_values_gives_no_destination(database: Project) -> None:
    assert [case for case in INCOMPLETE if render(database, case[0], "a.mov", case[1], case[2]) is not None] == []


HOSTILE = st.lists(
    st.sampled_from(
        [*SAFE, *UNSAFE, "..", "../", "/..", "//", "{dir}", "{stem}", "{name}", "{owner_id}", "s3://x/", "\\1"]
    ),
    min_size=1,
    max_size=8,
).map("".join)
PLACEHOLDERS = st.sampled_from(["{dir}", "{stem}", "{ext}", "{name}", "{version}", "{owner_id}", "-", "/", "a"])


@given(
    tail=st.lists(PLACEHOLDERS, min_size=1, max_size=4).map("".join), name=HOSTILE, version=HOSTILE, owner_id=HOSTILE
)
@example(tail="{dir}{stem}", name="../../a", version="v", owner_id="o")
def test_no_name_makes_a_template_leave_its_folder(
    database: Project, tail: str, name: str, version: str, owner_id: str
) -> None:
    head = "s3://results/made/"
    address = render(database, head + tail, name, version, owner_id)
    if address is not None:
        assert address.startswith(head)
        assert len(address) > len(head)
        key = address.removeprefix("s3://results/")
        assert is_safe_key(database, key)
        assert not {"", ".", ".."} & set(key.split("/"))
        # Placeholders that the name contains are not filled in.
        assert "{" not in address


@given(name=st.text(SAFE, min_size=1, max_size=20))
def test_dir_stem_and_ext_together_make_the_name(database: Project, name: str) -> None:
    pieces = [render(database, f"s3://r/x{piece}x", name) for piece in ("{dir}", "{stem}", "{ext}")]
    base = name.rpartition("/")[2]
    stem, dot, ext = base.rpartition(".")
    if not stem:
        stem, dot, ext = base, "", ""
    expected = [f"s3://r/x{piece}x" for piece in (name[: len(name) - len(base)], stem, ext)]
    for piece, wanted in zip(pieces, expected, strict=True):
        assert piece is None or piece == wanted
    whole = render(database, "s3://r/x/{dir}{stem}" + dot + "{ext}", name)
    assert whole == render(database, "s3://r/x/{name}", name)
