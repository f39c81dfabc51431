"""The cost that the triggers add to an upload and a delete, in order and with each part of the project broken.

Baseline: the same statements in the same run with the triggers disabled. Each upload and each delete is a transaction,
as in storage-api. Each round measures every case; the median counts. Run: ``python -m bench.trigger_cost``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import uuid

import psycopg

from bench.database import BUCKET, OURS, Database, database
from bench.side_by_side import seconds

TRIGGERS = (OURS, "ittybit_object_replaced", "ittybit_object_removed")
TASK = '{"kind": "video", "options": {"height": 720}, "destination": "s3://media/processed/{name}"}'

# For each case, what breaks the part and what repairs it, as the superuser.
CASES: dict[str, tuple[str, str]] = {
    "triggers disabled (baseline)": (
        "; ".join(f"alter table storage.objects disable trigger {name}" for name in TRIGGERS),
        "; ".join(f"alter table storage.objects enable trigger {name}" for name in TRIGGERS),
    ),
    "in order": ("select", "select"),
    "no rule fits": ("update ittybit.rules set enabled = false", "update ittybit.rules set enabled = true"),
    "Vault without the secret": (
        "update vault.secrets set name = 'elsewhere'",
        "update vault.secrets set name = 'ittybit_functions_secret'",
    ),
    "pg_net gone": ("alter schema net rename to gone", "alter schema gone rename to net"),
    "ledger gone": ("alter table ittybit.jobs rename to gone", "alter table ittybit.gone rename to jobs"),
    "rules gone": ("alter table ittybit.rules rename to gone", "alter table ittybit.gone rename to rules"),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.trigger_cost", description=__doc__.partition("\n")[0])
    parser.add_argument("--uploads", type=int, default=200, help="uploads and deletes a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with database() as target:
        target.use(OURS)
        target.admin.execute("insert into ittybit.rules (name, bucket_id, task) values ('t', %s, %s)", [BUCKET, TASK])
        times = _rounds(target, options.uploads, options.rounds)
        locked = _locked(target, options.uploads)
    baseline = statistics.median(times["triggers disabled (baseline)"])
    print(f"{'case':30}{'ms an upload and a delete':>27}{'ratio':>8}")
    for case, measured in times.items():
        print(f"{case:30}{statistics.median(measured) * 1000:>27.2f}{statistics.median(measured) / baseline:>8.2f}")
    print(f"\nA bulk delete of {options.uploads} with the ledger locked by another session took {locked:.2f} s.")


def _rounds(target: Database, uploads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds an upload and a delete take together, for each case and round."""
    times: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case, (broken, mended) in CASES.items():
            target.admin.execute(broken.encode())
            times[case].append(seconds(lambda: _upload_and_delete(target.storage, uploads)) / uploads)
            target.admin.execute(mended.encode())
            target.empty()
    return times


def _upload_and_delete(storage: psycopg.Connection, count: int) -> None:
    for number in range(count):
        with storage.transaction():
            _insert(storage, f"{number}.mp4")
        with storage.transaction():
            _delete(storage, [f"{number}.mp4"])


def _locked(target: Database, count: int) -> float:
    """Seconds for one bulk delete while another session holds the ledger."""
    names = [f"locked/{number}.mp4" for number in range(count)]
    with target.storage.transaction():
        for name in names:
            _insert(target.storage, name)
    with target.another() as other, other.transaction():
        other.execute("lock table ittybit.jobs in access exclusive mode")
        with target.storage.transaction():
            return seconds(lambda: _delete(target.storage, names))


def _insert(storage: psycopg.Connection, name: str) -> None:
    metadata = {"eTag": f'"{uuid.uuid4()}"', "size": 1000, "mimetype": "video/mp4"}
    storage.execute(
        "insert into storage.objects (bucket_id, name, version, metadata) values ('media', %s, %s, %s)",
        [name, str(uuid.uuid4()), json.dumps(metadata)],
    )


def _delete(storage: psycopg.Connection, names: list[str]) -> None:
    storage.execute("select set_config('storage.allow_delete_query', 'true', true)")
    storage.execute("delete from storage.objects where name = any (%s)", [names])


if __name__ == "__main__":
    main()
