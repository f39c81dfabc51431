"""Made-up settings of a project, and checks for the tests of deployments."""

from __future__ import annotations

from tests.deploy.clone import Clone

NAMES = ("on-upload", "push-back", "create-connection")
SECRETS = {
    "ITTYBIT_API_KEY": "itt_made-up-key",
    "SUPABASE_SECRET_KEY": "sb_secret_made_up",
    "FUNCTIONS_SECRET": "whsec_bWFkZSB1cCBmb3IgdGhlIHRlc3RzLCAzMiBieXRlcy4=",
    "FUNCTIONS_TOKEN": "a-made-up-token-of-32-characters",
    "SUPABASE_S3_SECRET_ACCESS_KEY": "made/up+S3-secret",
}
PLAIN = {
    "SUPABASE_URL": "https://abcdefgh.supabase.co",
    "SUPABASE_S3_ACCESS_KEY_ID": "S3KEYID",
    "SUPABASE_S3_REGION": "eu-central-1",
}
SETTINGS = SECRETS | PLAIN
GOOGLE = {"GOOGLE_CLOUD_PROJECT": "a-project", "REGION": "europe-west1"}
KUBERNETES = {"IMAGE": "ghcr.io/me/supabase-ittybit:1", "KUBE_CONTEXT": "a-cluster"}


def changing(clone: Clone) -> list[str]:
    """The calls that change something at a cloud, as a shell reads them."""
    reading = {"describe", "access", "list", "get-iam-policy", "get", "wait", "inspect"}
    return [call.line for call in clone.commands.calls() if call.name != "curl" and not reading & set(call.argv)]


def assert_no_secret(clone: Clone, output: str) -> None:
    """Assert that no secret is in the output or on a command line."""
    values = [*SECRETS.values(), *(clone.read_env().get(name, "-" * 99) for name in SECRETS)]
    for call in clone.commands.calls():
        assert not [value for value in values if value in call.line], call.name
    assert not [value for value in values if value in output]
