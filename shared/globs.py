"""Path globs and media types, as the rules in the database read them (ittybit.glob_pattern, .mimetype_pattern)."""

from __future__ import annotations

import functools
import re


def matches_path(glob: str, path: str) -> bool:
    """Whether the whole path fits: ``*`` stops at ``/``, ``**`` does not, nothing else is special."""
    return _path_pattern(glob).fullmatch(path) is not None


def matches_mimetype(pattern: str, mimetype: str) -> bool:
    """Whether a media type such as ``video/mp4; codecs=avc1`` fits a pattern such as ``video/*``."""
    return _mimetype_pattern(pattern.lower()).fullmatch(mimetype.lower()) is not None


@functools.cache
def _path_pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", glob)
    special = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(special.get(part) or re.escape(part) for part in parts), re.DOTALL)


@functools.cache
def _mimetype_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile("[^/; ]+".join(map(re.escape, pattern.split("*"))) + r" *(?:;.*)?", re.DOTALL)
