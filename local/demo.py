"""``make demo``: shows one upload, from the file to its results, each step as it happens."""

from __future__ import annotations

import contextlib
import mimetypes
import re
import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import httpx

from deploy.output import Screen, coloured
from local.disk_space import NEEDED_MEGABYTES, check_disk_space
from local.functions import ROOT
from local.media import make_clip, probe
from local.page import PORT
from local.project import BUCKET, Project
from local.stack import Stack
from local.threads import ThreadWatch

RESULTS = ROOT / "build" / "demo"
LIMIT_SECONDS = 600.0
_COLOURS = {"succeeded": "green", "failed": "red", "skipped": "yellow"}
_JOBS = """
select name, rule, state, coalesce(progress, 0)::int as progress, ittybit_id, outputs,
  coalesce(error ->> 'message', reason) as why
from ittybit.jobs
order by created_at, name, rule
"""


class Job(NamedTuple):
    """A job, as the ledger has it."""

    name: str
    rule: str
    state: str
    progress: int
    ittybit_id: str | None
    outputs: list[str] | None
    why: str | None

    @property
    def has_ended(self) -> bool:
        """Whether its state is final."""
        return self.state in _COLOURS


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def run(file: Path | None, api: str = "automations", *, opens: bool = False) -> None:
    """Run the demo with ``file`` or a generated clip, and an ittybit that speaks this generation of its API.

    Args:
        file: a video.
        api: the generation, ``automations`` or ``jobs``.
        opens: whether to show the results in a browser at the end.

    Raises:
        DemoError: the file is no video, or no job succeeded, or a job did not end in time, or a result could not be
            fetched and decoded; all other results are fetched first.
        local.disk_space.DiskSpaceError: a folder cannot be written, or is too full for the file.
        local.threads.ThreadDiedError, local.functions.FunctionError: a part of the stack has ended.
    """
    if file is not None:
        _check(file)
        # The file is stored, and fetched by ittybit. Its results are written, stored and fetched.
        check_disk_space(RESULTS.parent, megabytes=NEEDED_MEGABYTES + 5 * file.stat().st_size // 1024**2)
    began, screen = time.monotonic(), Screen(sys.stdout)

    def say(line: str) -> None:
        screen.line(f"{coloured(f'{time.monotonic() - began:6.1f} s', 'dim', sys.stdout)}  {line}")

    say("starting the stack: everything on this machine, nothing leaves it")
    with (
        screen,
        ThreadWatch() as threads,
        Stack.start(say=say, api=api) as stack,
        contextlib.closing(Project(stack)) as project,
    ):
        if file is None:
            file = stack.directory / "my clip.mp4"
            make_clip(file)
            say("made a clip: 1920x1080, 6 s")
        connection = project.set_up()
        say(f"bucket {BUCKET!r} (private); create-connection registered the S3 keys at ittybit: {connection}")
        kept = "a task whose result stays at ittybit" if api == "jobs" else "an automation"
        say(f"rules: soundtrack ({kept}, by on-upload); video-720p (a task) and still (a run), by push-back")
        name = f"clips/{_key(file)}"
        mimetype = mimetypes.guess_type(file.name)[0] or "video/mp4"
        project.upload(BUCKET, name, file, mimetype, lambda sent: screen.bar("uploading", sent))
        screen.clear()
        say(f"uploaded {name} ({file.stat().st_size:,} bytes): nothing else was called by hand")
        jobs = _watch(stack, name, threads, say, screen)
        say("fetching the results")
        rows, faults = _fetch(project, jobs)
    if rows:
        print(f"\n{_table(rows)}\n\nThe files are in {RESULTS.relative_to(ROOT)}/. The stack is stopped.")
        print(f"`make serve` keeps one running, with a page for files of your own: http://127.0.0.1:{PORT}/")
        if opens and not webbrowser.open(RESULTS.as_uri()):
            print("There is no browser here to open them in.")
    if faults:
        raise DemoError("; ".join(faults))
    if not rows:
        raise DemoError("no rule could process this file; the lines above say why")


def _check(file: Path) -> None:
    if not file.is_file():
        raise DemoError(f"there is no file {file}")
    mimetype = mimetypes.guess_type(file.name)[0] or ""
    if not mimetype.startswith("video/"):
        raise DemoError(f"{file.name} is not a video by its name: the demo's rules are for video/*")


def _key(file: Path) -> str:
    """The file's name, without the characters that Supabase refuses in a key."""
    return re.sub(r"[^A-Za-z0-9_!.*'() &$@=;:+,?-]", "_", file.name)


def _watch(stack: Stack, name: str, threads: ThreadWatch, say: Callable[[str], None], screen: Screen) -> list[Job]:
    """Show every change in the ledger until the object's jobs have ended or time is over; return the jobs.

    Raises:
        local.threads.ThreadDiedError, local.functions.FunctionError: a part of the stack has ended.
    """
    shown: dict[tuple[str, str], tuple[str, int]] = {}
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        threads.check()
        stack.check()
        jobs = [Job(*row) for row in stack.sql(_JOBS)]
        ours = [job for job in jobs if job.name == name]
        screen.bar("processing", sum(1 if job.has_ended else job.progress / 100 for job in ours) / (len(ours) or 1))
        for job in jobs:
            # On a terminal, the bar shows the progress instead.
            now = (job.state, 0 if screen.is_live else job.progress)
            if shown.get((job.name, job.rule)) != now:
                shown[job.name, job.rule] = now
                state = coloured(job.state, _COLOURS[job.state], sys.stdout) if job.has_ended else job.state
                detail = f": {job.why}" if job.why else f" {now[1]} %" * (job.state == "started" and not screen.is_live)
                say(f"  {job.name}  {job.rule:10}  {state}{detail}  {job.ittybit_id or ''}".rstrip())
        if (ours and all(job.has_ended for job in ours)) or time.monotonic() > deadline:
            screen.clear()
            return ours
        time.sleep(0.2)


def _fetch(project: Project, jobs: list[Job]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Fetch, decode and describe the results of all jobs that succeeded; return a row for each, and what went wrong.

    A job that failed is no fault here: a silent video, for example, has no soundtrack.
    """
    rows: list[tuple[str, ...]] = []
    faults = [f"{job.rule} is not done after {LIMIT_SECONDS:.0f} s" for job in jobs if not job.has_ended]
    for job in jobs:
        if job.state != "succeeded":
            continue
        if not job.outputs:
            faults.append(f"{job.rule} succeeded without a result")
        for address in job.outputs or ():
            try:
                rows.append((job.rule, address, *_described(project, address)))
            except (httpx.HTTPError, ValueError) as error:
                faults.append(f"{job.rule}: {address}: {error}")
    return rows, faults


def _described(project: Project, address: str) -> tuple[str, ...]:
    file = RESULTS / unquote(address.rpartition("/")[2])
    project.fetch(address, file)
    media = probe(file)
    size = f"{media.width}x{media.height}" if media.width else "-"
    still = file.suffix in (".jpeg", ".jpg", ".png", ".webp")
    duration = "-" if still or media.duration is None else f"{media.duration:.1f} s"
    kind = mimetypes.guess_type(file.name)[0] or "?"
    return kind, size, duration, f"{file.stat().st_size:,}", file.name


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [("rule", "key or address", "type", "pixels", "duration", "bytes", "file"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
