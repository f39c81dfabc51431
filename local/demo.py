"""``make demo``: the whole way once, from an upload to its results, with each step as it happens."""

from __future__ import annotations

import contextlib
import mimetypes
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from local.disk_space import NEEDED_MEGABYTES, check_disk_space
from local.functions import ROOT
from local.media import make_clip, probe
from local.project import BUCKET, Project
from local.stack import Stack
from local.threads import ThreadWatch

RESULTS = ROOT / "build" / "demo"
LIMIT_SECONDS = 600.0
_JOBS = """
select name, rule, state, coalesce(progress, 0)::int, ittybit_id, outputs, coalesce(error ->> 'message', reason)
from ittybit.jobs
order by created_at, name, rule
"""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


def run(file: Path | None, api: str = "automations") -> None:
    """Run the demo with a clip of its own or with ``file``, at an ittybit that speaks this generation of its API.

    Raises:
        DemoError: the file is no video, a job failed, or a result does not decode.
        local.disk_space.DiskSpaceError: a folder cannot be written, or is too full for the file.
        local.threads.ThreadDiedError, local.functions.FunctionError: a part of the stack has ended.
    """
    if file is not None:
        _check(file)
        # It is stored, fetched by ittybit, and made into results, which are stored and fetched.
        check_disk_space(RESULTS.parent, megabytes=NEEDED_MEGABYTES + 5 * file.stat().st_size // 1024**2)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    say("starting the stack: everything on this machine, nothing leaves it")
    with (
        ThreadWatch() as threads,
        Stack.start(say=say, api=api) as stack,
        contextlib.closing(Project(stack)) as project,
    ):
        if file is None:
            file = stack.directory / "my clip.mp4"
            make_clip(file)
            say("made a clip: 1920x1080, 6 s")
        connection = project.set_up()
        say(f"bucket {BUCKET!r} (private); create-connection registered its keys at ittybit: {connection}")
        kept = "a task whose result stays at ittybit" if api == "jobs" else "an automation"
        say(f"rules: soundtrack ({kept}, by on-upload); video-720p and still (tasks, by push-back)")
        name = f"clips/{_key(file)}"
        project.upload(BUCKET, name, file, mimetypes.guess_type(file.name)[0] or "video/mp4")
        say(f"uploaded {name} ({file.stat().st_size:,} bytes): nothing else was called by hand")
        jobs = _watch(stack, name, threads, say)
        say("done; fetching the results")
        rows = _fetch(project, jobs)
    print(f"\n{_table(rows)}\n\nThe files are in {RESULTS.relative_to(ROOT)}/. The stack is stopped.")


def _check(file: Path) -> None:
    if not file.is_file():
        raise DemoError(f"there is no file {file}")
    mimetype = mimetypes.guess_type(file.name)[0] or ""
    if not mimetype.startswith("video/"):
        raise DemoError(f"{file.name} is not a video by its name: the demo's rules are for video/*")


def _key(file: Path) -> str:
    """The file's name, without what Supabase refuses in a key."""
    return re.sub(r"[^A-Za-z0-9_!.*'() &$@=;:+,?-]", "_", file.name)


def _watch(stack: Stack, name: str, threads: ThreadWatch, say: Callable[[str], None]) -> dict[str, list[str]]:
    """Show every change in the ledger until the object's jobs have ended; return the outputs of what succeeded.

    Raises:
        DemoError: no job succeeded, or one did not end in time.
        local.threads.ThreadDiedError, local.functions.FunctionError: a part of the stack has ended.
    """
    shown: dict[tuple[str, str], tuple[str, int]] = {}
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        threads.check()
        stack.check()
        jobs = stack.sql(_JOBS)
        for job, rule, state, progress, ittybit_id, _, why in jobs:
            if shown.get((job, rule)) != (state, progress):
                shown[job, rule] = (state, progress)
                detail = f": {why}" if why else f" {progress} %" if state == "started" else ""
                say(f"  {job}  {rule:10}  {state}{detail}  {ittybit_id or ''}".rstrip())
        ours = [job for job in jobs if job[0] == name]
        if ours and all(state in ("succeeded", "failed", "skipped") for _, _, state, *_ in ours):
            # A rule that cannot do anything with this file is that rule's affair: a silent video has no soundtrack.
            done = {rule: outputs for _, rule, state, _, _, outputs, _ in ours if state == "succeeded"}
            if not done:
                raise DemoError("no rule could process this file; the lines above say why")
            return done
        time.sleep(0.2)
    raise DemoError(f"not done after {LIMIT_SECONDS:.0f} s")


def _fetch(project: Project, jobs: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """Fetch, decode and describe every result."""
    rows: list[tuple[str, ...]] = []
    for rule, outputs in jobs.items():
        if not outputs:
            raise DemoError(f"{rule} succeeded without a result")
        for address in outputs:
            file = RESULTS / unquote(address.rpartition("/")[2])
            project.fetch(address, file)
            media = probe(file)
            size = f"{media.width}x{media.height}" if media.width else "-"
            still = file.suffix in (".jpeg", ".jpg", ".png", ".webp")
            duration = "-" if still or media.duration is None else f"{media.duration:.1f} s"
            kind = mimetypes.guess_type(file.name)[0] or "?"
            rows.append((rule, address, kind, size, duration, f"{file.stat().st_size:,}", file.name))
    return rows


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [("rule", "key or address", "type", "pixels", "duration", "bytes", "file"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
