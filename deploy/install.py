"""Install pinned requirements into a virtual environment: ``python3 -m deploy.install STAMP REQUIREMENTS``.

The Makefile runs it; in a terminal it shows a bar. STAMP is a file in the environment's folder, written at the end. If
several processes run this at once, one installs and the others wait. It also starts on a Python 3 that is too old, and
says so.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.output import Screen

OLDEST = (3, 11)


def main(stamp: Path, requirements: Path) -> str | None:
    """Install, unless another process has done so meanwhile; return the error, if any."""
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
        return f"{requirements} could not be installed into {folder}: see the error above"
    return None


def _is_newer(stamp: Path, requirements: Path) -> bool:
    return stamp.exists() and stamp.stat().st_mtime >= requirements.stat().st_mtime


def _install(folder: Path, requirements: Path) -> None:
    python, file = str(folder / "bin" / "python"), str(requirements)
    if shutil.which("uv"):
        _run("uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder))
        command: tuple[str, ...] = ("uv", "pip", "install", "--compile-bytecode", "--python", python, "-r", file)
    else:
        _run(sys.executable, "-m", "venv", str(folder))
        command = (python, "-m", "pip", "install", "--disable-pip-version-check", "-r", file)
    with Screen(sys.stderr) as screen:
        if screen.is_live:
            _run_with_bar(screen, folder, requirements.read_text(), command)
        else:
            _run(*command, "--quiet")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env=_environment())


def _environment() -> dict[str, str]:
    """The variables of this process, without those that a shell has set for another virtual environment."""
    return {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}


def _run_with_bar(screen: Screen, folder: Path, pinned: str, command: tuple[str, ...]) -> None:
    with tempfile.NamedTemporaryFile() as log:
        with subprocess.Popen(command, env=_environment(), stdout=log, stderr=log) as process:
            while process.poll() is None:
                output = Path(log.name).read_text(errors="replace")
                installed = len(list(folder.glob("lib/python*/site-packages/*.dist-info")))
                screen.bar("installing", 0.6 * _fetched(output, pinned) + 0.4 * installed / (pinned.count("==") + 1))
                time.sleep(0.1)
        screen.clear()
        if process.returncode:
            sys.stderr.write(Path(log.name).read_text(errors="replace")[-4000:])
            raise subprocess.CalledProcessError(process.returncode, command)


def _fetched(output: str, pinned: str) -> float:
    """The share of packages that is downloaded, from 0 to 1: pip names the line that it is at, uv each large file."""
    if re.search("^(Prepared|Installing) ", output, re.MULTILINE):
        return 1
    if lines := re.findall(r"\(line (\d+)\)\)", output):
        return int(lines[-1]) / (pinned.count("\n") + 1)
    return output.count(" Downloaded ") / (output.count("\nDownloading ") or 1)


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
