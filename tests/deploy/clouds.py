"""Stand-ins for gcloud, kubectl, docker and curl. They keep their state in the test's own process."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.deploy.fakes import CommandCall, CommandError, FakeCommands
from tests.deploy.hosted import NAMES, SECRETS

# The flags that the stand-ins accept, by subcommand: those of the real commands that deploy.sh may use, from the
# references of gcloud (528), kubectl (1.33), docker (28) and curl.
GCLOUD = {
    "": ["--project=", "--format=", "--quiet", "--filter=", "--flatten="],
    "auth list": [],
    "projects describe": [],
    "services list": ["--enabled"],
    "services enable": [],
    "secrets describe": [],
    "secrets list": [],
    "secrets create": ["--replication-policy=", "--data-file="],
    "secrets delete": [],
    "secrets get-iam-policy": [],
    "secrets add-iam-policy-binding": ["--member=", "--role=", "--condition="],
    "secrets versions add": ["--data-file="],
    "secrets versions access": ["--secret="],
    "secrets versions describe": ["--secret="],
    "run deploy": [
        *("--source=", "--function=", "--base-image=", "--no-invoker-iam-check", "--concurrency=", "--cpu="),
        *("--cpu-boost", "--memory=", "--timeout=", "--max-instances=", "--set-env-vars=", "--set-secrets="),
        *("--service-account=", "--region="),
    ],
    "run services describe": ["--region="],
    "run services update": ["--update-secrets=", "--region="],
    "run services delete": ["--region="],
    "functions deploy": [
        *("--gen2", "--source=", "--entry-point=", "--runtime=", "--trigger-http", "--allow-unauthenticated"),
        *("--concurrency=", "--cpu=", "--memory=", "--timeout=", "--max-instances=", "--set-env-vars="),
        *("--set-secrets=", "--service-account=", "--region="),
    ],
    "functions delete": ["--gen2", "--region="],
}
KUBECTL = {
    "": ["--context=", "--namespace="],
    "get": ["--output=", "--ignore-not-found"],
    "apply": ["--server-side", "--force-conflicts", "--field-manager=", "--filename="],
    "wait": ["--for=", "--timeout="],
    "patch": ["--type=", "--patch="],
    "delete": ["--ignore-not-found"],
}
DOCKER = {"build": ["--pull", "--tag=", "--platform="], "push": [], "image inspect": ["--format="]}
CURL = {"": ["--disable", "--silent", "--output=", "--write-out=", "--max-time=", "--header=*", "--data="]}

# The paths of the functions when they are deployed together.
PATHS = ("/on-upload", "/push-back", "/create-connection")


@dataclass
class Secret:
    """A secret of Secret Manager."""

    versions: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)


@dataclass
class Service:
    """A deployed function."""

    url: str
    secrets: dict[str, str]


@dataclass
class Cloud:
    """Google Cloud, and the deployed functions, those of a cluster included, as callers reach them.

    Attributes:
        statuses: the statuses that curl prints next; after these it prints those of the services.
        rolled: called with a service's name and changed secrets when it is updated.
    """

    apis: set[str] = field(default_factory=set)
    secrets: dict[str, Secret] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)
    rolled: Callable[[str, dict[str, str]], None] = lambda *_: None

    def gcloud(self, call: CommandCall) -> str:
        """Do what the subcommand does."""
        if call.command not in ("auth list", "projects describe") and call.flags.get("--project") != "a-project":
            raise CommandError("no project, or another one")
        if call.command.startswith(("run", "functions")) and call.flags.get("--region") != "europe-west1":
            raise CommandError("no region, or another one")
        name = call.rest[0] if call.rest else ""
        match call.command.split():
            case ["auth", "list"]:
                return "dev@example.com\n"
            case ["projects", "describe"]:
                return {"value(projectNumber)": "1234\n"}[call.flags["--format"]]
            case ["services", "list"]:
                return "\n".join(sorted(self.apis))
            case ["services", "enable"]:
                self.apis |= set(call.rest)
            case ["secrets", *_]:
                return self._secrets(call, name)
            case ["run" | "functions", "deploy"]:
                if not (call.cwd / call.flags["--source"] / "main.py").exists():
                    raise CommandError("no main.py")
                self.services[name] = Service(
                    f"https://{name}-abc123-ew.a.run.app", self._values(call.flags["--set-secrets"])
                )
            case [*_, "delete"]:
                del self.services[self._known(name)]
            case ["run", "services", "describe"]:
                service = self.services[self._known(name)]
                return {"value(status.url)": service.url, "none": ""}[call.flags["--format"]] + "\n"
            case ["run", "services", "update"]:
                changed = self._values(call.flags["--update-secrets"])
                self.services[self._known(name)].secrets |= changed
                self.rolled(name, changed)
        return ""

    def _known(self, name: str) -> str:
        if name not in self.services:
            raise CommandError(f"ERROR: (gcloud) Cannot find service [{name}]")
        return name

    def _secrets(self, call: CommandCall, name: str) -> str:
        name = call.flags.get("--secret", name)
        if call.command == "secrets list":
            return {"value(name.basename())": "\n".join(sorted(self.secrets))}[call.flags["--format"]]
        if call.command == "secrets create":
            if name in self.secrets:
                raise CommandError("ERROR: ALREADY_EXISTS")
            self.secrets[name] = Secret([_stdin(call)])
            return ""
        if name not in self.secrets:
            raise CommandError(f"ERROR: NOT_FOUND: {name}")
        secret = self.secrets[name]
        match call.command:
            case "secrets describe":
                pass
            case "secrets delete":
                del self.secrets[name]
            case "secrets get-iam-policy":
                return "\n".join(secret.readers)
            case "secrets add-iam-policy-binding":
                secret.readers.append(call.flags["--member"])
            case "secrets versions add":
                secret.versions.append(_stdin(call))
            case _ if not secret.versions:
                raise CommandError("ERROR: NOT_FOUND: latest")
            case "secrets versions access":
                return secret.versions[-1]  # without a newline, as the real one
            case "secrets versions describe":
                return f"projects/1234/secrets/{name}/versions/{len(secret.versions)}\n"
        return ""

    def _values(self, flag: str) -> dict[str, str]:
        values = {}
        for pair in flag.split(","):
            name, secret, version = re.split("[=:]", pair)
            values[name] = self.secrets[secret].versions[int(version) - 1]
        return values

    def curl(self, call: CommandCall) -> str:
        """Answer as a function does: 401 without a valid signature; 422 with one, as the body is no request."""
        if self.statuses:
            return self.statuses.pop(0)
        [url] = call.rest
        service = next((each for each in self.services.values() if url.startswith(each.url)), None)
        if service and (url.removeprefix(service.url) in PATHS) != ("together" in service.url):
            return "404"
        if not service:
            return "000"
        secrets = service.secrets["FUNCTIONS_SECRET"].split(",")
        headers = dict(line.split(": ", 1) for line in call.stdin.splitlines())
        return "422" if any(_signs(secret, headers, call.flags["--data"]) for secret in secrets) else "401"


def _stdin(call: CommandCall) -> str:
    if call.flags["--data-file"] != "-" or not call.stdin:
        raise CommandError("nothing on stdin")
    return call.stdin


def _signs(secret: str, headers: dict[str, str], body: str) -> bool:
    if "webhook-signature" not in headers:
        return False
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
    return headers["webhook-signature"] == wanted


@dataclass
class Cluster:
    """Kubernetes with Knative: a Secret gets another version when it changes.

    Attributes:
        manifests: the services' manifests, by name.
        data: the contents of the Secrets, by name.
    """

    cloud: Cloud
    manifests: dict[str, str] = field(default_factory=dict)
    data: dict[str, dict[str, str]] = field(default_factory=dict)
    version: int = 1

    def kubectl(self, call: CommandCall) -> str:
        """Do what the subcommand does."""
        if (call.flags.get("--context"), call.flags.get("--namespace")) != ("a-cluster", "default"):
            raise CommandError("another cluster")
        kind, _, name = call.rest[0].partition("/") if call.rest else ("", "", "")
        output = call.flags.get("--output", "")
        match call.command, kind:
            case "apply", _:
                self._apply(call)
            case "patch", _:
                [version] = re.findall(r'"supabase-ittybit/secrets":"(\d+)"', call.flags["--patch"])
                assert json.loads(call.flags["--patch"])
                old = self.manifests[name]
                self.manifests[name] = re.sub(r'(supabase-ittybit/secrets: )"\d+"', rf'\1"{version}"', old)
                self._start(name)
            case "delete", "secret":
                self.data.pop(name, None)
            case "delete", _:
                self.manifests.pop(name, None)
                self.cloud.services.pop(name, None)
            case "get", "secret":
                name = name or call.rest[1]
                if output == "name":
                    return f"secret/{name}\n" if name in self.data else ""
                if output == "jsonpath={.metadata.resourceVersion}":
                    return str(self.version)
                return self.data.get(name, {}).get(output.removeprefix("jsonpath={.data.").removesuffix("}"), "")
            case "get", _ if name in self.manifests:
                return f"{call.rest[0]}\n" if output == "name" else f"https://{name}.default.example.com"
            case "wait", _ if name not in self.manifests:
                raise CommandError("not found")
        return ""

    def _apply(self, call: CommandCall) -> None:
        if not {"--server-side", "--force-conflicts"} <= set(call.flags) or call.flags["--filename"] != "-":
            raise CommandError("not as it should be applied")
        [name] = re.findall(r"^  name: (\S+)$", call.stdin, re.MULTILINE)
        if re.search(r"^kind: Secret$", call.stdin, re.MULTILINE):
            given = dict(re.findall(r"^  ([A-Z0-9_]+): (\S+)$", call.stdin, re.MULTILINE))
            held = self.data.setdefault(name, {})
            if not given.items() <= held.items():
                held |= given
                self.version += 1
        elif self.manifests.get(name) != call.stdin:
            self.manifests[name] = call.stdin
            self._start(name)

    def _start(self, name: str) -> None:
        [of] = set(re.findall(r"secretKeyRef: \{name: ([^,]+),", self.manifests[name]))
        secrets = {key: base64.b64decode(value).decode() for key, value in self.data[of].items()}
        self.cloud.services[name] = Service(f"https://{name}.default.example.com", secrets)


@dataclass
class Docker:
    """The files of the last build, and the image that was pushed last."""

    context: set[str] = field(default_factory=set)
    pushed: str = ""

    def docker(self, call: CommandCall) -> str:
        """Do what the subcommand does."""
        if call.command == "build":
            folder = call.cwd / call.rest[0]
            self.context = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
            if "Dockerfile" not in self.context:
                raise CommandError("no Dockerfile")
        elif call.command == "push":
            self.pushed = call.rest[0]
        elif not self.pushed:
            raise CommandError("no such image")
        else:
            repository = self.pushed.rpartition(":")[0]
            return f"other.example.com/x@sha256:{'0' * 64}\n{repository}@sha256:{'1' * 64}\n\n"
        return ""


def is_deployed(cloud: Cloud) -> None:
    """Set the state that `deploy.sh functions --to cloud-run` leaves, in less time."""
    cloud.apis = {f"{name}.googleapis.com" for name in ("run", "cloudbuild", "artifactregistry", "secretmanager")}
    account = "serviceAccount:1234-compute@developer.gserviceaccount.com"
    for variable, value in SECRETS.items():
        cloud.secrets[f"supabase-ittybit-{variable.lower().replace('_', '-')}"] = Secret([value], [account])
    for name in NAMES:
        cloud.services[name] = Service(f"https://{name}.example.com", dict(SECRETS))


class Host:
    """All the stand-ins, as the commands of one clone."""

    def __init__(self, commands: FakeCommands) -> None:
        self.cloud = Cloud()
        self.cluster = Cluster(self.cloud)
        self.docker = Docker()
        commands.add("gcloud", self.cloud.gcloud, accepts=GCLOUD)
        commands.add("curl", self.cloud.curl, accepts=CURL)
        commands.add("kubectl", self.cluster.kubectl, accepts=KUBECTL)
        commands.add("docker", self.docker.docker, accepts=DOCKER)
