"""Running the ffmpeg of the wheel ``imageio-ffmpeg``, never longer than the server lives."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg

from local.ittybit_server import probing
from local.ittybit_server.errors import StoppedError, TaskError


class Ffmpeg:
    """Starts ffmpeg processes and ends them all on ``stop``; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._running: set[subprocess.Popen[str]] = set()

    def probe(self, path: Path) -> probing.Media:
        """What the file holds; nothing, if it is no media that ffmpeg knows."""
        _, text = self._execute(["-i", path.name], path.parent, lambda _: None)
        return probing.parse(text)

    def run(
        self,
        arguments: list[str],
        directory: Path,
        *,
        seconds: float | None,
        progress: Callable[[float], None],
    ) -> None:
        """Encode.

        Args:
            arguments: Inputs and outputs, as names relative to the directory so that no message shows a path.
            directory: Where it runs.
            seconds: The expected length of the output; None if unknown, and then no progress is told.
            progress: Called with the share that is done, 0 to 1, several times a second.

        Raises:
            TaskError: ffmpeg failed; ``format_unsupported`` with its last words.
            StoppedError: ``stop`` was called.
        """

        def note(line: str) -> None:
            name, _, value = line.strip().partition("=")
            if seconds and name == "out_time_us" and value.isdecimal():
                progress(min(int(value) / 1_000_000 / seconds, 1))

        report = ["-loglevel", "error", "-nostats", "-stats_period", "0.1", "-progress", "pipe:1", "-y"]
        code, text = self._execute([*report, "-filter_threads", "1", *arguments], directory, note)
        if code:
            last = text.strip().splitlines()[-1:] or [f"ffmpeg ended with {code}"]
            raise TaskError("format_unsupported", f"The source could not be encoded: {last[0]}")

    def stop(self) -> None:
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _execute(self, arguments: list[str], directory: Path, each_line: Callable[[str], None]) -> tuple[int, str]:
        # Only files: a playlist sent as a source must not make ffmpeg fetch from anywhere.
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-protocol_whitelist", "file"]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            with self._lock:
                if self._stopped:
                    raise StoppedError
                process = subprocess.Popen(
                    [*command, *arguments], cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True
                )
                self._running.add(process)
            try:
                with process:
                    for line in process.stdout or ():
                        each_line(line)
            finally:
                with self._lock:
                    self._running.discard(process)
            if self._stopped:
                raise StoppedError
            log.seek(0)
            return process.returncode, log.read()
