"""Path globs and media types, matched as the database's rules match them (ittybit.glob_pattern, .mimetype_pattern).

Uploaders choose the names, and ``re`` can take hours to try all ways through several stars. So each star but the last
is an atomic group that takes as little as it can. That loses no match: the next star begins earlier, and can take more.
"""

from __future__ import annotations

import functools
import re
import string

# ASCII alone: the cases of other letters differ between Unicode versions and database locales.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def matches_path(glob: str, path: str) -> bool:
    """Whether the whole path fits: ``*`` stops at ``/``, ``**`` does not, nothing else is special."""
    return _path(glob).fullmatch(path) is not None


def matches_mimetype(pattern: str, mimetype: str) -> bool:
    """Whether a media type such as ``video/mp4; codecs=avc1`` fits a pattern such as ``video/*``."""
    return _mimetype(pattern.translate(_LOWER)).fullmatch(mimetype.translate(_LOWER)) is not None


@functools.cache
def _path(glob: str) -> re.Pattern[str]:
    # Three or more stars are the same as ``**``.
    *parts, last = re.split(r"\*\*+", glob)
    chains = [_chain(_literals(part), "[^/]*?") for part in parts]
    return re.compile(_chain([*chains, _chain(_literals(last), "[^/]*?", ends=True)], ".*?", ends=True), re.DOTALL)


@functools.cache
def _mimetype(pattern: str) -> re.Pattern[str]:
    return re.compile(_chain(_literals(pattern), "[^/; ]+?", ends=True) + " *(?:;.*)?", re.DOTALL)


def _literals(pattern: str) -> list[str]:
    return [re.escape(literal) for literal in pattern.split("*")]


def _chain(pieces: list[str], star: str, *, ends: bool = False) -> str:
    """Join the pieces with stars. At the end of the text the last star is not atomic, so that it can reach the end."""
    groups = [f"(?>{star}{piece})" for piece in pieces[1:]]
    if ends and groups:
        groups[-1] = f"{star}{pieces[-1]}"
    return pieces[0] + "".join(groups)
