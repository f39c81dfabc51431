"""The project's documents as the tests read them: blocks of code, sections, tables."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from local.functions import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]

# The reader replaces these placeholders.
_PLACEHOLDERS = {
    "auto_…": "auto_1",
    "<FUNCTIONS_SECRET>": "whsec_" + base64.b64encode(b"a secret of the tests, 32 bytes.").decode(),
}


def blocks(text: str, language: str) -> list[str]:
    """Every block of code in a language, its placeholders filled in."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [filled(block) for block in found]


def filled(text: str) -> str:
    """The text with its placeholders filled in."""
    for placeholder, value in _PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return text


def sections(text: str) -> dict[str, str]:
    """Each section's text by its heading, of any level; the text before the first heading is under the empty one."""
    parts = re.split(r"^#+ (.*)\n", "\n" + text, flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


def tables(text: str) -> list[list[list[str]]]:
    """Every table, as rows of cells; the first row is the head."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[_cells(line) for line in table.splitlines() if not line.startswith("|---")] for table in found]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def code(cell: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def name(path: Path) -> str:
    """A document's name, as the id of a test."""
    return path.name
