"""Functions as a host serves them: only what is deployed is installed, all of it byte-compiled, on one core.

The interpreter is that of ``build/deployed``, created once with requirements.txt alone: next to the development tools,
httpx would import a command line that no host has. (``small`` runs use the current environment.)
"""

from __future__ import annotations

import compileall
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from bench.side_by_side import SERVING, pin
from local.functions import ROOT, stage

SECRET = "whsec_" + "A" * 44
TOKEN = "the-token-of-the-benchmarks"  # noqa: S105 - made up
_VENV = ROOT / "build" / "deployed"


@dataclass(frozen=True)
class Function:
    """A function to serve: its name in error texts, its file and its target."""

    name: str
    source: Path
    target: str


ON_UPLOAD = Function("on-upload", ROOT / "build" / "on-upload" / "main.py", "on_upload")
ONE_LINE = Function("one line", Path(__file__).parent / "baseline" / "one_line.py", "one_line")
THREE_CALLS = Function("three calls", Path(__file__).parent / "baseline" / "three_calls.py", "on_call")
BOUND = Function("bound", Path(__file__).parent / "baseline" / "bound.py", "on_signed_call")


def deployed(*, small: bool) -> Path:
    """Stage and byte-compile everything; return the folder with the programs that serve it."""
    stage()
    for function in (ON_UPLOAD, ONE_LINE, THREE_CALLS, BOUND):
        compileall.compile_dir(function.source.parent, quiet=1)
    if small:
        return Path(sys.executable).parent
    mark, wanted = _VENV / "installed", ROOT / "requirements.txt"
    if not mark.exists() or mark.read_text() != wanted.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_VENV)], check=True)
        install = [str(_VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        made = subprocess.run([*install, "--requirement", str(wanted)], check=False, capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"requirements.txt could not be installed:\n{made.stderr}")
        shutil.copyfile(wanted, mark)
    return _VENV / "bin"


def environment(upstream: str) -> dict[str, str]:
    """Return the functions' environment, in which every address is the upstream's."""
    return {
        "ITTYBIT_API_KEY": "ittybit_key_of_the_benchmarks",
        "ITTYBIT_API_URL": upstream,
        "ITTYBIT_API": "automations",
        "SUPABASE_URL": upstream,
        "SUPABASE_SECRET_KEY": "sb_secret_bench",
        "FUNCTIONS_SECRET": SECRET,
        "FUNCTIONS_TOKEN": TOKEN,
    }


class Serving:
    """One function under the functions-framework console script, on one core, until the ``with`` block ends."""

    def __init__(
        self, programs: Path, function: Function, settings: Mapping[str, str], *, threads: int = 16, core: int = SERVING
    ) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port: int = listener.getsockname()[1]
        command = [str(programs / "functions-framework"), f"--source={function.source}", f"--target={function.target}"]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._process = subprocess.Popen(
            [*command, "--host=127.0.0.1", f"--port={self.port}"],
            cwd=function.source.parent,
            env={**inherited, **settings, "THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        pin(core, self._process.pid)

    @property
    def url(self) -> str:
        """The address that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def processes(self) -> list[int]:
        """The master and its workers."""
        return [self._process.pid, *(child.pid for child in psutil.Process(self._process.pid).children())]

    def first_answer(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Call until it answers, and return the status of its first answer; raise RuntimeError if it ends."""
        while self._process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("POST", "/", body, dict(headers))
                return connection.getresponse().status
            except ConnectionError:
                time.sleep(0.002)
            finally:
                connection.close()
        raise RuntimeError(f"the function ended with {self._process.returncode}")

    def memory(self) -> int:
        """Its memory in bytes, with its proportional share of shared pages (PSS)."""
        return sum(psutil.Process(process).memory_full_info().pss for process in self.processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
