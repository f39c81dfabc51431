"""The Dockerfile, tested without Docker: its steps are done in a folder, and the result is started by its command.

The base image is not fetched, and pip does not run: the packages are those of this environment.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local.functions import ROOT
from tests.deploy.clone import Clone
from tests.deploy.clouds import Host
from tests.deploy.hosted import NAMES, SETTINGS
from tests.waiting import until

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


@dataclass(frozen=True)
class Instruction:
    """One instruction of the Dockerfile."""

    name: str
    words: list[str]


def instructions() -> list[list[Instruction]]:
    """The Dockerfile's stages, each from its FROM on."""
    lines = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    parsed = [Instruction(line.split()[0], shlex.split(line)[1:]) for line in lines]
    starts = [place for place, one in enumerate(parsed) if one.name == "FROM"]
    return [parsed[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def last(name: str) -> list[list[str]]:
    """The words of these instructions in the last stage."""
    return [one.words for one in instructions()[-1] if one.name == name]


def pinned() -> set[str]:
    """The packages that requirements.txt names."""
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """The files of the image: /app and the packages, readable by everybody and writable by nobody."""
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    clone = Clone(folder / "clone")
    clone.write_env(SETTINGS)
    Host(clone.commands)
    try:
        built = clone.deploy("--yes", "functions", "--to", "container")
        assert built.returncode == 0, built.stderr
        context, root = clone.root / "build" / "container", folder / "root"
        app = root / "app"
        app.mkdir(parents=True)
        for _, source, target in (["", *words] for words in last("COPY") if not words[0].startswith("--from")):
            shutil.copytree(context / source, app / target)
        packages = root / "packages"
        packages.mkdir()
        for name in pinned():
            for file in importlib.metadata.files(name) or []:
                if not file.parts[0].startswith("..") and "__pycache__" not in file.parts:
                    (packages / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(str(file.locate()), packages / file)
        [compiling] = last("RUN")
        words = [sys.executable if word == "python" else word for word in compiling]
        words = [str(packages) if "site-packages" in word else word for word in words]
        subprocess.run(words, cwd=app, check=True)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        folder.chmod(0o755)
        yield root
    finally:
        clone.commands.close()
        for path in [path for path in folder.rglob("*") if path.is_dir()]:
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_the_base_is_pinned_and_the_process_is_unprivileged() -> None:
    stages = instructions()
    [base] = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.13\.\d+-slim-bookworm", base)
    assert [stage[0].words[0] for stage in stages] == ["${BASE}", "${BASE}"]
    assert last("USER") == [["65532:65532"]]
    # The user is set after the last step that writes.
    order = [one.name for one in stages[-1]]
    assert order.index("USER") > max(place for place, name in enumerate(order) if name in ("RUN", "COPY"))
    assert "/usr/local/lib/python3.13/site-packages" in last("RUN")[0]


def test_only_pinned_packages_are_installed() -> None:
    [packages, _] = instructions()
    [words] = [one.words for one in packages if one.name == "RUN"]
    assert words[-2:] == ["--requirement", "requirements.txt"]
    assert ["--from=packages", "/packages", "/usr/local"] in last("COPY")


def test_the_image_has_only_the_deployed_sources(image: Path) -> None:
    sources = {str(path.relative_to(image / "app")) for path in (image / "app").rglob("*.py")}
    assert sources == {
        str(path.relative_to(ROOT)) for part in ("functions", "shared") for path in (ROOT / part).glob("*.py")
    }


def test_everything_is_compiled_and_valid_for_any_file_times(image: Path) -> None:
    for source in (image / "app").rglob("*.py"):
        [compiled] = (source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        # PEP 552: 1 is a hash that is not checked.
        assert compiled.read_bytes()[4:8] == b"\x01\0\0\0"
    assert list((image / "packages" / "flask" / "__pycache__").glob("app.*.pyc"))


# Root without capabilities cannot write a file whose mode forbids it, just as the image's own user. Other users run the
# command as it is.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/shm, which containers have")
@pytest.mark.parametrize(
    "name", ["on-upload", "together", *(pytest.param(name, marks=pytest.mark.variation) for name in NAMES[1:])]
)
def test_it_runs_unprivileged_on_a_read_only_file_system(image: Path, tmp_path: Path, name: str) -> None:
    target = name.replace("-", "_")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = dict(pair.split("=", 1) for words in last("ENV") for pair in words)
    environment |= SETTINGS | {"FUNCTION_TARGET": target, "FUNCTION_SOURCE": f"functions/{target}.py"}
    paths = f"{image / 'app'}:{image / 'packages'}"
    environment |= {"PORT": str(port), "HOST": "127.0.0.1", "PYTHONPATH": paths, "PATH": os.environ["PATH"]}
    [command] = [re.findall(r'"([^"]+)"', line) for line in DOCKERFILE.splitlines() if line.startswith("CMD")]
    # Without the packages of the environment that the tests run in.
    python = [getattr(sys, "_base_executable", sys.executable), "-s"]
    log = tmp_path / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*WITHOUT_RIGHTS, *python, *command[1:]],
            cwd=image / "app",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def status() -> int | None:
            assert process.poll() is None, log.read_text()
            try:
                return httpx.post(f"http://127.0.0.1:{port}/on-upload", json={}, trust_env=False).status_code
            except httpx.TransportError:
                return None

        try:
            assert until(status, seconds=60, every=0.1) == 401
        finally:
            process.terminate()
            process.wait(20)
        assert process.returncode == 0, log.read_text()
        # Only the function's own lines: no complaint about a place that cannot be written.
        assert all(line.startswith("{") for line in log.read_text().splitlines()), log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_the_files_really_cannot_be_written(image: Path) -> None:
    writing = f"open({str(image / 'app' / 'x')!r}, 'w')"
    result = subprocess.run(
        [*WITHOUT_RIGHTS, sys.executable, "-c", writing], capture_output=True, text=True, check=False
    )
    assert "Permission denied" in result.stderr
