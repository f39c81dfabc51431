from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.clone import Clone


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A clone of the project, with no settings and no commands yet."""
    return Clone(tmp_path)
