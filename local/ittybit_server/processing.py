"""The work of one task: fetch the source, probe it, encode it, deliver the result.

Every file of a task lies in a folder of its own below the run's, and children read their parent's output
there or where it was published. ``adaptive_video`` writes many files: with a ``destination`` that ends in
``.m3u8`` that is the playlist's key and the other files go beside it; any other key is taken for the folder
that holds them all. The documents do not say.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from local.ittybit_server.addresses import Address
from local.ittybit_server.errors import RequestError, TaskError
from local.ittybit_server.media_file import Media, probe
from local.ittybit_server.options import AdaptiveVideoOptions, Encoded, IngestOptions, UploadOptions, read_options
from local.ittybit_server.records import Connection, File, Records, Status, Task
from local.ittybit_server.transcoding import transcode
from local.ittybit_server.transfer import Transfer, filename, mimetype


class Processing:
    """Carries out tasks, one per call of ``carry_out``, which may be called from several threads."""

    def __init__(self, records: Records, directory: Path, *, encode: bool) -> None:
        self._records = records
        self._work = directory / "work"
        self._results = directory / "results"
        self._encode = encode
        self._stopped = threading.Event()
        self._transfer = Transfer(self._stopped)

    def stop(self) -> None:
        """Stop encoding and transfers: running ones end with ``StoppedError``."""
        self._stopped.set()

    def close(self) -> None:
        """Close idle connections and remove temporary files, once no thread uses this any more."""
        self._transfer.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def forget(self, run_id: str) -> None:
        """Remove a run's temporary files."""
        shutil.rmtree(self._work / run_id, ignore_errors=True)

    def carry_out(self, task: Task) -> None:
        """Take a task from ``validating`` to the end of ``finishing``.

        Raises:
            TaskError: It fails.
            StoppedError: ``stop`` was called.
        """
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
        """The task's source, which becomes its input, and where the file is."""
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
        """Put the output where it belongs; the task's output tells where."""
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
        """Write the output, after the files that belong to it: its key appears when all is there."""
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
            except RequestError as error:  # deleted since
                raise TaskError(error.kind, error.message) from error
