"""Runs the functions and workers of a fault run: kills them, starts them again, and brings everything to rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Self

from local.functions import NAMES, FunctionError, FunctionProcess, stage
from local.pg_cron import PgCronWorker
from local.pg_net import PgNetWorker
from local.pg_net_http import Queued
from local.stack import Stack

# The functions that process jobs.
WORKING: Final = ("on-upload", "push-back")
# The setting THREADS of each function.
THREADS: Final = "8"
_TRIES: Final = 3
_RESTING_SECONDS: Final = 30.0


class Host:
    """The function processes, pg_net's worker and pg_cron's, for a stack that was started without them."""

    def __init__(self, stack: Stack, disturb: Callable[[list[Queued]], list[Queued]]) -> None:
        self._stack = stack
        self.pg_net = PgNetWorker(stack.postgres, disturb=disturb)
        self.pg_cron = PgCronWorker(stack.postgres)

    @classmethod
    def start(cls, stack: Stack, disturb: Callable[[list[Queued]], list[Queued]]) -> Self:
        """Start all of them and return when they answer; ``disturb`` as for ``PgNetWorker``."""
        host = cls(stack, disturb)
        try:
            stage()
            environment = {**stack.environment, "THREADS": THREADS}
            for name in NAMES:
                stack.functions[name] = FunctionProcess(name, environment, log=stack.directory / f"{name}.log")
            for name in NAMES:
                stack.functions[name].wait_until_ready()
            for name in WORKING:
                stack.sql("update ittybit.functions set url = %s where name = %s", [stack.functions[name].url, name])
            host.pg_net.start()
            host.pg_cron.start()
        except BaseException:
            host.stop()
            raise
        return host

    def kill(self, names: Iterable[str]) -> None:
        """End functions with SIGKILL, in the middle of their work."""
        for name in names:
            self._stack.functions[name].kill()

    def dismiss(self) -> None:
        """Stop the functions that process jobs; each finishes its current calls first."""
        for name in WORKING:
            self._stack.functions[name].stop()

    def bring_back(self, names: Iterable[str] = WORKING) -> None:
        """Start functions again, at their former addresses.

        Raises:
            FunctionError: one does not start.
        """
        names = list(names)
        for name in names:
            self._stack.functions[name].restart()
        for name in names:
            for attempt in range(_TRIES):
                try:
                    self._stack.functions[name].wait_until_ready()
                    break
                except FunctionError:
                    if attempt == _TRIES - 1:
                        raise
                    self._stack.functions[name].restart()

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Bring everything to rest for the block: no wake-up is sent, no function runs, no request is in progress.

        Raises:
            FunctionError: a request does not end, or a function does not start again.
        """
        self.pg_net.pause()
        self.dismiss()
        for faults in (self._stack.ittybit_api, self._stack.supabase):
            if not faults.wait_until_idle(_RESTING_SECONDS):
                raise FunctionError("a request is still in progress, though no function runs")
        yield
        self.bring_back()
        self.pg_net.resume()

    def stop(self) -> None:
        """Stop everything."""
        self.pg_net.stop()
        self.pg_cron.stop()
        for function in self._stack.functions.values():
            function.stop()
