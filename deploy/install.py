"""Install what a requirements file pins into a virtual environment: ``python3 deploy/install.py STAMP REQUIREMENTS``.

The Makefile runs it. STAMP is a file in the environment's folder, written at the end. Of several that are run at once,
one installs and the others wait. Any Python 3 runs this far enough to say that it is too old.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)


def main(stamp: Path, requirements: Path) -> str | None:
    """Install, unless another process has done so meanwhile; return what went wrong."""
    if sys.version_info < OLDEST:
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return f"Python 3.11 or newer is needed, this is {found}: make PYTHON=python3.12 …"
    folder = stamp.parent
    try:
        with Path(__file__).open() as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            if not _is_newer(stamp, requirements):
                print(f"installing {requirements} into {folder} (once)", file=sys.stderr)
                folder.mkdir(parents=True, exist_ok=True)
                _install(folder, requirements)
                stamp.touch()
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
    except subprocess.CalledProcessError:
        return f"{requirements} could not be installed into {folder}, as is said above"
    return None


def _is_newer(stamp: Path, requirements: Path) -> bool:
    return stamp.exists() and stamp.stat().st_mtime >= requirements.stat().st_mtime


def _install(folder: Path, requirements: Path) -> None:
    python, file = str(folder / "bin" / "python"), str(requirements)
    if shutil.which("uv"):
        _run("uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder))
        _run("uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", file)
    else:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", file)


def _run(*command: str) -> None:
    # What a shell has set for another environment is not for this one.
    others = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
    subprocess.run(command, check=True, env=others)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
