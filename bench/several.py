"""More of everything: several senders, several functions and several callers at once, and no job sent or started twice.

The first two steps of docs/scale.md, tried with the database and the functions as deployed; commits wait for the disk,
as hosted. Every message is delivered twice, as pg_net does when it fails in the middle of a batch.
Run: ``python -m bench.several``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg

from bench.database import BUCKET, OURS, Database, database
from bench.load import MESSAGE, signed
from bench.serving import ON_UPLOAD, deployed, environment, serving
from bench.upstream import Upstream
from local.postgres import SUPERUSER

THREADS = 16


def main(arguments: list[str] | None = None) -> None:
    """Try one, two and four of each, and print how fast they were."""
    parser = argparse.ArgumentParser(prog="python -m bench.several", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--small", action="store_true", help="use the environment that is there")
    options = parser.parse_args(arguments)
    programs = deployed(small=options.small)
    with (
        database(durable=True) as target,
        Upstream(0.05, dsn=f"{target.postgres.dsn('authenticator')} options='-c role=service_role'") as upstream,
        contextlib.ExitStack() as functions,
    ):
        served = [
            functions.enter_context(serving(programs, ON_UPLOAD, environment(upstream.origin), threads=THREADS))
            for _ in range(4)
        ]
        for one in served:
            one.first_answer(MESSAGE, signed())
        target.rules((BUCKET, "clips/**", "video/*"))
        target.use(OURS)
        print(
            "| of each | jobs sent a second | sent twice | jobs started a second | started twice | claims and reports |"
        )
        print("|---|---|---|---|---|---|")
        for count in (1, 2, 4):
            messages, sent = _send(target, options.jobs, senders=count)
            twice_sent = len(messages) - len({message["job"] for message in messages})
            marks, started = _deliver(messages, [one.url for one in served[:count]], upstream)
            twice_started = sum(starts - 1 for starts in Counter(marks).values())
            if len(set(marks)) != options.jobs:
                raise RuntimeError(f"{options.jobs} jobs, {len(set(marks))} started")
            ledger = _claim_and_report(target, options.jobs, callers=4 * count)
            print(
                f"| {count} | {sent:,.0f} | {twice_sent} | {started:,.0f} | {twice_started} |"
                f" {ledger:,.0f} jobs a second, {4 * count} at once |"
            )


def _send(target: Database, jobs: int, *, senders: int) -> tuple[list[dict[str, object]], float]:
    """Let so many senders at once send everything that is due; return the messages, and jobs sent a second."""
    target.empty()
    target.admin.execute(
        "update ittybit.settings set on_upload_url = 'https://a.test/', nudge = false, unanswered_calls = %s",
        [jobs + 1],
    )
    target.put_at_once(jobs)

    def send(_: int) -> None:
        with psycopg.connect(target.postgres.dsn(SUPERUSER), autocommit=True) as connection:
            while connection.execute("select ittybit.send_due()").fetchone() != (0,):
                pass

    began = time.perf_counter()
    with ThreadPoolExecutor(senders) as pool:
        list(pool.map(send, range(senders)))
    took = time.perf_counter() - began
    rows = target.admin.execute("select convert_from(body, 'UTF8') from net.http_request_queue").fetchall()
    return [json.loads(body) for (body,) in rows], jobs / took


def _claim_and_report(target: Database, jobs: int, *, callers: int) -> float:
    """Let so many callers at once claim and report jobs, with nothing between; return jobs a second."""
    messages, _ = _send(target, jobs, senders=1)

    def work(part: int) -> None:
        with psycopg.connect(target.postgres.dsn(SUPERUSER), autocommit=True) as connection:
            for message in messages[part::callers]:
                job = message["job"]
                connection.execute("select public.ittybit_claim(%s, 1)", [job], prepare=True)
                connection.execute("select public.ittybit_report(%s, 1, 'started', %s)", [job, job], prepare=True)

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(work, range(callers)))
    return jobs / (time.perf_counter() - began)


def _deliver(messages: list[dict[str, object]], urls: list[str], upstream: Upstream) -> tuple[list[str], float]:
    """Deliver each message twice, to one function after the other; return the marks that were started, and the rate."""

    def post(number: int) -> None:
        body = json.dumps(messages[number % len(messages)]).encode()
        headers = signed(body)
        answer = client.post(urls[number % len(urls)], content=body, headers=headers)
        answers[answer.status_code] += 1

    answers: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=THREADS * len(urls))
    began = time.perf_counter()
    with (
        httpx.Client(trust_env=False, timeout=60, limits=limits) as client,
        ThreadPoolExecutor(THREADS * len(urls)) as pool,
    ):
        list(pool.map(post, range(len(messages) * 2)))
    took = time.perf_counter() - began
    if set(answers) != {200, 202}:
        raise RuntimeError(f"answers: {answers}")
    marks = [upstream.start_arrived()[1] for _ in range(answers[202])]
    return marks, len(messages) / took


if __name__ == "__main__":
    main()
