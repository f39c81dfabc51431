from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.globs import matches_mimetype, matches_path

# The rules of the database are held to the same.
VECTORS: dict[str, list[list[Any]]] = json.loads((Path(__file__).parents[1] / "vectors" / "globs.json").read_text())


@pytest.mark.parametrize(("glob", "path", "expected"), VECTORS["paths"])
def test_a_glob_means_what_the_vectors_say(glob: str, path: str, expected: bool) -> None:
    assert matches_path(glob, path) is expected


@pytest.mark.parametrize(("pattern", "mimetype", "expected"), VECTORS["mimetypes"])
def test_a_media_type_means_what_the_vectors_say(pattern: str, mimetype: str, expected: bool) -> None:
    assert matches_mimetype(pattern, mimetype) is expected


@given(st.text(st.characters(exclude_characters="*")))
def test_a_glob_without_a_star_is_the_path_itself(path: str) -> None:
    assert matches_path(path, path)
    assert not matches_path(path, path + "x")
    assert matches_path("**", path)
    assert matches_path("*", path) is ("/" not in path)
