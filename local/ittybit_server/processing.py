"""The work on tasks: fetch the source, probe it, encode it, deliver the result.

Each task has a folder of its own below its run's. Children read their parent's output there, or among the results if
it stays at this server. ``adaptive_video`` writes many files. The documents do not say where, so chosen here: a
``destination`` that ends in ``.m3u8`` is the playlist's key, and the other files go next to it; any other key is the
folder for all of them.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from local.ittybit_server.addresses import Address
from local.ittybit_server.errors import RequestError, StoppedError, TaskError
from local.ittybit_server.media_file import Media, probe
from local.ittybit_server.options import AdaptiveVideoOptions, Encoded, IngestOptions, UploadOptions, read_options
from local.ittybit_server.records import Connection, File, Records, Run, Status, Task
from local.ittybit_server.transcoding import transcode
from local.ittybit_server.transfer import Transfer, filename, mimetype

_log = logging.getLogger(__name__)


class Processing:
    """Runs tasks: parents before children, siblings in parallel.

    Args:
        records: The tasks and their states.
        directory: Where results (kept) and temporary files (removed) go.
        workers: How many tasks may run at once.
        encode: Whether media are processed; if not, every task's output is its source.
    """

    def __init__(self, records: Records, directory: Path, *, workers: int, encode: bool) -> None:
        self._records = records
        self._work = directory / "work"
        self._results = directory / "results"
        self._encode = encode
        self._stopped = threading.Event()
        self._transfer = Transfer(self._stopped)
        self._threads = ThreadPoolExecutor(workers)
        self._waiting: list[Task] | None = []
        """Tasks that wait for ``start``; None when none has to."""

    def pause(self) -> None:
        """Cancel the tasks that wait, and let new ones wait for ``start``; the others go on."""
        with self._records.lock:
            waiting, self._waiting = self._waiting or [], []
            for task in waiting:
                self._end(task, "cancelled", None)

    def start(self) -> None:
        """Start the work that waits."""
        with self._records.lock:
            waiting, self._waiting = self._waiting or [], None
            for task in waiting:
                self._queue(task)

    def submit(self, run: Run) -> None:
        """Queue the tasks of a run's first level."""
        for task in run.tasks:
            if task.parent is None:
                self._queue(task)

    def stop(self) -> None:
        """End the threads and remove temporary files. Running tasks become ``cancelled``; others keep their state."""
        self._stopped.set()
        self._threads.shutdown(cancel_futures=True)
        self._transfer.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def _queue(self, task: Task) -> None:
        if self._waiting is not None:
            self._waiting.append(task)
            return
        with contextlib.suppress(RuntimeError):  # stopped meanwhile
            self._threads.submit(self._carry_out, task)

    def _carry_out(self, task: Task) -> None:
        with self._records.lock:
            task.move("validating")
            task.started_at = task.updated_at
        try:
            self._process(task)
        except TaskError as error:
            self._end(task, "failed", {"kind": error.kind, "message": error.message})
        except StoppedError:
            self._end(task, "cancelled", None)
        except Exception:  # noqa: BLE001 - an error here must end the task, not the thread
            _log.exception("task %s failed", task.id)
            self._end(task, "failed", {"kind": "internal_error", "message": "Something went wrong."})
        else:
            self._end(task, "succeeded", None)

    def _end(self, task: Task, status: Status, error: dict[str, str] | None) -> None:
        with self._records.lock:
            self._settle(task, status, error)
            if status == "succeeded":
                task.progress = 100
                for child in task.children:
                    self._queue(child)
            else:
                for below in _descendants(task):
                    self._settle(below, "cancelled", None)
            ended = task.run.ended
        if ended:
            shutil.rmtree(self._work / task.run.id, ignore_errors=True)

    def _settle(self, task: Task, status: Status, error: dict[str, str] | None) -> None:
        task.status, task.error = status, error
        task.finished_at = task.updated_at = time.time()

    def _process(self, task: Task) -> None:
        """Take a task from ``validating`` to the end of ``finishing``."""
        options = read_options(task.kind, task.options)
        if not isinstance(options, Encoded | IngestOptions | UploadOptions):
            raise TaskError("format_unsupported", f"This ittybit runs on a laptop: it has no {task.kind}.")
        folder = self._work / task.run.id / task.id
        output_folder = folder / "out"
        output_folder.mkdir(parents=True)
        source, path = self._source(task, folder)
        self._move(task, "queued")
        self._move(task, "processing")
        if isinstance(options, Encoded) and self._encode:
            hls = isinstance(options, AdaptiveVideoOptions)
            output = output_folder / ("master.m3u8" if hls else f"{Path(source.filename).stem}.{options.format}")
            transcode(path, options, output, self._stopped, lambda part: self._note(task, part))
        elif task.parent:
            shutil.copytree(path.parent, output_folder, dirs_exist_ok=True)
            output = output_folder / path.name
        else:
            output = path.rename(output_folder / source.filename)
        self._move(task, "finishing")
        self._deliver(task, output)

    def _source(self, task: Task, folder: Path) -> tuple[File, Path]:
        """Get the task's source and record it as its input; return it and its path."""
        if task.parent and task.parent.output and task.parent.output_path:
            source, path = replace(task.parent.output, kind="internal"), task.parent.output_path
        elif task.input:
            path = folder / "source"
            self._transfer.fetch(task.input.url, self._connection(task.connection_id), path)
            source = replace(task.input, filesize=path.stat().st_size, media=self._probe(path))
        else:
            raise RuntimeError("a task was started without a source")
        with self._records.lock:
            task.input = source
        return source, path

    def _probe(self, path: Path) -> Media:
        return probe(path) if self._encode else Media()

    def _deliver(self, task: Task, output: Path) -> None:
        """Write the output to the destination, or keep it as a result; record where it is in the task."""
        media = self._probe(output)
        size = output.stat().st_size
        if task.destination:
            connection = self._connection(task.destination_connection_id)
            address = self._put(output, Address.parse(task.destination), connection)
            url, name = str(address), filename(str(address))
        else:
            token = secrets.token_urlsafe(16)
            output.parent.rename(self._results / token)
            output = self._results / token / output.name
            url, name = f"/results/{token}/{quote(output.name)}", output.name
        with self._records.lock:
            task.output_path = output
            task.output = File("url" if task.destination else "internal", url, name, size, mimetype(output.name), media)

    def _put(self, output: Path, place: Address, connection: Connection | None) -> Address:
        """Write the output after the files that belong to it: once its key exists, they all exist."""
        others = [path for path in output.parent.rglob("*") if path.is_file() and path != output]
        main = place
        if place.key.endswith("/") or (others and not place.key.endswith(".m3u8")):
            main = Address(place.bucket, f"{place.key.rstrip('/')}/{output.name}")
        for path in sorted(others):
            key = f"{main.folder}{path.relative_to(output.parent).as_posix()}"
            self._transfer.put(path, connection, Address(place.bucket, key))
        self._transfer.put(output, connection, main)
        return main

    def _move(self, task: Task, status: Status) -> None:
        with self._records.lock:
            task.move(status)

    def _note(self, task: Task, part: float) -> None:
        with self._records.lock:
            task.progress = max(task.progress, min(100 * part, 99))
            task.updated_at = time.time()

    def _connection(self, connection_id: str | None) -> Connection | None:
        with self._records.lock:
            try:
                return self._records.connection(connection_id)
            except RequestError as error:  # deleted after the start
                raise TaskError(error.kind, error.message) from error


def _descendants(task: Task) -> list[Task]:
    return [below for child in task.children for below in (child, *_descendants(child))]
