"""Path globs and media types, as the rules in the database read them (ittybit.glob_pattern, .mimetype_pattern).

Strangers choose what is matched, and ``re`` tries all ways through several stars one after another, for hours. Here
they are followed at the same time, which takes no longer than the text is long times the pattern.
"""

from __future__ import annotations

import functools
import re
import string
from typing import NamedTuple, TypeAlias


class _Part(NamedTuple):
    """One character of a pattern, or a star: any number of characters but those refused."""

    literal: str = ""
    refused: str = ""
    repeats: bool = False

    def takes(self, character: str) -> bool:
        return character == self.literal if self.literal else character not in self.refused


_Parts: TypeAlias = tuple[_Part, ...]

# Of ASCII alone: what else has two cases differs between Unicode's versions and a database's locales.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def matches_path(glob: str, path: str) -> bool:
    """Whether the whole path fits: ``*`` stops at ``/``, ``**`` does not, nothing else is special."""
    return _fits(_path_parts(glob), path)


def matches_mimetype(pattern: str, mimetype: str) -> bool:
    """Whether a media type such as ``video/mp4; codecs=avc1`` fits a pattern such as ``video/*``."""
    claimed = mimetype.translate(_LOWER)
    bare = (*_mimetype_parts(pattern.translate(_LOWER)), _Part(" ", repeats=True))
    return _fits(bare, claimed) or _fits((*bare, _Part(";"), _Part(repeats=True)), claimed)


@functools.cache
def _path_parts(glob: str) -> _Parts:
    stars = {"*": _Part(refused="/", repeats=True), "**": _Part(repeats=True)}
    # A run of stars is one star.
    return tuple(stars.get(part[:2]) or _Part(part) for part in re.findall(r"\*+|[^*]", glob))


@functools.cache
def _mimetype_parts(pattern: str) -> _Parts:
    star = (_Part(refused="/; "), _Part(refused="/; ", repeats=True))
    return tuple(part for character in pattern for part in (star if character == "*" else (_Part(character),)))


def _fits(parts: _Parts, text: str) -> bool:
    """Whether some way leads through all parts along the whole text; a place is how many parts are behind."""
    places = _past_stars(parts, {0})
    for character in text:
        taken = ((place, parts[place]) for place in places if place < len(parts))
        places = _past_stars(
            parts, {place if part.repeats else place + 1 for place, part in taken if part.takes(character)}
        )
    return len(parts) in places


def _past_stars(parts: _Parts, places: set[int]) -> set[int]:
    """Add what is reached when a star, or one after the other, takes nothing more."""
    reached = set(places)
    for place in places:
        after = place
        while after < len(parts) and parts[after].repeats:
            after += 1
            reached.add(after)
    return reached
