from __future__ import annotations

import base64
import stat

from tests.deploy.clone import Clone

ENSURE = "load_environment; ensure_secret FUNCTIONS_SECRET; ensure_secret FUNCTIONS_TOKEN"


def test_secrets_are_made_once_and_readable_only_by_their_owner(clone: Clone) -> None:
    clone.write_env({"SUPABASE_URL": "https://ref.supabase.co", "FUNCTIONS_SECRET": "", "OUTPUT_PREFIXES": "out/"})

    first = clone.bash(ENSURE)
    made = clone.read_env()
    second = clone.bash(ENSURE)

    assert (first.returncode, second.returncode) == (0, 0)
    assert list(made) == ["SUPABASE_URL", "FUNCTIONS_SECRET", "OUTPUT_PREFIXES", "FUNCTIONS_TOKEN"]
    assert made["FUNCTIONS_SECRET"].startswith("whsec_")
    assert len(base64.b64decode(made["FUNCTIONS_SECRET"].removeprefix("whsec_"), validate=True)) == 32
    assert len(made["FUNCTIONS_TOKEN"]) == 44
    assert stat.S_IMODE(clone.env_file().stat().st_mode) == 0o600
    assert clone.read_env() == made
    assert second.stderr == ""
    for value in (made["FUNCTIONS_SECRET"], made["FUNCTIONS_TOKEN"]):
        assert value not in first.stdout + first.stderr
    assert first.stderr.splitlines() == [
        "made FUNCTIONS_SECRET, and wrote it into .env",
        "made FUNCTIONS_TOKEN, and wrote it into .env",
    ]


def test_the_file_is_made_where_there_is_none(clone: Clone) -> None:
    assert clone.bash(ENSURE + "\nbash -c '[[ \"$FUNCTIONS_SECRET\" == whsec_* ]]'").returncode == 0
    assert list(clone.read_env()) == ["FUNCTIONS_SECRET", "FUNCTIONS_TOKEN"]
    assert stat.S_IMODE(clone.env_file().stat().st_mode) == 0o600


def test_a_dry_run_makes_nothing(clone: Clone) -> None:
    result = clone.bash(f"DRY_RUN=true\n{ENSURE}\nvalue FUNCTIONS_SECRET")
    assert (result.returncode, result.stdout) == (0, "<FUNCTIONS_SECRET>")
    assert not clone.env_file().exists()


def test_each_environment_has_its_own_secret(clone: Clone) -> None:
    clone.write_env({"FUNCTIONS_SECRET": "whsec_first"})
    clone.write_env({"SUPABASE_URL": "https://ref.supabase.co"}, "staging")

    assert clone.bash(f"ENVIRONMENT=staging\n{ENSURE}").returncode == 0

    assert clone.read_env() == {"FUNCTIONS_SECRET": "whsec_first"}
    assert list(clone.read_env("staging")) == ["SUPABASE_URL", "FUNCTIONS_SECRET", "FUNCTIONS_TOKEN"]
