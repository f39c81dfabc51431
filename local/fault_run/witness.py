"""Counts broken promises from ittybit's own journal and the storage server's answers.

From the ledger it takes two things only: which content a mark belongs to, and how that content's job ended. What was
started, and how often, it takes from ittybit's journal.

- ``lost``: files that should have been processed but neither succeeded nor were failed by ittybit. It counts each file
  in the bucket at the end, for each rule that matches it, unless the ledger says succeeded and ittybit accepted a start
  with this job's mark, or the ledger says failed with ittybit's own message.
- ``started_twice``: starts beyond the first that ittybit accepted for one rule and content, without idempotent replays.
  A start under another mark does not count if ittybit failed the first: the content may be tried under another name.
- ``ambiguous``: jobs restarted because the search missed a start that had happened. The earlier attempt's request was
  accepted after the later attempt had searched for it, found nothing and sent its own. The evidence is that ittybit
  accepted the earlier request after the later one, of the same mark, had arrived, and that a search (``GET /tasks``,
  ``GET /jobs``) came within an invocation's time before that arrival. These do not count as started twice.
- ``self_started``: accepted starts whose source is a result: a key that some start wrote to, the key that such a result
  was renamed to, or any key under the results' prefix.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from local.fault_injection import Request
from local.ittybit_server import Entry

INVOCATION_SECONDS: Final = 8.0
_MARK: Final = re.compile(r"[?&]job=([0-9a-f-]{36}\.\d+)(?:&|$)")


class Job(NamedTuple):
    """The columns of a ledger row that the counts need; ``whole`` is the entire row, which a finding prints."""

    id: str
    rule: str
    name: str
    etag: str
    state: str
    reason: str | None
    error: Mapping[str, Any] | None
    whole: str = ""


@dataclass(frozen=True)
class Evidence:
    """The records of a run that the counts are made from.

    Attributes:
        journal: ittybit's journal of accepted starts.
        requests: The requests that arrived at ittybit.
        failed: Ids of the runs and tasks that ittybit says failed.
        jobs: The ledger.
        stored: The bucket at the end: keys and entity tags.
        rules: The rules; each of them matches every object that is not a result.
        results: The prefix of results.
        renamed_results: Keys that results were renamed to.
    """

    journal: Sequence[Entry]
    requests: Sequence[Request]
    failed: Collection[str]
    jobs: Sequence[Job]
    stored: Mapping[str, str]
    rules: Sequence[str]
    results: str
    renamed_results: Collection[str] = ()

    def row_of(self, mark: str) -> str:
        """The ledger's row of a mark's job."""
        return _ledger_text([job for job in self.jobs if job.id == mark.partition(".")[0]])

    def rows_for(self, rule: str, etag: str) -> str:
        """The ledger's rows of one content under one rule, under any key."""
        return _ledger_text([job for job in self.jobs if (job.rule, job.etag) == (rule, etag)])


def _ledger_text(jobs: Sequence[Job]) -> str:
    return f"in the ledger: {' '.join(job.whole for job in jobs) or 'nothing'}"


@dataclass(frozen=True)
class Finding:
    """The counts, each with the findings behind it."""

    lost: list[str]
    started_twice: list[str]
    ambiguous: list[str]
    self_started: list[str]


def examine(evidence: Evidence) -> Finding:
    """Count the broken promises."""
    starts = [entry for entry in evidence.journal if not entry.replay]
    results = {str(entry.destination).partition("//")[2].partition("/")[2] for entry in starts if entry.destination}
    results |= set(evidence.renamed_results)

    def is_result(name: str) -> bool:
        return name in results or name.startswith(evidence.results)

    twice, ambiguous = _doubles(evidence, starts)
    return Finding(
        lost=_lost(evidence, starts, {name: tag for name, tag in evidence.stored.items() if not is_result(name)}),
        started_twice=twice,
        ambiguous=ambiguous,
        self_started=[
            f"{entry.url}; {evidence.row_of(mark_of(entry))}" for entry in starts if is_result(source_name(entry))
        ],
    )


def mark_of(entry: Entry) -> str:
    """The mark that a start's source carries, or the start's own id when it carries none."""
    match = _MARK.search(entry.url or "")
    return match[1] if match else entry.id


def source_name(entry: Entry) -> str:
    """The key of the object that a start reads, from ``/storage/v1/object/sign|public/<bucket>/<key>``."""
    return unquote(urlsplit(entry.url or "").path).partition("/object/")[2].split("/", 2)[-1]


def _lost(evidence: Evidence, starts: Sequence[Entry], sources: Mapping[str, str]) -> list[str]:
    bought = {mark_of(entry).partition(".")[0] for entry in starts}
    done = {
        (job.rule, job.name, job.etag)
        for job in evidence.jobs
        if (job.state == "succeeded" and job.id in bought) or _failed_in_ittybits_words(job)
    }
    return [
        f"{rule}: {name} {etag}; {evidence.rows_for(rule, etag)}"
        for name, etag in sources.items()
        for rule in evidence.rules
        if (rule, name, etag) not in done
    ]


def _failed_in_ittybits_words(job: Job) -> bool:
    error = job.error or {}
    return (
        job.state == "failed"
        and job.reason in {None, "ittybit_failed"}
        and error.get("service", "ittybit") == "ittybit"
        and bool(error.get("message"))
    )


def _doubles(evidence: Evidence, starts: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """Return the starts beyond the first of each rule and content: those that count as twice, and the ambiguous."""
    contents = {job.id: (job.rule, job.etag) for job in evidence.jobs}
    by_mark: dict[str, list[Entry]] = defaultdict(list)
    for entry in starts:
        by_mark[mark_of(entry)].append(entry)

    twice: list[str] = []
    ambiguous: list[str] = []
    by_content: dict[tuple[str, str], list[str]] = defaultdict(list)
    for mark, entries in by_mark.items():
        by_content[contents.get(mark.partition(".")[0], ("", mark))].append(mark)
        if len(entries) == 1:
            continue
        requested = sorted((_arrival(entry, mark, evidence.requests), entry.time) for entry in entries)
        for (_, accepted), (arrived, _) in itertools.pairwise(requested):
            times = f"requested again at {arrived:.3f}, an earlier request accepted at {accepted:.3f}"
            had_searched = _searched(evidence.requests, arrived)
            found = ambiguous if accepted > arrived and had_searched else twice
            found.append(f"{mark}: {times}; {evidence.row_of(mark)}")
    for content, marks in by_content.items():
        lasting = [m for m in marks if any(entry.id not in evidence.failed for entry in by_mark[m])]
        twice += [
            f"{mark}: {content} was already started by {lasting[0]}; {evidence.row_of(mark)}" for mark in lasting[1:]
        ]
    return twice, ambiguous


def _arrival(entry: Entry, mark: str, requests: Sequence[Request]) -> float:
    """When this entry's request arrived: of those with its mark, the last one that was passed on before the entry."""
    passed = [
        (request.passed, request.arrived)
        for request in requests
        if request.idempotency_key == mark and request.passed is not None and request.passed <= entry.time
    ]
    return max(passed)[1] if passed else entry.time


def _searched(requests: Sequence[Request], by: float) -> bool:
    return any(
        request.method == "GET"
        and request.path in ("/tasks", "/jobs")
        and "run_id=" not in request.query  # a run's own tasks: no search
        and by - INVOCATION_SECONDS <= request.arrived <= by
        for request in requests
    )
