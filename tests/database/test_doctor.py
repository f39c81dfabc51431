"""ittybit.doctor() on each PostgreSQL. tests/deploy/test_doctor.py causes each fault that it finds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from standardwebhooks import Webhook

from deploy.doctor.database import CHECKS, MIGRATIONS, defined
from tests.database.project import SECRET, TASK, Project, upload
from tests.database.rows import Row


def examine(database: Project) -> dict[str, Row]:
    return {row["check"]: row for row in database.sql("select * from ittybit.doctor()")}


def found(database: Project) -> dict[str, str]:
    """The failed checks and their verdicts, without pg_net and pg_cron, which do not run here."""
    rows = examine(database).values()
    return {row["check"]: row["verdict"] for row in rows if row["verdict"] != "ok" and row["check"][:2] != "pg"}


def test_each_check_is_made_once_and_a_healthy_project_passes(database: Project) -> None:
    database.rule(task=TASK)
    rows = database.sql("select * from ittybit.doctor()")
    assert [row["check"] for row in rows] == list(CHECKS)
    assert found(database) == {}
    assert {row["remedy"] for row in rows if row["verdict"] == "ok"} == {None}
    assert all(row["saw"] for row in rows)


def test_the_doctor_only_reads(database: Project) -> None:
    with database.connect("postgres") as connection:
        connection.execute("set default_transaction_read_only = on")
        assert len(connection.execute("select * from ittybit.doctor()").fetchall()) == len(CHECKS)


def test_a_check_that_cannot_be_made_does_not_stop_the_others(database: Project) -> None:
    database.rule()
    database.sql("alter table ittybit.holds rename to gone")
    database.sql("revoke execute on function ittybit.trigger_faults() from postgres")
    try:
        rows = examine(database)
    finally:
        database.sql("alter table ittybit.gone rename to holds")
        database.sql("grant execute on function ittybit.trigger_faults() to postgres")
    assert list(rows) == list(CHECKS)
    assert 'could not be checked: relation "ittybit.holds" does not exist (42P01)' in rows["holds"]["saw"]
    assert rows["holds"]["remedy"] == "Apply supabase/migrations again."
    assert "could not be checked: permission denied for function trigger_faults" in rows["triggers"]["saw"]
    assert "have its owner grant it again" in rows["triggers"]["remedy"]
    assert found(database) == {}


def test_the_doctor_shows_no_secret(database: Project) -> None:
    assert SECRET not in str(examine(database))
    assert SECRET.removeprefix("whsec_") not in str(examine(database))


def test_the_secret_signature_identifies_the_secret_and_no_function_accepts_it(database: Project) -> None:
    signature = database.value("select ittybit.secret_signature()")
    signed = Webhook(SECRET).sign("doctor", datetime.fromtimestamp(0, UTC), "the secret of ittybit.doctor()")
    assert signature == signed


def test_the_functions_found_in_the_migrations_are_those_of_the_database(database: Project) -> None:
    there = database.sql(
        "select n.nspname || '.' || p.proname as name, p.prosrc as body"
        " from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace"
        " where n.nspname = 'ittybit' or p.proname like 'ittybit%%'"
    )
    assert defined(MIGRATIONS) == {row["name"]: row["body"] for row in there}


@pytest.mark.parametrize(
    ("kind", "options", "ending", "types"),
    [
        ("video", {}, "{name}", ["video/mp4"]),
        ("video", {"format": "WebM"}, "{stem}.bin", ["video/webm"]),
        ("image", {}, "{stem}.JPG", ["image/jpeg"]),
        ("audio", {}, "{stem}.mp3", ["audio/mpeg", "audio/mp3"]),
        ("audio", {}, "{name}", None),
        ("subtitles", {}, "{stem}.xyz", None),
    ],
)
def test_the_type_of_a_result_follows_from_its_format_its_ending_or_its_kind(
    database: Project, kind: str, options: dict[str, str], ending: str, types: list[str] | None
) -> None:
    task = {"kind": kind, "options": options}
    assert database.value("select ittybit.result_types(%s, %s)", Jsonb(task), f"s3://results/{ending}") == types


def as_columns(task: Row, *, is_run: bool) -> dict[str, Any]:
    """A rule's action: this task, or a run that does the same and uploads the result."""
    step = {name: task[name] for name in ("kind", "options")} | {"next": [upload(task["destination"])]}
    return {"run": {"tasks": [{"kind": "speech"}, step]}} if is_run else {"task": task}


@pytest.mark.parametrize("is_run", [False, True], ids=["task", "run"])
@pytest.mark.parametrize(
    ("allowed", "limit", "verdict"),
    [
        (None, None, None),
        ([], 0, None),
        (["video/*"], None, None),
        (["image/png", "video/mp4"], None, None),
        (["*/*"], None, None),
        (["image/*"], None, "failure"),
        (["video/mp4v"], None, "failure"),
        (None, 999, "warning"),
        (None, 1000, None),
        (["image/*"], 999, "failure"),
    ],
)
def test_the_doctor_finds_a_bucket_that_refuses_a_rules_results(
    database: Project, allowed: list[str] | None, limit: int | None, verdict: str | None, is_run: bool
) -> None:
    database.rule(**as_columns(TASK, is_run=is_run), max_size=1000)
    change = "update storage.buckets set allowed_mime_types = %s, file_size_limit = %s where id = 'results'"
    database.superuser.execute(change, [allowed, limit])
    try:
        assert found(database).get("limits") == verdict
    finally:
        database.superuser.execute(change, [None, None])


def test_the_doctor_finds_a_missing_bucket_of_a_run(database: Project) -> None:
    uploads = [upload("s3://results/{name}"), {"kind": "image", "next": [upload("s3://nowhere/{name}")]}]
    database.rule(run={"tasks": [{"kind": "video", "next": uploads}]})
    assert found(database) == {"buckets": "failure"}
    assert examine(database)["buckets"]["saw"] == "there is no bucket nowhere (rule clips)"


@pytest.mark.parametrize("is_run", [False, True], ids=["task", "run"])
@pytest.mark.parametrize(
    ("destination", "other", "is_fed"),
    [
        ("s3://uploads/out/{name}", {}, True),
        ("s3://results/{name}", {}, False),  # another bucket
        ("s3://uploads/processed/{name}", {}, False),  # an output prefix
        ("s3://uploads/made/{name}", {}, False),  # another rule's output prefix
        ("s3://uploads/out/{name}", {"path": "in/**"}, False),
        ("s3://uploads/out/{name}", {"path": "out/clips/*"}, True),
        ("s3://uploads/out/{name}", {"mimetype": "image/*"}, False),
        ("s3://uploads/out/{name}", {"mimetype": "video/*", "min_size": 10, "max_size": 10}, True),
        ("s3://uploads/out/{name}", {"enabled": False}, False),
    ],
)
def test_the_doctor_finds_results_that_another_rule_takes_for_uploads(
    database: Project, destination: str, other: dict[str, object], is_fed: bool, is_run: bool
) -> None:
    database.rule("maker", path="clips/**", **as_columns(TASK | {"destination": destination}, is_run=is_run))
    database.rule("taker", **other)
    database.rule("declared", path="nothing/*", output_prefix="made/")
    assert found(database) == ({"results": "warning"} if is_fed else {})


def test_jobs_that_are_kept_back_on_purpose_do_not_count_as_late(database: Project) -> None:
    database.rule()
    database.put("a.mp4")
    database.sql("update ittybit.jobs set due_at = now() - interval '5 minutes'")
    assert found(database) == {"waiting": "warning"}

    database.sql("select ittybit.pause()")
    assert found(database) == {"starts": "warning"}
    database.sql("select ittybit.resume()")

    database.sql("update ittybit.rules set enabled = false")
    assert found(database) == {"rules": "warning"}
    database.sql("update ittybit.rules set enabled = true")

    database.sql("insert into ittybit.holds (scope, probe_at) values ('rule:clips', now() + interval '1 minute')")
    assert found(database) == {"holds": "failure"}
    database.sql("delete from ittybit.holds")

    database.sql("update ittybit.jobs set backfill = true")
    assert found(database) == {}


def test_the_doctor_finds_a_missing_row_of_settings(database: Project) -> None:
    database.rule()
    database.sql("delete from ittybit.settings")
    assert found(database) == {"starts": "failure"}
