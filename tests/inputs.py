"""Inputs that hypothesis makes: texts and JSON that somebody might send to break something."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# Whole Unicode, lone surrogates included: JSON can carry them as escapes.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
# The characters that PostgreSQL can store.
STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")

STEPS = ("..", ".", "/", "../", "/..", "//", "a", "%2e%2e%2f", "\\")
# fmt: off
NASTY = (
    "%00", "\0", "\n", "\r\nX-Injected: 1", "\x1b[2J", "\u202e",
    "{name}", "{dir}", "{stem}.{ext}", "{owner_id}", "s3://other/key", "https://example.com/", "*", "**", "?token=",
    "&job=x", "#", "'; drop table ittybit.jobs; --", "$1", "%s", "${PATH}", "processed/", ".ittybit/", "b.mp4",
    "é", "日本", "😀", "\u0301", "\ufeff", "\u2028", " ", '"', "<script>", "null", "NaN", "-0", "1e999", "video/mp4",
)
# fmt: on


def nasty(characters: st.SearchStrategy[str] = STORABLE, *, pieces: int = 8) -> st.SearchStrategy[str]:
    """Texts made of pieces that have a meaning somewhere, and of any others."""
    piece = st.sampled_from(NASTY) | st.sampled_from(STEPS) | st.text(characters, max_size=6)
    return st.lists(piece, max_size=pieces).map("".join)


def storable(*, pieces: int = 8) -> st.SearchStrategy[str]:
    """The same, without what PostgreSQL cannot store."""
    return nasty(pieces=pieces).map(lambda text: text.replace("\0", "\1"))


NUMBERS = st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.sampled_from([2**31, 2**63, 1e308, 1e39])
SCALARS: st.SearchStrategy[Any] = st.none() | st.booleans() | NUMBERS | ANY_TEXT | nasty()
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4), max_leaves=8
)


def some(pairs: dict[str, st.SearchStrategy[Any]], *, at_most: int = 4) -> st.SearchStrategy[dict[str, Any]]:
    """A few of these fields, drawn one by one: deciding about each of them would take longer than the test."""
    return st.lists(st.one_of(*(st.tuples(st.just(name), one) for name, one in pairs.items())), max_size=at_most).map(
        dict
    )


@st.composite
def nearly(draw: st.DrawFn, /, base: dict[str, Any], **fields: st.SearchStrategy[Any]) -> dict[str, Any]:
    """The object with a few fields changed, to plausible values or to any."""
    return base | draw(some({name: one | JSON for name, one in fields.items()}))
