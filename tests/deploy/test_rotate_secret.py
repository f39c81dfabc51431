from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest

from tests.deploy.clone import Clone
from tests.deploy.clouds import Cloud, Host, Service, is_deployed
from tests.deploy.fakes import CommandCall, CommandError
from tests.deploy.hosted import GOOGLE, KUBERNETES, NAMES, SECRETS, SETTINGS, assert_no_secret, changing

OLD = SETTINGS["FUNCTIONS_SECRET"]
DATABASE = {"DATABASE_URL": "postgresql://postgres:made-up@127.0.0.1:5432/postgres"}
NOW = {"DEPLOY_PAUSE": "0"}


class Vault:
    """What psql reads of the database: the secret it signs with, and how many calls are on their way."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.history = [secret]
        self.calls_left = 0

    def psql(self, call: CommandCall) -> str:
        """Answer as the SQL file would."""
        match call.argv[-1]:
            case "deploy/store_secret.sql":
                [secret] = call.stdin.split()
                if secret == self.secret:
                    return "unchanged\n"
                self.secret = secret
                self.history.append(secret)
                return "replaced\n"
            case "deploy/calls_now.sql":
                return "1700000000|-\n"
            case "deploy/calls_left.sql":
                self.calls_left -= 1
                return f"{max(self.calls_left + 1, 0)}\n"
        raise CommandError("ERROR:  no such file")


@pytest.fixture
def vault(clone: Clone, cloud: Cloud) -> Vault:
    """The database of a project whose functions are on Cloud Run."""
    is_deployed(cloud)
    addresses = {f"{name.upper().replace('-', '_')}_URL": cloud.services[name].url for name in NAMES}
    clone.write_env(SETTINGS | GOOGLE | KUBERNETES | DATABASE | addresses | {"DEPLOY_TO": "cloud-run"})
    vault = Vault(OLD)
    clone.commands.add("psql", vault.psql)
    return vault


def rotate(clone: Clone, environment: Mapping[str, str] = NOW) -> subprocess.CompletedProcess[str]:
    return clone.deploy("--yes", "rotate-secret", environment=environment)


def deployed(cloud: Cloud) -> set[str]:
    """The FUNCTIONS_SECRET of all functions."""
    return {service.secrets["FUNCTIONS_SECRET"] for service in cloud.services.values()}


def test_the_functions_the_database_and_the_file_get_the_new_secret(clone: Clone, cloud: Cloud, vault: Vault) -> None:
    seen: list[tuple[str, str, str]] = []
    cloud.rolled = lambda name, secrets: seen.append((name, secrets["FUNCTIONS_SECRET"], vault.secret))
    vault.calls_left = 2

    result = rotate(clone, {"DEPLOY_PAUSE": "0"})

    assert result.returncode == 0, result.stderr
    new = clone.read_env()["FUNCTIONS_SECRET"]
    assert new.startswith("whsec_")
    assert new != OLD
    assert deployed(cloud) == {new}
    assert vault.history == [OLD, new]
    # All functions accept both while the database signs with the old one, and only the new one afterwards.
    names = list(cloud.services)
    assert seen == [(name, f"{new},{OLD}", OLD) for name in names] + [(name, new, new) for name in names]
    assert vault.calls_left < 0, "it did not wait for the calls on their way"
    assert_no_secret(clone, result.stdout + result.stderr)
    assert OLD not in result.stdout + result.stderr
    assert [call.line for call in clone.commands.calls() if OLD in call.line or new in call.line] == []


def test_nothing_but_the_secret_is_changed(clone: Clone, cloud: Cloud, vault: Vault) -> None:
    # Other settings are not checked, even an address that ittybit cannot reach.
    others = {"ITTYBIT_API_KEY": "itt_not-deployed-yet", "THREADS": "99", "SUPABASE_URL": "http://kong:8000"}
    clone.write_env(clone.read_env() | others)

    assert rotate(clone).returncode == 0

    assert deployed(cloud) == {vault.secret} != {OLD}
    changes = {line.split(" --")[0] for line in changing(clone) if line.startswith("gcloud")}
    assert changes == {
        "gcloud secrets versions add supabase-ittybit-functions-secret",
        *(f"gcloud run services update {name}" for name in cloud.services),
    }


STEPS = [
    ("gcloud", ("versions", "add"), 0),
    pytest.param("gcloud", ("services", "update", "push-back"), 0, marks=pytest.mark.variation),
    ("psql", ("deploy/store_secret.sql",), 0),
    pytest.param("psql", ("deploy/calls_left.sql",), 0, marks=pytest.mark.variation),
    pytest.param("gcloud", ("versions", "add"), 1, marks=pytest.mark.variation),
    ("gcloud", ("services", "update", "create-connection"), 1),
]


@pytest.mark.parametrize(("name", "words", "after"), STEPS)
def test_an_interrupted_rotation_refuses_no_call_and_a_second_run_completes_it(
    clone: Clone, cloud: Cloud, vault: Vault, name: str, words: tuple[str, ...], after: int
) -> None:
    clone.commands.fail(name, *words, after=after, message="ERROR:  no connection")

    first = rotate(clone)

    assert first.returncode == 2
    assert first.stderr.splitlines()[-2].startswith("deploy.sh: ")
    # Every function accepts the secret that the database signs with now.
    assert all(vault.secret in secret.split(",") for secret in deployed(cloud))
    begun = clone.read_env()["FUNCTIONS_SECRET"]
    new = begun.split(",")[0]
    assert begun == f"{new},{OLD}"
    assert sorted(file.name for file in clone.root.glob(".env*")) == [".env", ".env.example"]

    second = rotate(clone)

    assert second.returncode == 0, second.stderr
    assert "continuing the rotation" in second.stderr
    assert clone.read_env()["FUNCTIONS_SECRET"] == new
    assert deployed(cloud) == {new}
    assert vault.history == [OLD, new]


def test_the_database_is_not_switched_while_an_old_instance_still_answers(
    clone: Clone, cloud: Cloud, vault: Vault
) -> None:
    # The first probes of on-upload reach an old instance.
    cloud.statuses = ["422", "401", "422", "422", "401"]
    assert rotate(clone).returncode == 0
    order = [call.name for call in clone.commands.calls()]
    assert order[: order.index("psql")].count("curl") == 5 + 3 * 3

    # A function that never accepts the new secret stops the rotation before the database is touched.
    clone.commands.forget()
    before = vault.secret
    cloud.statuses = ["401"] * 100
    result = rotate(clone)
    assert result.returncode == 2
    assert "on-upload answers 401 to a call signed with the secret, not 422" in result.stderr
    assert vault.secret == before
    assert clone.commands.calls("psql") == []


def test_one_service_restarts_once_a_step_and_is_probed_at_each_path(clone: Clone, cloud: Cloud, vault: Vault) -> None:
    cloud.services = {"together": Service("https://together.example.com", dict(SECRETS))}
    addresses = {f"{name.upper().replace('-', '_')}_URL": f"https://together.example.com/{name}" for name in NAMES}
    clone.write_env(clone.read_env() | addresses | {"DEPLOY_TOGETHER": "true"})

    result = rotate(clone)

    assert result.returncode == 0, result.stderr
    assert [line.split(" --")[0] for line in changing(clone) if " update " in line] == [
        "gcloud run services update together"
    ] * 2
    assert deployed(cloud) == {vault.secret} != {OLD}
    assert {call.rest[0] for call in clone.commands.calls("curl")} == set(addresses.values())


def test_staging_rotates_its_own_secret(clone: Clone, cloud: Cloud, vault: Vault) -> None:
    address = {"ON_UPLOAD_URL": "https://on-upload-staging.example.com"}
    clone.write_env(SETTINGS | GOOGLE | DATABASE | address, "staging")
    cloud.services["on-upload-staging"] = Service(address["ON_UPLOAD_URL"], dict(SECRETS))

    result = clone.deploy("--yes", "--env", "staging", "rotate-secret", "--to", "cloud-run", environment=NOW)

    assert result.returncode == 0, result.stderr
    new = clone.read_env("staging")["FUNCTIONS_SECRET"]
    assert cloud.services["on-upload-staging"].secrets["FUNCTIONS_SECRET"] == new
    assert cloud.services["on-upload"].secrets["FUNCTIONS_SECRET"] == OLD
    assert clone.read_env()["FUNCTIONS_SECRET"] == OLD
    assert vault.secret == new


def test_knative_is_rolled_by_a_new_version_of_the_secret(clone: Clone, host: Host, vault: Vault) -> None:
    clone.write_env(SETTINGS | KUBERNETES | DATABASE | {"DEPLOY_TO": "knative"})
    host.cloud.services.clear()
    assert clone.deploy("--yes", "functions", environment=NOW).returncode == 0
    clone.commands.forget()

    result = rotate(clone)

    assert result.returncode == 0, result.stderr
    new = clone.read_env()["FUNCTIONS_SECRET"]
    assert deployed(host.cloud) == {new}
    assert vault.history == [OLD, new]
    assert clone.commands.calls("docker") == []
    assert_no_secret(clone, result.stdout + result.stderr)


def test_on_other_hosts_the_person_restarts_the_functions(clone: Clone, cloud: Cloud, vault: Vault) -> None:
    addresses = {name: value for name, value in clone.read_env().items() if name.endswith("_URL")}
    clone.write_env(SETTINGS | DATABASE | addresses | {"DEPLOY_TO": "container"})

    asked = rotate(clone)
    begun = clone.read_env()["FUNCTIONS_SECRET"]
    assert asked.returncode == 2
    assert "on-upload does not accept the new secret yet (401)" in asked.stderr
    assert "and run the command again: it goes on from here" in asked.stderr
    assert f"FUNCTIONS_SECRET={begun}\n" in (clone.root / "build/push-back.env").read_text()
    assert vault.history == [OLD]

    for service in cloud.services.values():
        service.secrets["FUNCTIONS_SECRET"] = begun
    finished = rotate(clone)

    assert finished.returncode == 0, finished.stderr
    new = clone.read_env()["FUNCTIONS_SECRET"]
    assert begun == f"{new},{OLD}"
    assert vault.history == [OLD, new]
    assert f"FUNCTIONS_SECRET={new}\n" in (clone.root / "build/push-back.env").read_text()
    assert "restart the functions with it when it suits you" in finished.stderr


MISSING: list[tuple[dict[str, str], str]] = [
    ({"DATABASE_URL": ""}, "not set: DATABASE_URL"),
    ({"DATABASE_URL": "postgres"}, "DATABASE_URL is not an address"),
    ({"FUNCTIONS_SECRET": ""}, "not set: FUNCTIONS_SECRET"),
    ({"FUNCTIONS_SECRET": "whsec_short"}, "FUNCTIONS_SECRET must be whsec_"),
    ({"ON_UPLOAD_URL": "", "PUSH_BACK_URL": "", "CREATE_CONNECTION_URL": ""}, "no function's address is known"),
    ({"REGION": ""}, "not set: REGION"),
    ({"DEPLOY_TO": ""}, "no runtime is given"),
]


def test_missing_settings_are_reported_before_anything_is_changed(clone: Clone, cloud: Cloud, vault: Vault) -> None:
    whole = clone.read_env()
    for changes, said in MISSING:
        clone.write_env(whole | changes)
        env = clone.env_file().read_text()
        result = rotate(clone)
        assert result.returncode == 2
        assert said in result.stderr
        assert clone.env_file().read_text() == env
    assert changing(clone) == []
    assert (deployed(cloud), vault.secret) == ({OLD}, OLD)


def test_it_asks_before_it_changes_anything(clone: Clone, vault: Vault) -> None:
    result = clone.deploy("rotate-secret")
    assert result.returncode == 2
    assert "The functions are restarted twice; no call is lost." in result.stderr
    assert (clone.read_env()["FUNCTIONS_SECRET"], vault.secret) == (OLD, OLD)


def test_a_dry_run_changes_nothing_and_shows_no_secret(clone: Clone, vault: Vault) -> None:
    env = clone.env_file().read_text()
    result = clone.deploy("--dry-run", "rotate-secret")
    assert result.returncode == 0, result.stderr
    assert clone.commands.calls() == []
    assert (clone.env_file().read_text(), vault.secret) == (env, OLD)
    assert_no_secret(clone, result.stdout + result.stderr)
    lines = [line for line in result.stdout.splitlines() if line.startswith("# ")]
    steps = ["1 of 3", "2 of 3", "3 of 3", "FUNCTIONS_SECRET=<new> into .env"]
    assert [line[2:] for line in lines if line[2:].startswith(tuple(steps))] == [
        "1 of 3: the functions accept both the new secret and the old one",
        "2 of 3: the database signs with the new secret",
        "3 of 3: the functions drop the old secret",
        "FUNCTIONS_SECRET=<new> into .env",
    ]
