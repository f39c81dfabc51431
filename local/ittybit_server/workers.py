"""The threads that take tasks through their states, parents before children and siblings side by side."""

from __future__ import annotations

import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from local.ittybit_server.errors import StoppedError, TaskError
from local.ittybit_server.processing import Processing
from local.ittybit_server.records import Records, Run, Status, Task

_log = logging.getLogger(__name__)


class Workers:
    """As many threads as tasks may be under way at once."""

    def __init__(self, records: Records, processing: Processing, count: int) -> None:
        self._records = records
        self._processing = processing
        self._threads = ThreadPoolExecutor(count)
        self._waiting: list[Task] | None = []
        """Tasks that were submitted before ``start``; None after it."""

    def start(self) -> None:
        """Start the work that was submitted so far."""
        with self._records.lock:
            waiting, self._waiting = self._waiting or [], None
            for task in waiting:
                self._put(task)

    def submit(self, run: Run) -> None:
        """Queue the tasks of a run's first level."""
        for task in run.tasks:
            if task.parent is None:
                self._put(task)

    def stop(self) -> None:
        """End the threads; the tasks under way become ``cancelled``, the others stay as they are."""
        self._processing.stop()
        self._threads.shutdown(cancel_futures=True)
        self._processing.close()

    def _put(self, task: Task) -> None:
        if self._waiting is not None:
            self._waiting.append(task)
            return
        with contextlib.suppress(RuntimeError):  # stopped meanwhile
            self._threads.submit(self._carry_out, task)

    def _carry_out(self, task: Task) -> None:
        self._begin(task)
        try:
            self._processing.carry_out(task)
        except TaskError as error:
            self._end(task, "failed", {"kind": error.kind, "message": error.message})
        except StoppedError:
            self._end(task, "cancelled", None)
        except Exception:  # noqa: BLE001 - a fault here must end the task, not the thread
            _log.exception("task %s failed", task.id)
            self._end(task, "failed", {"kind": "internal_error", "message": "Something went wrong."})
        else:
            self._end(task, "succeeded", None)

    def _begin(self, task: Task) -> None:
        with self._records.lock:
            task.move("validating")
            task.started_at = task.updated_at

    def _end(self, task: Task, status: Status, error: dict[str, str] | None) -> None:
        with self._records.lock:
            self._settle(task, status, error)
            if status == "succeeded":
                task.progress = 100
                for child in task.children:
                    self._put(child)
            else:
                for below in _descendants(task):
                    self._settle(below, "cancelled", None)
            ended = task.run.ended
        if ended:
            self._processing.forget(task.run.id)

    def _settle(self, task: Task, status: Status, error: dict[str, str] | None) -> None:
        task.status, task.error = status, error
        task.finished_at = task.updated_at = time.time()


def _descendants(task: Task) -> list[Task]:
    return [below for child in task.children for below in (child, *_descendants(child))]
