from __future__ import annotations

import json
import re
import stat
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from shared.settings import Settings
from tests.deploy.clone import Clone
from tests.deploy.clouds import Cloud, Host, Secret, Service, is_deployed
from tests.deploy.developer import Developer
from tests.deploy.hosted import GOOGLE, KUBERNETES, NAMES, PLAIN, SECRETS, SETTINGS, assert_no_secret, changing

EXPECTED = Path(__file__).resolve().parent / "expected"


def deploy(clone: Clone, *arguments: str, pause: str = "0") -> Any:
    return clone.deploy("--yes", *arguments, environment={"DEPLOY_PAUSE": pause})


# What each function is given.


def test_every_setting_is_given_to_a_function(clone: Clone) -> None:
    names = {name.upper() for name in Settings.model_fields}
    script = "".join(f"export {name}=x\n" for name in names | {"THREADS"})
    given = {
        name: clone.bash(f"{script}secrets_of {name}; variables_of {name}").stdout.split()
        for name in (*NAMES, "together")
    }

    assert sorted(given.pop("together")) == sorted({name for of in given.values() for name in of})
    assert {name for of in given.values() for name in of} == names | {"THREADS"}
    assert "DESTINATION_BUCKETS" in given["create-connection"]  # where it tries the keys
    only = {name for name in names if name.startswith("SUPABASE_S3_")}
    assert only == {n for n in given["create-connection"] if n not in given["on-upload"] + given["push-back"]}
    plain_mode = {"ITTYBIT_AUTOMATION_ID", "WATCH_BUCKET", "WATCH_PATH", "WATCH_TYPE"}
    assert plain_mode == {n for n in given["on-upload"] if n not in given["push-back"]}


# Dry runs.


@pytest.mark.parametrize("expected", sorted(EXPECTED.iterdir()), ids=lambda file: file.stem)
def test_a_dry_run_prints_every_command_that_would_run(clone: Clone, expected: Path) -> None:
    clone.take("python3")
    runtime, _, together = expected.stem.partition("--")
    result = clone.deploy("--dry-run", "functions", "--to", runtime, *([f"--{together}"] if together else []))

    assert result.returncode == 0, result.stderr
    assert result.stdout == expected.read_text()
    assert clone.commands.calls() == []
    assert not (clone.root / "build").exists()
    assert not clone.env_file().exists()


def test_options_may_come_before_or_after_the_verb(clone: Clone) -> None:
    clone.write_env(SETTINGS, "staging")
    before = clone.deploy("--env", "staging", "--dry-run", "--yes", "functions", "--to", "process")
    behind = clone.deploy("functions", "--dry-run", "--to", "process", "--env", "staging", "--yes")
    assert (behind.returncode, behind.stdout) == (0, before.stdout)
    assert "staging" in behind.stdout


def test_a_dry_run_of_stage_writes_nothing(clone: Clone) -> None:
    result = clone.deploy("stage", "push-back", "--dry-run")
    assert (result.returncode, result.stdout) == (0, "./deploy.sh stage push-back\n")
    assert not (clone.root / "build").exists()


@pytest.mark.parametrize(
    "runtime",
    [
        *("cloud-run", "knative", "process"),
        *(pytest.param(like, marks=pytest.mark.variation) for like in ("cloud-functions", "container")),
    ],
)
@pytest.mark.usefixtures("host")
def test_a_dry_run_with_settings_shows_no_secret(clone: Clone, runtime: str) -> None:
    clone.write_env(SETTINGS | GOOGLE | KUBERNETES, "staging")
    result = clone.deploy("--env", "staging", "--dry-run", "functions", "--to", runtime)

    assert result.returncode == 0, result.stderr
    assert "on-upload-staging" in result.stdout
    assert PLAIN["SUPABASE_URL"] in result.stdout or runtime == "container"
    assert clone.commands.calls() == []
    assert_no_secret(clone, result.stdout + result.stderr)


# Google.


@pytest.mark.parametrize("runtime", ["cloud-run", "cloud-functions"])
def test_google_deploys_all_three_functions(clone: Clone, cloud: Cloud, runtime: str) -> None:
    result = deploy(clone, "functions", "--to", runtime)

    assert result.returncode == 0, result.stderr
    assert_no_secret(clone, result.stdout + result.stderr)
    services = cloud.services
    assert {name: set(service.secrets) for name, service in services.items()} == {
        "on-upload": set(SECRETS) - {"SUPABASE_S3_SECRET_ACCESS_KEY"},
        "push-back": set(SECRETS) - {"SUPABASE_S3_SECRET_ACCESS_KEY"},
        "create-connection": set(SECRETS),
    }
    assert services["create-connection"].secrets == SECRETS
    for secret in cloud.secrets.values():
        assert secret.readers == ["serviceAccount:1234-compute@developer.gserviceaccount.com"]
    env = clone.read_env()
    assert [env[f"{name.upper().replace('-', '_')}_URL"] for name in NAMES] == [services[n].url for n in NAMES]
    assert stat.S_IMODE(clone.env_file().stat().st_mode) == 0o600
    assert env["DEPLOY_TO"] == runtime
    assert "./deploy.sh database" in result.stderr
    # It was staged in the clone, from another folder, and without .pyc files of this machine's Python.
    staged = {
        str(path.relative_to(clone.root / "build/on-upload")) for path in (clone.root / "build/on-upload").rglob("*")
    }
    assert {"main.py", "requirements.txt", "shared/settings.py"} < staged
    assert not [path for path in staged if path.endswith(".pyc")]


def test_a_second_run_stores_nothing_and_deploys_the_same(clone: Clone, cloud: Cloud) -> None:
    deploy(clone, "functions", "--to", "cloud-run")
    env, before = clone.env_file().read_text(), deepcopy((cloud.secrets, cloud.services))
    clone.commands.forget()

    result = deploy(clone, "functions", "--to", "cloud-run")

    assert result.returncode == 0, result.stderr
    assert [line.split(" --")[0] for line in changing(clone)] == [f"gcloud run deploy {name}" for name in NAMES]
    assert (cloud.secrets, cloud.services) == before
    assert clone.env_file().read_text() == env


def test_a_changed_secret_gets_a_new_version_which_the_revision_names(clone: Clone, cloud: Cloud) -> None:
    is_deployed(cloud)
    clone.write_env(clone.read_env() | {"ITTYBIT_API_KEY": "itt_another-key"})

    deploy(clone, "functions", "--to", "cloud-run", "on-upload")

    assert [line.split(" --")[0] for line in changing(clone)] == [
        "gcloud secrets versions add supabase-ittybit-ittybit-api-key",
        "gcloud run deploy on-upload",
    ]
    assert "ITTYBIT_API_KEY=supabase-ittybit-ittybit-api-key:2," in changing(clone)[-1]
    assert cloud.services["on-upload"].secrets["ITTYBIT_API_KEY"] == "itt_another-key"


def test_staging_keeps_names_secrets_and_addresses_apart(clone: Clone, cloud: Cloud) -> None:
    is_deployed(cloud)
    clone.write_env(clone.read_env() | {"ON_UPLOAD_URL": cloud.services["on-upload"].url})
    clone.write_env(SETTINGS | GOOGLE | {"ITTYBIT_API_KEY": "itt_of_staging"}, "staging")

    result = clone.deploy("--yes", "--env", "staging", "functions", "--to", "cloud-run", "on-upload")

    assert result.returncode == 0, result.stderr
    services = cloud.services
    assert services["on-upload"].secrets["ITTYBIT_API_KEY"] == SECRETS["ITTYBIT_API_KEY"]
    assert services["on-upload-staging"].secrets["ITTYBIT_API_KEY"] == "itt_of_staging"
    assert clone.read_env("staging")["ON_UPLOAD_URL"] == services["on-upload-staging"].url
    assert clone.read_env()["ON_UPLOAD_URL"] == services["on-upload"].url


def test_values_with_commas_and_a_service_account_are_passed_on(clone: Clone, cloud: Cloud) -> None:
    own = {
        "OUTPUT_PREFIXES": "processed/,out/",
        "SERVICE_ACCOUNT": "fn@a-project.iam.gserviceaccount.com",
        "THREADS": "8",
    }
    clone.write_env(SETTINGS | GOOGLE | own)

    deploy(clone, "functions", "--to", "cloud-run", "push-back")

    [call] = [call for call in clone.commands.calls("gcloud") if "deploy" in call.argv]
    assert (
        f"--set-env-vars=^;;^THREADS=8;;SUPABASE_URL={PLAIN['SUPABASE_URL']};;OUTPUT_PREFIXES=processed/,out/"
        in call.argv
    )
    assert {"--concurrency=8", f"--service-account={own['SERVICE_ACCOUNT']}"} < set(call.argv)
    assert cloud.secrets["supabase-ittybit-functions-token"].readers == [f"serviceAccount:{own['SERVICE_ACCOUNT']}"]


def test_missing_secrets_are_made(clone: Clone, cloud: Cloud) -> None:
    settings = {name: value for name, value in SETTINGS.items() if not name.startswith("FUNCTIONS_")}
    clone.write_env(settings | GOOGLE)

    result = deploy(clone, "functions", "--to", "cloud-run", "on-upload")

    assert result.returncode == 0, result.stderr
    env = clone.read_env()
    assert cloud.services["on-upload"].secrets["FUNCTIONS_SECRET"] == env["FUNCTIONS_SECRET"]
    assert_no_secret(clone, result.stdout + result.stderr)


def test_a_secret_that_the_cloud_has_is_not_made_again(clone: Clone, cloud: Cloud) -> None:
    is_deployed(cloud)
    clone.write_env({name: value for name, value in (SETTINGS | GOOGLE).items() if name != "FUNCTIONS_SECRET"})
    before = deepcopy((cloud.secrets, cloud.services))

    result = deploy(clone, "functions", "--to", "cloud-run", "on-upload")

    assert result.returncode == 2
    assert ".env has no FUNCTIONS_SECRET, and cloud-run has one already" in result.stderr
    assert "gcloud secrets versions access latest --secret=supabase-ittybit-functions-secret" in result.stderr
    assert (cloud.secrets, cloud.services) == before
    assert "FUNCTIONS_SECRET" not in clone.read_env()


@pytest.mark.usefixtures("host")
def test_an_address_that_a_person_has_set_stays(clone: Clone) -> None:
    clone.write_env(SETTINGS | GOOGLE | {"ON_UPLOAD_URL": "https://hooks.example.com/on-upload"})
    result = deploy(clone, "functions", "--to", "cloud-run", "on-upload")
    assert clone.read_env()["ON_UPLOAD_URL"] == "https://hooks.example.com/on-upload"
    assert "ON_UPLOAD_URL=https://hooks.example.com/on-upload, which stays" in result.stderr


def test_the_runtime_may_be_in_the_file_and_the_command_line_overrides_it(clone: Clone, cloud: Cloud) -> None:
    clone.write_env(SETTINGS | GOOGLE | {"DEPLOY_TO": "process"})
    assert "Procfile" in deploy(clone, "functions", "on-upload").stdout
    deploy(clone, "functions", "--to=cloud-run", "on-upload")
    assert "on-upload" in cloud.services
    assert clone.read_env()["DEPLOY_TO"] == "process"


# Faulty settings are reported before anything is changed.


WRONG: list[tuple[dict[str, str], str]] = [
    ({"ITTYBIT_API_KEY": "", "SUPABASE_S3_REGION": ""}, "not set: ITTYBIT_API_KEY, SUPABASE_S3_REGION"),
    ({"REGION": ""}, "not set: REGION"),
    ({"SUPABASE_URL": "https://abcdefgh.supabase.co/rest/v1"}, "put https://abcdefgh.supabase.co\n"),
    ({"FUNCTIONS_TOKEN": SECRETS["FUNCTIONS_SECRET"]}, "FUNCTIONS_TOKEN must not be the FUNCTIONS_SECRET"),
    # All malformed settings are reported at once.
    (
        {"SUPABASE_SECRET_KEY": "sb_publishable_hunter2", "FUNCTIONS_SECRET": "hunter2hunter2"},
        "SUPABASE_SECRET_KEY must not be a publishable or anon key|FUNCTIONS_SECRET must be whsec_",
    ),
    ({"THREADS": "many"}, "THREADS is not a number"),
    ({"MAX_INSTANCES": "0"}, "MAX_INSTANCES is not a number"),
    ({"DEPLOY_TOGETHER": "no"}, "DEPLOY_TOGETHER is not true"),
]


@pytest.mark.usefixtures("host")
def test_invalid_settings_are_refused(clone: Clone) -> None:
    for changes, said in WRONG:
        clone.write_env(SETTINGS | GOOGLE | changes)
        env = clone.env_file().read_text()
        result = deploy(clone, "functions", "--to", "cloud-run")
        assert result.returncode == 2
        assert [part for part in said.split("|") if part not in result.stderr] == []
        assert clone.env_file().read_text() == env
        assert "hunter2" not in result.stderr
    assert changing(clone) == []


@pytest.mark.usefixtures("host")
def test_a_project_that_ittybit_cannot_reach_is_deployed_for_with_a_warning(clone: Clone) -> None:
    url = "http://kong:8000"
    clone.write_env(SETTINGS | GOOGLE | {"SUPABASE_URL": url})
    alone = deploy(clone, "functions", "--to", "process")
    assert f"  set       SUPABASE_URL={url}\n" in alone.stdout
    assert alone.stderr.count("set SUPABASE_PUBLIC_URL to an address that the internet can reach") == 1

    clone.write_env(SETTINGS | GOOGLE | {"SUPABASE_URL": url, "SUPABASE_PUBLIC_URL": "https://supabase.example.com"})
    both = deploy(clone, "functions", "--to", "process")
    assert "  set       SUPABASE_PUBLIC_URL=https://supabase.example.com\n" in both.stdout
    assert "ittybit cannot reach" not in both.stderr


@pytest.mark.usefixtures("host")
def test_the_s3_keys_are_needed_only_for_create_connection(clone: Clone) -> None:
    clone.write_env({name: value for name, value in (SETTINGS | GOOGLE).items() if not name.startswith("SUPABASE_S3")})
    result = deploy(clone, "functions", "--to", "cloud-run", "on-upload", "push-back")
    assert result.returncode == 0, result.stderr
    assert "not set: SUPABASE_S3_ACCESS_KEY_ID" in deploy(clone, "functions", "--to", "cloud-run").stderr


@pytest.mark.usefixtures("host")
def test_an_invalid_command_is_refused(clone: Clone) -> None:
    for arguments, said in {
        "functions": "no runtime is given",
        "functions --to lambda": "no runtime 'lambda'",
        "functions --to cloud-run on-download": "no function 'on-download'",
        "functions --to cloud-run together": "no function 'together'",
        "functions --to cloud-run --together on-upload": "on-upload cannot be deployed alone",
        "stage together on-upload": "no function 'together'",
        "functions --too cloud-run": "unknown option '--too'",
        "functions --to": "no runtime is given",
    }.items():
        result = deploy(clone, *arguments.split())
        assert (result.returncode, result.stdout) == (2, "")
        assert said in result.stderr
    assert clone.commands.calls() == []


@pytest.mark.usefixtures("host")
def test_a_missing_tool_is_named(clone: Clone) -> None:
    for tool in ("python3", "curl", "gcloud"):
        clone.take(tool)
        result = deploy(clone, "functions", "--to", "cloud-run")
        assert result.returncode == 2
        assert f"{tool} is not installed" in result.stderr
    assert changing(clone) == []


@pytest.mark.usefixtures("host")
def test_a_build_folder_that_cannot_be_written_is_reported(clone: Clone) -> None:
    (clone.root / "build").write_text("a file is in the way")
    result = deploy(clone, "functions", "--to", "cloud-run")
    assert (result.returncode, changing(clone)) == (2, [])
    said = r"deploy\.sh: build/on-upload cannot be written: mkdir: .*build.*: .*\n  Make room .*\n"
    assert re.fullmatch(said, result.stderr)


@pytest.mark.usefixtures("host")
def test_code_that_does_not_compile_is_not_deployed(clone: Clone) -> None:
    (clone.root / "shared" / "broken.py").write_text("def (\n")
    result = deploy(clone, "functions", "--to", "cloud-run")
    assert result.returncode == 2
    assert "SyntaxError" in result.stdout + result.stderr
    assert changing(clone) == []


@pytest.mark.usefixtures("host")
def test_without_a_terminal_nothing_is_deployed_unless_yes_is_given(clone: Clone) -> None:
    result = clone.deploy("functions", "--to", "cloud-run")
    assert result.returncode == 2
    assert "Deploy on-upload, push-back, create-connection to cloud-run in project a-project" in result.stderr
    assert changing(clone) == []


@pytest.mark.usefixtures("host")
def test_without_a_google_login_nothing_is_deployed(clone: Clone) -> None:
    clone.commands.fail("gcloud", "auth", "list")
    result = deploy(clone, "functions", "--to", "cloud-run")
    assert (result.returncode, changing(clone)) == (2, [])
    assert "gcloud auth login" in result.stderr


# A failure stops the command and names the remedy; the same command then continues.


@pytest.mark.parametrize(
    ("words", "after"),
    [
        pytest.param(("services", "enable"), 0, marks=pytest.mark.variation),
        (("secrets", "create"), 1),
        pytest.param(("secrets", "list"), 0, marks=pytest.mark.variation),
        pytest.param(("add-iam-policy-binding",), 1, marks=pytest.mark.variation),
        pytest.param(("run", "deploy", "push-back"), 0, marks=pytest.mark.variation),
        (("run", "services", "describe", "push-back"), 0),
    ],
)
def test_a_failed_step_stops_the_deployment_and_a_second_run_completes_it(
    clone: Clone, cloud: Cloud, words: tuple[str, ...], after: int
) -> None:
    clone.commands.fail("gcloud", *words, message="PERMISSION_DENIED: you may not", after=after)

    result = deploy(clone, "functions", "--to", "cloud-run")

    assert result.returncode == 2
    assert "PERMISSION_DENIED: you may not" in result.stderr
    assert result.stderr.splitlines()[-2].startswith("deploy.sh: ")
    assert set(words) <= set(clone.commands.calls("gcloud")[-1].argv)
    again = deploy(clone, "functions", "--to", "cloud-run")
    assert again.returncode == 0, again.stderr
    assert {len(secret.versions) for secret in cloud.secrets.values()} == {1}


@pytest.mark.parametrize("words", [("versions", "add"), ("versions", "describe", "latest")])
def test_a_failed_change_of_a_secret_stops_the_deployment_and_a_second_run_completes_it(
    clone: Clone, cloud: Cloud, words: tuple[str, ...]
) -> None:
    is_deployed(cloud)
    clone.write_env(clone.read_env() | {"ITTYBIT_API_KEY": "itt_another-key"})
    clone.commands.fail("gcloud", *words, message="PERMISSION_DENIED: you may not")

    result = deploy(clone, "functions", "--to", "cloud-run")

    assert (result.returncode, "PERMISSION_DENIED: you may not" in result.stderr) == (2, True)
    assert cloud.services["on-upload"].secrets["ITTYBIT_API_KEY"] == SECRETS["ITTYBIT_API_KEY"]
    assert deploy(clone, "functions", "--to", "cloud-run").returncode == 0
    assert cloud.services["on-upload"].secrets["ITTYBIT_API_KEY"] == "itt_another-key"
    assert len(cloud.secrets["supabase-ittybit-ittybit-api-key"].versions) == 2


@pytest.mark.usefixtures("host")
def test_a_first_deployment_calls_gcloud_21_times(clone: Clone) -> None:
    assert deploy(clone, "functions", "--to", "cloud-run").returncode == 0
    # The real gcloud takes a second or two a call: five for the project, two a secret, two a function.
    assert len(clone.commands.calls("gcloud")) == 5 + 2 * len(SECRETS) + 2 * len(NAMES)


def test_a_function_that_does_not_answer_a_stranger_with_401_is_reported(clone: Clone, cloud: Cloud) -> None:
    check = 'source deploy/functions.sh; load_runtime cloud-run; check_answer on-upload on-upload "https://a.test"'
    for status, said in {
        "403": "its host refuses callers before the function sees them (403)",
        "302": "answers with a redirect (302)",
        "000": "cannot be reached",
        "503": "answers 503, not 401",
        "200": "answers 200, not 401",
    }.items():
        cloud.statuses = [status] * 6
        result = clone.bash(f"PLACE=a PROJECT=b; {check}", {"DEPLOY_PAUSE": "0"})
        assert result.returncode == 2
        assert said in result.stderr
    assert "ON_UPLOAD_URL" not in clone.read_env()


def test_a_host_that_needs_a_while_to_let_callers_in_is_waited_for(clone: Clone, cloud: Cloud) -> None:
    cloud.statuses = ["404", "403"]
    assert deploy(clone, "functions", "--to", "cloud-run", "on-upload").returncode == 0
    assert len(clone.commands.calls("curl")) == 3


# All functions as one service.


@pytest.mark.parametrize(
    "runtime",
    ["cloud-run", *(pytest.param(like, marks=pytest.mark.variation) for like in ("cloud-functions", "knative"))],
)
def test_together_they_are_one_service_with_a_path_for_each(clone: Clone, cloud: Cloud, runtime: str) -> None:
    result = deploy(clone, "functions", "--to", runtime, "--together")

    assert result.returncode == 0, result.stderr
    assert_no_secret(clone, result.stdout + result.stderr)
    assert {name: service.secrets for name, service in cloud.services.items()} == {"together": SECRETS}
    env = clone.read_env()
    url = cloud.services["together"].url
    assert [env[f"{name.upper().replace('-', '_')}_URL"] for name in NAMES] == [f"{url}/{name}" for name in NAMES]

    # From now on the setting is in the file.
    assert env["DEPLOY_TOGETHER"] == "true"
    deploy(clone, "functions")
    assert clone.read_env() == env
    assert "on-upload cannot be deployed alone" in deploy(clone, "functions", "on-upload").stderr
    assert clone.bash(REMOVE.format(runtime)).returncode == 0
    assert cloud.services == {}


@pytest.mark.usefixtures("host")
def test_the_together_folder_for_a_procfile_host_is_complete_and_reused(clone: Clone) -> None:
    result = clone.deploy("functions", "--to", "process", "--together")
    assert result.returncode == 0, result.stderr
    assert "each with its path: https://…/on-upload," in result.stderr
    folder = clone.root / "build" / "together"
    line = "web: python -m functions_framework --source=main.py --target=together\n"
    assert (folder / "Procfile").read_text() == line
    assert {path.name for path in (folder / "functions").iterdir()} == {
        f"{name.replace('-', '_')}.py" for name in NAMES
    }
    was = folder.stat().st_ino
    assert clone.deploy("stage", "together").stdout == "staged build/together (target together)\n"
    assert folder.stat().st_ino == was


# Knative.


def test_knative_deploys_the_image_by_its_digest(clone: Clone, host: Host) -> None:
    result = deploy(clone, "functions", "--to", "knative")

    assert result.returncode == 0, result.stderr
    assert_no_secret(clone, result.stdout + result.stderr)
    assert set(host.cluster.data["supabase-ittybit"]) == set(SECRETS)
    assert set(host.cluster.manifests) == set(NAMES)
    for manifest in host.cluster.manifests.values():
        assert f"image: ghcr.io/me/supabase-ittybit@sha256:{'1' * 64}" in manifest
    assert "SUPABASE_S3" not in host.cluster.manifests["on-upload"]
    assert clone.read_env()["PUSH_BACK_URL"] == "https://push-back.default.example.com"


def test_knative_keeps_other_functions_and_restarts_nothing_for_the_same_secrets(clone: Clone, host: Host) -> None:
    deploy(clone, "functions", "--to", "knative")
    before = deepcopy((host.cluster.manifests, host.cluster.data, host.cluster.version))
    clone.write_env({n: v for n, v in clone.read_env().items() if not n.startswith("SUPABASE_S3")})

    result = deploy(clone, "functions", "--to", "knative", "on-upload")

    assert result.returncode == 0, result.stderr
    assert (host.cluster.manifests, host.cluster.data, host.cluster.version) == before


@pytest.mark.usefixtures("host")
def test_knative_needs_a_registry(clone: Clone) -> None:
    clone.write_env(SETTINGS | KUBERNETES | {"IMAGE": "supabase-ittybit"})
    result = deploy(clone, "functions", "--to", "knative")
    assert (result.returncode, changing(clone)) == (2, [])
    assert "IMAGE names no registry" in result.stderr


def test_every_value_is_quoted_for_yaml(clone: Clone) -> None:
    names = ("WATCH_PATH", "WATCH_BUCKET", "WATCH_TYPE", "OUTPUT_PREFIXES", "ITTYBIT_API", "ITTYBIT_AUTOMATION_ID")
    texts = ('a "quoted" one', "back\\slash", "a: b # c", "{x}", "*", "processed/,out/")
    values = dict(zip(names, texts, strict=True))
    clone.write_env({name: f"'{text}'" for name, text in values.items()})
    result = clone.deploy("--dry-run", "functions", "--to", "knative", "on-upload")
    written = dict(re.findall(r"\{name: (\w+), value: (\".*\")\}$", result.stdout, re.MULTILINE))
    assert {name: json.loads(written[name]) for name in names} == values


# Containers and processes: the person starts them.


def test_the_containers_env_file_is_readable_only_by_its_owner(clone: Clone, host: Host) -> None:
    clone.write_env(SETTINGS | {"WATCH_PATH": "clips/** and more"})
    result = deploy(clone, "functions", "--to", "container")

    assert result.returncode == 0, result.stderr
    assert_no_secret(clone, result.stdout + result.stderr)
    file = clone.root / "build" / "on-upload.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert lines == {
        "FUNCTION_TARGET": "on_upload",
        "FUNCTION_SOURCE": "functions/on_upload.py",
        "THREADS": "16",
        "SUPABASE_URL": PLAIN["SUPABASE_URL"],
        "WATCH_PATH": "clips/** and more",
        **{name: value for name, value in SECRETS.items() if name != "SUPABASE_S3_SECRET_ACCESS_KEY"},
    }
    assert [c.argv[0] for c in clone.commands.calls("docker")] == ["build"]
    assert host.docker.context == {
        *("Dockerfile", "requirements.txt"),
        *(f"functions/{name.replace('-', '_')}.py" for name in (*NAMES, "together")),
        *(f"shared/{path.name}" for path in (clone.root / "shared").glob("*.py")),
    }


@pytest.mark.usefixtures("host")
def test_an_image_with_a_registry_is_pushed(clone: Clone) -> None:
    result = deploy(clone, "functions", "--to", "container", "on-upload")
    assert result.returncode == 0, result.stderr
    assert [c.argv for c in clone.commands.calls("docker")] == [
        ["build", "--pull", "--tag", KUBERNETES["IMAGE"], "build/container"],
        ["push", KUBERNETES["IMAGE"]],
    ]


@pytest.mark.usefixtures("host")
def test_for_a_process_host_no_secret_is_printed_and_nothing_is_asked(clone: Clone) -> None:
    result = clone.deploy("functions", "--to", "process")
    assert result.returncode == 0, result.stderr
    assert "deploying" not in result.stderr
    assert "push-back: how to start it\n" in result.stderr
    assert "Procfile  web: python -m functions_framework --source=main.py --target=push_back" in result.stdout
    assert_no_secret(clone, result.stdout + result.stderr)
    assert (clone.root / "build/push-back/main.py").exists()


# Removal.

REMOVE = "source deploy/functions.sh; load_environment; DEPLOY_TO={}; remove_functions"


@pytest.mark.parametrize("runtime", ["cloud-run", "cloud-functions"])
def test_removal_from_google_deletes_functions_and_secrets(clone: Clone, cloud: Cloud, runtime: str) -> None:
    is_deployed(cloud)
    cloud.secrets["database-password"] = Secret()
    cloud.services["web"] = Service("https://web.example.com", {})

    first = clone.bash(REMOVE.format(runtime))
    clone.commands.forget()
    second = clone.bash(REMOVE.format(runtime))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert set(cloud.services) == {"web"}
    assert set(cloud.secrets) == {"database-password"}
    assert changing(clone) == []
    assert first.stdout == second.stdout
    assert [line for line in first.stdout.splitlines() if line.startswith("left:")] == [
        "left: images that were built, in Artifact Registry of a-project, europe-west1; "
        "other services may use that repository:"
    ]


def test_a_removal_that_fails_says_so_and_can_be_run_again(clone: Clone, cloud: Cloud) -> None:
    is_deployed(cloud)
    clone.commands.fail("gcloud", "delete", "push-back", message="PERMISSION_DENIED")
    assert clone.bash(REMOVE.format("cloud-run")).returncode == 2
    assert clone.bash(REMOVE.format("cloud-run")).returncode == 0
    assert cloud.services == {}


def test_removal_from_knative_deletes_functions_and_secrets(clone: Clone, host: Host) -> None:
    host.cluster.manifests = dict.fromkeys(NAMES, "kind: Service")
    host.cluster.data = {"supabase-ittybit": dict(SECRETS)}
    for _ in range(2):
        result = clone.bash(REMOVE.format("knative"))
        assert (result.returncode, result.stdout) == (0, f"left: the image {KUBERNETES['IMAGE']} in its registry\n")
    assert (host.cluster.manifests, host.cluster.data) == ({}, {})


@pytest.mark.usefixtures("host")
def test_without_a_runtime_nothing_is_called(clone: Clone) -> None:
    result = clone.bash(REMOVE.format(""))
    assert result.returncode == 0
    assert "names no runtime" in result.stderr
    assert clone.commands.calls() == []


# Help.


@pytest.mark.parametrize("verb", ["stage", "functions", "rotate-secret"])
def test_a_verb_has_its_own_help(clone: Clone, verb: str) -> None:
    result = clone.deploy(verb, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: ./deploy.sh [options] {verb}")
    assert f"  {verb}" in clone.deploy("--help").stdout


def test_the_verb_remove_deletes_the_functions_too(developer: Developer) -> None:
    clone = developer.clone
    cloud = Host(clone.commands).cloud
    clone.write_env(SETTINGS | GOOGLE | developer.env | {"DEPLOY_TO": "cloud-run"})
    is_deployed(cloud)

    result = deploy(clone, "remove")

    assert result.returncode == 0, result.stderr
    assert (cloud.services, cloud.secrets) == ({}, {})
    assert "left: images that were built" in result.stdout
