"""Runs every property test with other inputs, for a given time: ``python -m tests.fuzz --seconds 60``.

A property test is one whose inputs hypothesis makes. Each gets an equal share of the time, in rounds with new seeds.
A finding is printed with the smallest input that hypothesis finds, and with the line that reproduces it.

The last line counts inputs and findings. An input counts when the test has run with it to its end, or has failed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The options of pyproject.toml, but without pytest's report and without a time limit for each test.
SETTINGS = ["--override-ini=addopts=--import-mode=importlib", "--override-ini=timeout=0"]
PLUGINS = ["--disable-plugin-autoload", "-p", "_hypothesis_pytestplugin", "-p", "pytest_timeout", "-p", "no:terminal"]
EXAMPLES_OF_A_ROUND = 1000


class TimeIsOver(KeyboardInterrupt):
    """The property's share of the time is used up. Only a KeyboardInterrupt ends hypothesis at once."""


class Fuzz:
    """A plugin of pytest that runs only property tests, each for its share of the time.

    Attributes:
        inputs: how many were run.
        findings: how many properties failed or could not be run.
    """

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self.inputs = 0
        self.findings = 0
        self._say = say
        self._left = seconds
        self._waiting = 0
        self._until = 0.0
        self._has_failed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        from hypothesis import HealthCheck, settings  # noqa: PLC0415 - pytest wants to import it itself

        settings.register_profile(
            "fuzz",
            max_examples=EXAMPLES_OF_A_ROUND,
            deadline=None,
            derandomize=False,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("fuzz")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        from hypothesis import is_hypothesis_test  # noqa: PLC0415 - as above

        items[:] = [item for item in items if is_hypothesis_test(getattr(item, "obj", None))]
        self._waiting = len(items)
        self._say(f"fuzz: {len(items)} properties, {self._left:g} s\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        """Run one property until its share of the time is used up, or until it fails."""
        began, counted, share = time.monotonic(), self.inputs, self._left / self._waiting
        self._until = began + share
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        try:
            with self._counting(pyfuncitem.obj):
                while True:
                    self._has_failed = False
                    pyfuncitem.obj(**arguments)
        except TimeIsOver:
            return True
        finally:
            spent = time.monotonic() - began
            # The time to shrink a finding is not taken from the others.
            self._left -= min(spent, share)
            self._say(f"{self.inputs - counted:>9,} inputs {spent:7.1f} s  {pyfuncitem.nodeid}\n")

    @contextlib.contextmanager
    def _counting(self, test: Any) -> Iterator[None]:
        from hypothesis.errors import UnsatisfiedAssumption  # noqa: PLC0415 - as above

        inner = test.hypothesis.inner_test

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> None:
            # Shrinking a finding may take as long as it needs.
            if time.monotonic() > self._until and not self._has_failed:
                raise TimeIsOver
            try:
                inner(*args, **kwargs)
            except UnsatisfiedAssumption:
                raise
            except Exception:
                self.inputs += 1
                self._has_failed = True
                raise
            self.inputs += 1

        test.hypothesis.inner_test = counted
        try:
            yield
        finally:
            test.hypothesis.inner_test = inner

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        failed = call.excinfo is not None
        if call.when == "call" or (call.when == "setup" and failed):
            self._waiting -= 1
        if call.excinfo is not None:
            self._print_finding(item.nodeid, call.excinfo.value)

    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]) -> None:
        """Count a file that could not be read: its properties were not run."""
        if isinstance(node, pytest.Collector) and call.excinfo is not None:
            self._print_finding(node.nodeid, call.excinfo.value)

    def _print_finding(self, where: str, error: BaseException) -> None:
        """Print a finding: the error, where it happened, and hypothesis's notes, which name the input."""
        self.findings += 1
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
        places = [f"  {Path(frame.filename).name}:{frame.lineno} {frame.line}\n" for frame in frames[-4:]]
        self._say(f"\nFINDING in {where}\n{''.join(places)}{''.join(traceback.format_exception_only(error))}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run them; return 0 when inputs were tried and nothing was found, and 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Look for inputs that break a property.")
    parser.add_argument("--seconds", type=float, default=60, help="how long, without the start of servers")
    parser.add_argument("--only", metavar="EXPRESSION", default="", help="properties by name, as pytest -k selects")
    parser.add_argument("paths", nargs="*", default=["tests"], help="files or folders; by default all tests")
    options = parser.parse_args(arguments)

    # pytest captures the output of the code under test. This goes past it.
    with os.fdopen(os.dup(1), "w") as screen:

        def say(text: str) -> None:
            screen.write(text)
            screen.flush()

        fuzz = Fuzz(options.seconds, say)
        pytest.main([*SETTINGS, *PLUGINS, "-k", options.only, *options.paths], plugins=[fuzz])
        say(f"fuzz: {fuzz.inputs:,} inputs, {fuzz.findings} findings\n")
    return 0 if fuzz.inputs and not fuzz.findings else 1


if __name__ == "__main__":
    sys.exit(main())
