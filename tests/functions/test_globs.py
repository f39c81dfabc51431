from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.globs import matches_mimetype, matches_path

# The database's globs are tested with the same vectors.
VECTORS: dict[str, list[list[Any]]] = json.loads((Path(__file__).parents[1] / "vectors" / "globs.json").read_text())


def test_a_glob_means_what_the_vectors_say() -> None:
    assert [case for case in VECTORS["paths"] if matches_path(case[0], case[1]) is not case[2]] == []


def test_a_media_type_means_what_the_vectors_say() -> None:
    assert [case for case in VECTORS["mimetypes"] if matches_mimetype(case[0], case[1]) is not case[2]] == []


@pytest.mark.timeout(20)  # to try every way to match these would take for ever
@pytest.mark.parametrize(
    "glob", ["**a**a**a**a**a**a**a**a**c", "*a" * 60 + "c", "**/**/**/**/**/c", "**a*b" * 30 + "c"]
)
@pytest.mark.parametrize("piece", ["a", "/", "ab", "a/"])
def test_no_name_makes_a_glob_slow(glob: str, piece: str) -> None:
    assert matches_path(glob, (piece * 1024)[:1024]) is False
    assert matches_mimetype(glob, (piece * 1024)[:1024]) is False


@given(st.text(st.characters(exclude_characters="*")))
def test_a_glob_without_a_star_matches_only_the_same_path(path: str) -> None:
    assert matches_path(path, path)
    assert not matches_path(path, path + "x")
    assert matches_path("**", path)
    assert matches_path("*", path) is ("/" not in path)
