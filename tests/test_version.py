"""The version is written in shared/__init__.py only. Everything that shows it reads it there."""

from __future__ import annotations

import re
import subprocess

import pytest

from local.functions import ROOT
from shared import __version__

ENTRY = re.compile(r"^## \[(\d+\.\d+\.\d+)\]|^What (\d+\.\d+\.\d+) will have:$", re.MULTILINE)


def newest(changelog: str) -> str:
    """The version of the newest entry, released or announced under Unreleased."""
    entry = ENTRY.search(changelog)
    assert entry, "CHANGELOG.md has no entry of a version"
    return entry[1] or entry[2]


def test_the_newest_entry_of_the_changelog_is_of_this_version() -> None:
    assert newest((ROOT / "CHANGELOG.md").read_text()) == __version__


@pytest.mark.parametrize(
    "changelog",
    [
        "## [Unreleased]\n\nWhat 0.2.0 will have:\n\n- it\n\n## [0.1.0] - 2027-01-01\n",
        "## [Unreleased]\n\n## [0.2.0] - 2027-02-01\n\n## [0.1.0] - 2027-01-01\n",
    ],
)
def test_an_entry_counts_whether_it_is_released_or_not(changelog: str) -> None:
    assert newest(changelog) == "0.2.0"


def test_deploy_sh_shows_the_version() -> None:
    done = subprocess.run(["./deploy.sh", "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{__version__}\n", "")
