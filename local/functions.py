"""The functions as deployed: staged by deploy.sh, each under the functions-framework console script."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from local.scratch import Watchdog

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("on-upload", "push-back", "create-connection")
# Every address of this machine.
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a function verifies every call
STARTING_SECONDS = 30.0
STOPPING_SECONDS = 10.0


# Without the environment's proxies: these are addresses of this machine.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FunctionError(RuntimeError):
    """A function cannot run or has ended; the message says why."""


def stage(*names: str) -> None:
    """Stage these, or each function, with ``./deploy.sh stage``, exactly as a deployment does.

    Raises:
        FunctionError: staging failed; the message is its error output.
    """
    command = ["./deploy.sh", "stage", *names]
    with (ROOT / "deploy.sh").open() as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FunctionError(done.stderr.strip())


class FunctionProcess:
    """One staged function in a process of its own, from construction until ``stop``.

    Attributes:
        name: such as ``on-upload``.
        url: its address on this machine.
        log: the file that holds its output.

    Args:
        host: the address to listen at, or EVERYWHERE.
        port: the port to listen at, if it is free; otherwise any free port.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], *, log: Path, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.name = name
        self.log = log
        self._environment = dict(environment)
        port = free_port(host, port)
        self.url = f"http://{'127.0.0.1' if host == EVERYWHERE else host}:{port}"
        self._folder = ROOT / "build" / name
        self._command = [
            str(Path(sys.executable).parent / "functions-framework"),
            f"--source={self._folder / 'main.py'}",
            f"--target={name.replace('-', '_')}",
            f"--host={host}",
            f"--port={port}",
        ]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**inherited, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the stack, which stops the functions in order
            )
        self._watchdog = Watchdog('kill -s KILL -- "-$1"', str(process.pid))
        return process

    def restart(self) -> None:
        """Start it again on the same port, after ``stop`` or ``kill``."""
        self._process = self._start()

    def wait_until_ready(self) -> None:
        """Return when it answers; raise FunctionError with its output when it ends or stays silent."""
        deadline = time.monotonic() + STARTING_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                _DIRECTLY.open(self.url, timeout=5)
            except urllib.error.HTTPError:
                return  # any answer will do: a GET is refused with 405
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise FunctionError(f"{self.name} did not start:\n{self._output()}")

    def check(self) -> None:
        """Return while it runs; raise FunctionError with its output when it has ended by itself."""
        if self._process.poll() is not None:
            raise FunctionError(f"{self.name} has ended:\n{self._output()}")

    def _output(self) -> str:
        return self.log.read_text(errors="replace")[-4000:].strip() or "(no output)"

    def stop(self) -> None:
        """End it as a host does: SIGTERM, so that current calls are answered; SIGKILL when that takes too long."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOPPING_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._watchdog.dismiss()

    def kill(self) -> None:
        """End it at once, with all its workers, as a host that runs out of memory does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._watchdog.dismiss()
        self._process.wait()


def free_port(host: str = "127.0.0.1", wanted: int = 0) -> int:
    """Return ``wanted`` if that port is free, or else any free port."""
    with socket.socket() as listener:
        # A port that was closed a moment ago counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return free_port(host)
        port: int = listener.getsockname()[1]
        return port
