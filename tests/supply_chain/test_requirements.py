"""The deployed packages are few, each has a reason, and each is pinned to one version and its hashes."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from local.functions import ROOT


def requested(file: str) -> dict[str, tuple[Requirement, str]]:
    """The packages that a requirements*.in and its includes request, by name, each with its comment."""
    text = (ROOT / file).read_text()
    lines = [line.partition("#") for line in text.splitlines() if re.match(r"[a-z]", line)]
    found = [(Requirement(line), comment.strip()) for line, _, comment in lines]
    packages: dict[str, tuple[Requirement, str]] = {
        canonicalize_name(one.name): (one, comment) for one, comment in found
    }
    for included in re.findall(r"(?m)^-r (\S+)$", text):
        packages = requested(included) | packages
    return packages


def pinned(file: str) -> dict[str, tuple[Requirement, list[str]]]:
    """The packages that a compiled file pins, by name, each with the hashes that it accepts."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / file).read_text()).replace("\\\n", "")
    entries = [line.split("--hash=") for line in text.splitlines()]
    read = [(Requirement(line), [each.strip() for each in hashes]) for line, *hashes in entries]
    # Packages for other systems and Python versions are not installed here: their dependencies are unknown.
    return {
        canonicalize_name(one.name): (one, hashes)
        for one, hashes in read
        if one.marker is None or one.marker.evaluate()
    }


COMPILED = pytest.mark.parametrize(
    "file", ["requirements", "requirements-deploy", "requirements-local", "requirements-dev"]
)


@COMPILED
def test_every_package_is_pinned_to_one_version_and_its_hashes(file: str) -> None:
    for one, hashes in pinned(f"{file}.txt").values():
        assert re.fullmatch(r"==[0-9][A-Za-z0-9.]*", str(one.specifier)), one
        assert hashes, one
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), one


@COMPILED
def test_no_compiled_file_names_the_machine_that_made_it(file: str) -> None:
    text = (ROOT / f"{file}.txt").read_text()
    assert "/" not in text.replace("-r requirements.in", "")
    assert "--index-url" not in text
    assert "make compile" in text


@COMPILED
def test_a_compiled_file_pins_requested_packages_and_their_dependencies_and_no_more(file: str) -> None:
    pins = pinned(f"{file}.txt")
    wanted = requested(f"{file}.in")
    needed: set[str] = set()
    waiting = [one for one, _ in wanted.values()]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        pin = next(iter(pins[name][0].specifier)).version
        assert one.specifier.contains(pin, prereleases=True), f"{one} is pinned to {pin}"
        if (marked := f"{name}{sorted(one.extras)}") in needed:
            continue
        needed |= {name, marked}
        extras = ("", *one.extras)
        for each in map(Requirement, metadata.requires(name) or ()):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(each)
    assert {name for name in pins.keys() - needed if is_installed(name)} == set()


def is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_tests_run_with_the_same_pins_as_what_is_deployed_and_what_deploys() -> None:
    tested = pinned("requirements-dev.txt")
    for file in ("requirements.txt", "requirements-deploy.txt", "requirements-local.txt"):
        for name, (one, hashes) in pinned(file).items():
            assert (tested[name][0].specifier, tested[name][1]) == (one.specifier, hashes)


def test_deploy_sh_adds_only_the_parser_of_env_files_and_the_packages_of_the_doctor() -> None:
    more = pinned("requirements-deploy.txt").keys() - pinned("requirements.txt").keys()
    assert more == {"python-dotenv", "psycopg", "psycopg-binary", "pyjwt"}


def test_deployed_code_imports_exactly_the_requested_packages() -> None:
    imported: set[str] = set()
    for path in [*ROOT.glob("functions/*.py"), *ROOT.glob("shared/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    others = imported - sys.stdlib_module_names - {"shared", "functions"}
    assert {canonicalize_name(name) for name in others} == requested("requirements.in").keys()


@pytest.mark.parametrize("name", requested("requirements.in"))
def test_every_requested_package_has_a_reason(name: str) -> None:
    assert len(requested("requirements.in")[name][1].split()) >= 3


def test_the_bill_of_materials_lists_what_is_pinned() -> None:
    venv = Path(sys.prefix)
    # The environment counts as installed: it is, or this would not run.
    command = ["make", "--silent", "sbom", f"VENV={venv}", f"--old-file={venv / 'installed'}"]
    subprocess.run(command, cwd=ROOT, check=True, env={"PATH": os.environ["PATH"]}, capture_output=True)
    bill = json.loads((ROOT / "build" / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {
        one["name"]: (one["version"], sorted(hash_["content"] for hash_ in one["externalReferences"][0]["hashes"]))
        for one in bill["components"]
    }
    assert listed == {
        name: (next(iter(one.specifier)).version, sorted(each.removeprefix("sha256:") for each in hashes))
        for name, (one, hashes) in pinned("requirements.txt").items()
    }
