"""The documents are right: their SQL runs and does what they say, and their commands and links exist."""

from __future__ import annotations

import json
import mimetypes
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.functions import ROOT
from local.ittybit_server.options import read_options
from local.postgres import Postgres
from shared import authentication, settings
from tests import documents
from tests.database.project import ON_UPLOAD, SECRET, Project, database_of_its_own
from tests.database.rows import Row
from tests.functions.calling import NOWHERE

WITH_SQL = [document for document in documents.DOCUMENTS if documents.blocks(document.read_text(), "sql")]
RULES = (ROOT / "docs" / "rules.md").read_text()
OWNER, ANOTHER = "8d0fd2b3-9ca7-4d9e-a95f-9e13dded323e", str(uuid.uuid4())
HEAD = re.compile(r"stored in `(?P<bucket>[^`]+)`(?: by `(?P<owner>[^`]+)`)?(?P<s3> through S3)?")
CELL = re.compile(r"`(?P<name>[^`]+)`(?: of (?P<size>\d+) bytes)?")


def run(project: Project, block: str) -> None:
    # A hosted project lets `postgres` make policies on storage.objects (supautils.policy_grants). Plain PostgreSQL
    # requires the owner of the table.
    connection = project.superuser if "create policy" in block else project.developer
    connection.execute(block.encode())


@pytest.mark.parametrize("document", WITH_SQL, ids=documents.name)
def test_the_sql_runs_in_the_order_given(server: Postgres, document: Path) -> None:
    with database_of_its_own(server) as project:
        for block in documents.blocks(document.read_text(), "sql"):
            run(project, block)


@pytest.mark.parametrize("document", documents.DOCUMENTS, ids=documents.name)
def test_the_commands_exist(document: Path) -> None:
    text = document.read_text()
    for block in documents.blocks(text, "sh"):
        subprocess.run(["bash", "-n"], input=block.encode(), check=True)
    for target in sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
    usage = subprocess.run(["./deploy.sh", "--help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    verbs = set(re.findall(r"^  ([a-z-]+)", usage.partition("Verbs\n")[2].partition("\nOptions")[0], re.MULTILINE))
    used = set(re.findall(r"\./deploy\.sh (?:--env \S+ |--[a-z-]+ )*([a-z][a-z-]*)", text))
    assert used <= verbs


@pytest.mark.parametrize("document", documents.DOCUMENTS, ids=documents.name)
def test_every_link_has_a_target(document: Path) -> None:
    text = document.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
    places = re.findall(r"\]\(([^)#:]*)#([^)]*)\)", text)
    assert [place for file, place in places if place not in anchors(document.parent / file if file else document)] == []


@pytest.mark.parametrize("document", documents.DOCUMENTS, ids=documents.name)
def test_the_tests_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text()))
    missing = [test for file, test in sorted(named) if not re.search(rf"^ *def {test}\(", source(file), re.MULTILINE)]
    assert missing == []


def source(file: str) -> str:
    """A file's text, or an empty one if there is no such file."""
    path = ROOT / file
    return path.read_text() if path.exists() else ""


def test_every_limit_names_the_test_that_shows_it() -> None:
    [[_, *limits]] = documents.tables((ROOT / "docs" / "limits.md").read_text())
    assert len(limits) > 10
    assert [
        row[0] for row in limits if len(row) != 4 or not re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", row[3])
    ] == []


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    headings = documents.sections(document.read_text())
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_query_for_monitors_returns_one_number(server: Postgres) -> None:
    watched = documents.sections((ROOT / "docs" / "operations.md").read_text())["What to watch"]
    queries = documents.blocks(watched.partition("A monitor")[2], "sql")
    assert len(queries) > 5
    with database_of_its_own(server) as project:
        for query in queries:
            [row] = project.sql(query)
            assert [type(number) for number in row.values()] == [int], query


@pytest.fixture(scope="module")
def cookbook(server: Postgres) -> Iterator[Project]:
    """A project that all of docs/rules.md was pasted into."""
    with database_of_its_own(server, "media") as project:
        project.sql("select vault.create_secret(%s, 'ittybit_functions_secret')", SECRET)
        project.sql("update ittybit.functions set url = %s where name = 'on-upload'", ON_UPLOAD)
        for block in documents.blocks(RULES, "sql"):
            run(project, block)
        yield project


def cases() -> list[tuple[str, str]]:
    return [(heading, text) for heading, text in documents.sections(RULES).items() if "becomes |" in text]


@pytest.mark.parametrize(("heading", "text"), cases(), ids=[heading for heading, _ in cases()])
def test_stored_objects_become_what_the_table_says(cookbook: Project, heading: str, text: str) -> None:
    rules = re.findall(r"^ {2,4}'([a-z0-9-]+)', 'media'", text, re.MULTILINE)
    assert rules, heading
    for head, *rows in documents.tables(text):
        place = HEAD.fullmatch(head[0])
        assert place, head
        for cell, becomes in rows:
            stored = CELL.fullmatch(cell)
            assert stored, cell
            version = cookbook.put(
                stored["name"],
                bucket=place["bucket"],
                owner_id=place["owner"],
                operation="storage.s3.upload" if place["s3"] else "storage.object.upload",
                mimetype=mimetypes.guess_type(stored["name"])[0] or "application/octet-stream",
                size=int(stored["size"] or 1000),
            )
            jobs = [job for job in cookbook.jobs(stored["name"]) if job["version"] == version and job["rule"] in rules]
            assert [outcome(job) for job in jobs] == expected(becomes, version), (heading, cell)


def outcome(job: Row) -> str:
    if job["state"] == "skipped":
        return f"skipped {job['reason']}"
    match job["action"]:
        case {"run": run}:
            addresses = re.findall(r'"url": "([^"]+)"', json.dumps(run))
            return " and ".join(addresses)
        case {"task": task}:
            return str(task.get("destination", "a result at ittybit"))
    raise AssertionError(job)


def expected(becomes: str, version: str) -> list[str]:
    if becomes == "nothing":
        return []
    return [becomes.replace("`", "").replace("{version}", version)]


def test_ittybit_accepts_the_options(cookbook: Project) -> None:
    steps = [
        row["step"]
        for row in cookbook.sql("select s.step from ittybit.rules as r cross join ittybit.steps(r.task, r.run) as s")
    ]
    assert len(steps) >= 14
    for step in steps:
        read_options(step["kind"], step["options"])


def as_user(project: Project, role: str, user: str | None, statement: str) -> list[Row]:
    """The rows that a statement returns over the API."""
    connection = project.connect("authenticator")
    with connection, connection.transaction():
        claims = f'{{"role": "{role}", "sub": "{user}"}}' if user else f'{{"role": "{role}"}}'
        connection.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", [role, claims]
        )
        return connection.execute(statement.encode()).fetchall()


def test_users_can_read_only_their_own_results(cookbook: Project) -> None:
    for user in (OWNER, ANOTHER):
        cookbook.put(f"processed/{user}/result.mp4", bucket="media")
    see = "select name from storage.objects where name like '%/result.mp4'"
    for user in (OWNER, ANOTHER):
        assert as_user(cookbook, "authenticated", user, see) == [{"name": f"processed/{user}/result.mp4"}]
    assert as_user(cookbook, "anon", None, see) == []


def scheduled(project: Project, name: str) -> list[Row]:
    return project.sql(project.value("select command from cron.job where jobname = %s", name))


def test_the_nightly_schedule_retries_and_plans_a_backfill(cookbook: Project) -> None:
    [row] = scheduled(cookbook, "media-nightly")
    assert (row["retry_failed"], row["state"]) == (0, "plan")


def test_the_function_accepts_the_scheduled_call(cookbook: Project) -> None:
    cookbook.messages()
    scheduled(cookbook, "media-digest")
    [call] = cookbook.superuser.execute("delete from net.http_request_queue returning *").fetchall()
    assert (call["url"], call["timeout_milliseconds"]) == (ON_UPLOAD, 15000)
    assert json.loads(call["body"]) == {"bucket": "media", "name": "news/latest.mp4", "automation_id": "auto_1"}
    environment = NOWHERE | {"FUNCTIONS_SECRET": SECRET}
    authentication.check_signature(call["headers"], bytes(call["body"]), settings.load(environment))
