"""The doctor on a healthy project, and on the same project with one fault after the other."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from psycopg.types.json import Jsonb

from deploy.doctor import functions, ittybit, supabase
from deploy.doctor.__main__ import main
from deploy.doctor.checks import examine
from deploy.doctor.finding import exit_status
from local.project import TASK
from local.server import Server
from shared.ittybit import Generation
from shared.ittybit_models import Action, Run, Step, Task
from shared.settings import load
from tests.deploy.clone import Clone
from tests.deploy.examined import Examined
from tests.deploy.faults_of_a_project import FAULTS, INSIDE, OUTSIDE, Fault
from tests.functions.calling import NOWHERE
from tests.functions.ittybit_alone import alone
from tests.waiting import until

ALL = {"settings", "database", "migrations", *INSIDE, *OUTSIDE}


@pytest.fixture(scope="module")
def examined() -> Iterator[Examined]:
    """A healthy project; each test leaves it healthy."""
    with Examined.project() as one:
        until(lambda: {finding.verdict for finding in one.look().values()} == {"ok"})
        yield one


def name_of(check: str) -> str:
    return check.replace(" ", "_").replace("-", "_")


def test_a_healthy_project_passes_every_check(examined: Examined) -> None:
    found = examined.look()
    assert {name_of(check) for check in found} == ALL
    assert {one.verdict for one in found.values()} == {"ok"}
    assert {one.remedy for one in found.values()} == {None}
    assert exit_status(found.values()) == 0


def test_host_docker_internal_is_taken_for_this_machine(examined: Examined) -> None:
    inside = examined.environment["ON_UPLOAD_URL"].replace("127.0.0.1", "host.docker.internal")
    with examined.cron_stopped(), examined.at_on_upload(inside):
        assert examined.look()["on-upload"].verdict == "ok"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: re.sub(r"[^a-z0-9]+", "-", fault.name.lower()))
def test_a_fault_is_found_and_nothing_else(examined: Examined, fault: Fault) -> None:
    with fault.make(examined) as changes:
        found = {name_of(check): one for check, one in examined.look(changes).items()}

    reported = {check: one for check, one in found.items() if one.verdict in ("warning", "failure")}
    assert reported.keys() == fault.expected.keys(), reported
    for check, (verdict, saw, remedy) in fault.expected.items():
        assert (reported[check].verdict, saw in reported[check].saw) == (verdict, True), reported[check]
        assert remedy in (reported[check].remedy or ""), reported[check]
    skipped = {check for check, one in found.items() if one.verdict == "skipped"}
    assert skipped == fault.skips
    worst = max([("warning", "failure").index(verdict) + 1 for verdict, _, _ in fault.expected.values()], default=0)
    assert exit_status(found.values()) == worst
    if changes is None and fault.expected.keys() - OUTSIDE:
        # pg_cron may need a second for its next run.
        until(examined.is_database_in_order)


def test_every_check_has_a_fault() -> None:
    assert {check for fault in FAULTS for check in fault.expected} == ALL


def test_a_developers_choices_are_not_reported_as_faults(examined: Examined) -> None:
    examined.sql("update ittybit.rules set enabled = false where automation_id is null")
    address = "update ittybit.functions set url = %s where name = 'push-back'"
    [(former,)] = examined.sql("select url from ittybit.functions where name = 'push-back'")
    examined.sql(address, None)
    try:
        found = examined.look(
            {
                "SUPABASE_SECRET_KEY": examined.stack.keys.service_role_jwt,
                "FUNCTIONS_SECRET": "whsec_" + "A" * 32 + "," + examined.environment["FUNCTIONS_SECRET"],
                "PUSH_BACK_URL": "",
            }
        )
    finally:
        examined.sql(address, former)
        examined.sql("update ittybit.rules set enabled = true")

    assert exit_status(found.values()) == 0
    assert "authorization" in found["supabase key"].saw
    assert "it has 2: finish the rotation" in found["secret"].saw
    assert (found["push-back"].verdict, found["push-back"].remedy) == ("skipped", "Deploy it, or set PUSH_BACK_URL.")


def test_without_the_secret_the_doctor_calls_with_the_token(examined: Examined) -> None:
    found = examined.look({"DATABASE_URL": "", "FUNCTIONS_SECRET": ""})

    assert "accepts the FUNCTIONS_TOKEN" in found["on-upload"].saw
    assert {found[name].verdict for name in ("on-upload", "push-back", "create-connection", "clocks")} == {"ok"}


@pytest.mark.parametrize(
    ("url", "kind", "saw"),
    [
        ("https://abcd.supabase.co", "legacy service_role key", None),
        ("https://other.supabase.co", "", "a key of another project, abcd"),
        # These have no ref to compare.
        ("https://media.example.com", "legacy service_role key", None),
        ("http://127.0.0.1:54321", "legacy service_role key", None),
    ],
)
def test_a_legacy_keys_project_is_compared_only_if_hosted(url: str, kind: str, saw: str | None) -> None:
    key = jwt.encode({"role": "service_role", "ref": "abcd"}, "a" * 32)
    found, fault = supabase._kind(load(NOWHERE | {"SUPABASE_URL": url, "SUPABASE_SECRET_KEY": key}))
    assert (found, fault and fault.saw) == (kind, saw)


OLD, NEW = Action(automation_id="auto_1"), Action(task=Task(kind="video"))
WORDS = Action(task=Task(kind="speech"))
UPLOAD = Step(kind="upload", options={"url": "s3://media/processed/{stem}"})
SIMPLE = Action(run=Run(tasks=[Step(kind="video", next=[UPLOAD])]))
RICH = Action(run=Run(tasks=[Step(kind="video", next=[UPLOAD, Step(kind="image")])]))


@pytest.mark.parametrize(
    ("generation", "asked", "verdict", "saw"),
    [
        ("jobs", {"rule old": OLD, "rule new": NEW}, "failure", "rule old: this ittybit has no automations"),
        ("jobs", {"rule new": NEW, "rule rich": RICH}, "failure", "rule rich: a job of this ittybit is one task"),
        ("jobs", {"rule new": NEW, "rule words": WORDS}, "warning", "documentation lacks a speech (rule words)"),
        ("jobs", {"rule new": NEW, "rule run": SIMPLE}, "ok", "API is jobs, as detected; rules ask for 1 run, 1 task"),
        ("jobs", {}, "ok", "rules ask for nothing"),
        (
            "automations",
            {"rule old": OLD, "rule rich": RICH, "rule run": SIMPLE},
            "ok",
            "its API is automations, as detected; rules ask for 1 automation, 2 runs",
        ),
    ],
)
def test_a_rule_that_ittybits_api_cannot_serve_is_reported(
    tmp_path: Path, generation: Generation, asked: dict[str, Action], verdict: str, saw: str
) -> None:
    with alone(tmp_path, generation) as one:
        found = ittybit.api(load(NOWHERE | {"ITTYBIT_API_URL": one.origin}), asked)
    assert (found.verdict, saw in found.saw) == (verdict, True), found
    assert (found.remedy is None) == (verdict == "ok")


def test_a_project_that_ittybit_cannot_reach_is_a_warning() -> None:
    # Only the first check: the others would call these addresses.
    found = next(examine(NOWHERE | {"SUPABASE_URL": "http://kong:8000", "ITTYBIT_API_URL": "https://example.com"}))
    assert (found.check, found.verdict) == ("settings", "warning")
    assert "set SUPABASE_PUBLIC_URL" in (found.remedy or "")


def test_the_doctor_changes_nothing(examined: Examined) -> None:
    def contents() -> list[object]:
        tables = ("rules", "outputs", "settings", "starts", "holds")
        jobs = examined.sql("select * from ittybit.jobs where reason is distinct from 'probe' order by 1")
        objects = examined.sql("select * from storage.objects")
        return [jobs, objects, *(examined.sql(f"select * from ittybit.{table} order by 1") for table in tables)]  # noqa: S608

    before, connections, started = (
        contents(),
        examined.ittybit("GET", "connections"),
        len(examined.stack.ittybit.journal),
    )
    examined.look()
    assert (contents(), examined.ittybit("GET", "connections")) == (before, connections)
    assert len(examined.stack.ittybit.journal) == started


def test_findings_are_printed_a_line_each_and_the_worst_is_the_exit_status(
    examined: Examined, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], {**examined.environment, "DATABASE_URL": ""}) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(
        "warning   database            not checked: DATABASE_URL is not set -> Set it, or run in"
    )
    assert lines[0].startswith("ok        settings            complete, for http://127.0.0.1:")
    assert re.fullmatch(r"13 checks: \d+ ok, 1 warning, 0 failure, \d skipped", lines[-1])
    assert len(lines) == 14

    assert main(["--json"], {**examined.environment, "ITTYBIT_API_KEY": ""}) == 2
    findings = json.loads(capsys.readouterr().out)
    assert findings[0] == {
        "check": "settings",
        "verdict": "failure",
        "saw": "ITTYBIT_API_KEY is missing",
        "remedy": "Correct it in .env; docs/environment.md describes every variable.",
    }
    assert {name_of(finding["check"]) for finding in findings} == ALL


def test_a_rule_whose_result_stays_at_ittybit_needs_no_connection(examined: Examined) -> None:
    connection = f"connections/{examined.connection}"
    former = examined.ittybit("GET", connection)["name"]
    examined.ittybit("PATCH", connection, json={"name": "another"})
    try:
        assert examined.look()["connection"].verdict == "failure"
        examined.sql("update ittybit.rules set enabled = false where name = 'still'")
        examined.sql("update ittybit.rules set task = task - 'destination' where name = 'video-720p'")
        assert examined.look()["connection"].saw == "there is none, and no rule needs one"
    finally:
        examined.sql("update ittybit.rules set enabled = true where name = 'still'")
        examined.sql("update ittybit.rules set task = %s where name = 'video-720p'", Jsonb(TASK))
        examined.ittybit("PATCH", connection, json={"name": former})


def test_control_characters_in_a_services_answer_are_not_printed(
    examined: Examined, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "\x1b[2J\x1b]0;title\x07\x9b1m\u2028\nok        settings            all is well"
    examined.stack.ittybit_api.add("GET", "/connections", status=401, body={"kind": "k", "message": said})
    try:
        main([], {**examined.environment, "DATABASE_URL": ""})
    finally:
        examined.stack.ittybit_api.clear()
    printed = capsys.readouterr().out
    assert " [2J ]0;title 1m ok        settings " in printed
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028]", printed)
    assert printed.count("\n") == 14


def test_a_malformed_address_is_reported_as_one() -> None:
    def app(_: Any, start_response: Any) -> list[bytes]:
        start_response("308 Permanent Redirect", [("Location", "http://[")])
        return []

    with Server(app) as server:
        for url in (server.origin, "http://["):
            found = functions.visit("on-upload", url, load(NOWHERE), "whsec_" + "A" * 32).finding
            assert found.verdict == "failure"
            assert "an invalid address" in f"{found.saw} {found.remedy}"


@pytest.mark.parametrize("url", ["http://functions.test", "http://127.0.0.1.functions.test", "//functions.test"])
def test_the_token_is_sent_only_over_https_or_to_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "post", lambda *_: pytest.fail("it was called"))
    found = functions.visit("on-upload", url, load(NOWHERE), None)
    assert (found.finding.verdict, "plain http" in found.finding.saw) == ("failure", True)


def test_without_make_serve_one_sentence_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env-file", str(tmp_path / "serve.env")]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "`make serve` writes build/serve.env while it runs" in printed.err


# In place of the virtual environment that `make` would have made.
VENV = {"VENV": sys.prefix}
INSTALL = f"make --quiet {sys.prefix}/deploy VENV={sys.prefix}"


def test_deploy_sh_doctor_examines_the_project_that_env_describes(clone: Clone, examined: Examined) -> None:
    clone.commands.add("make", answer="installing\n")
    clone.write_env(examined.environment)
    done = clone.deploy("doctor", "--json", environment=VENV)
    assert (done.returncode, done.stderr) == (0, "installing\n")
    assert {name_of(finding["check"]) for finding in json.loads(done.stdout)} == ALL
    assert [call.line for call in clone.commands.calls()] == [INSTALL]

    clone.write_env({**examined.environment, "SUPABASE_SECRET_KEY": "sb_secret_of_nobody_0000"}, "staging")
    done = clone.deploy("--env", "staging", "doctor", environment=VENV)
    assert done.returncode == 2
    assert re.search(r"^failure +supabase key +storage: Invalid API key -> ", done.stdout, re.MULTILINE)


def test_a_doctor_that_cannot_be_installed_says_so(clone: Clone) -> None:
    clone.commands.add("make")
    clone.commands.fail("make", message="no network")
    done = clone.deploy("doctor", environment=VENV)
    assert (done.returncode, done.stdout) == (2, "")
    said = ["no network", "deploy.sh: deploy.sh's Python packages could not be installed", "  Fix the error above."]
    assert done.stderr.splitlines() == said


def test_a_dry_run_of_the_doctor_prints_what_would_run(clone: Clone) -> None:
    clone.commands.add("make")
    done = clone.deploy("--dry-run", "doctor", "--json", environment=VENV)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [INSTALL, f"{sys.prefix}/bin/python -m deploy.doctor --json"]
    assert clone.commands.calls() == []


def test_help_names_the_doctor(clone: Clone) -> None:
    clone.commands.add("make")
    assert "doctor [--json]" in clone.deploy("--help").stdout
    assert "--env-file" in clone.deploy("doctor", "--help", environment=VENV).stdout
