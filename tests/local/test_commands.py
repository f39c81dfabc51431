"""When something is wrong with the machine, make demo and make serve end, and one line says what is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import local.stack
from deploy.env_file import read
from local import demo, serve
from local.disk_space import DiskSpaceError, check_disk_space
from local.functions import ROOT, FunctionError, FunctionProcess, stage
from local.threads import ThreadDiedError
from tests.functions.calling import NOWHERE
from tests.waiting import until


class Dying:
    """A worker whose thread fails at once."""

    def __init__(self, _: object) -> None:
        self._thread = threading.Thread(target=self._run, name="pg_net")

    def _run(self) -> None:
        raise ValueError("'ascii' codec can't encode")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.join()


def test_a_dead_worker_ends_the_demo_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.stack, "PgNetWorker", Dying)
    with pytest.raises(ThreadDiedError, match=r"^pg_net has died: ValueError: 'ascii' codec can't encode$"):
        demo.run(None)


def test_a_function_that_has_ended_says_why(tmp_path: Path) -> None:
    stage()
    function = FunctionProcess("on-upload", NOWHERE | {"SUPABASE_URL": ""}, log=tmp_path / "log")

    def ended() -> str:
        try:
            function.check()
        except FunctionError as error:
            return str(error)
        return ""

    message = until(ended, seconds=30)
    function.stop()
    assert message.startswith("on-upload has ended:\n")
    assert "SUPABASE_URL is missing" in message


@pytest.mark.parametrize("folder", ["/dev/null/none", "/proc"])
def test_a_folder_for_temporary_files_that_cannot_be_written_is_named(folder: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local", "demo"],
        cwd=ROOT,
        env={"TMPDIR": folder, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(f"demo: {folder} cannot be written: ")


def test_a_full_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda at: Usage(5_000_000) if at == tmp_path else real(at))
    with pytest.raises(DiskSpaceError, match=f"^{tmp_path} is too full: it has 4 MB free, and 200 MB are needed$"):
        check_disk_space(tmp_path)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "build").touch()
    with pytest.raises(DiskSpaceError, match=f"^{tmp_path}/build cannot be written: "):
        check_disk_space(tmp_path / "build")


def test_a_second_make_serve_leaves_the_first_ones_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "build.env", tmp_path / "second" / "build.env"
    second.parent.mkdir()
    monkeypatch.setattr(serve, "ENVIRONMENT", first)

    def left(value: str) -> Any:
        return serve._left({"NAME": value}, tmp_path / "second")

    with left("it's \\ # 1") as file:
        assert (file, read(first)) == (first, {"NAME": "it's \\ # 1"})
        with left("2") as other:
            assert other == second
            assert (read(first)["NAME"], read(second)["NAME"]) == ("it's \\ # 1", "2")
            assert {file.stat().st_mode & 0o777 for file in (first, second)} == {0o600}
        assert (first.exists(), second.exists()) == (True, False)
    assert not first.exists()
    with left("3") as third:
        assert third == first


@pytest.mark.parametrize("module", ["deploy.doctor", "local"])
def test_a_command_ends_silently_when_its_output_is_closed(module: str) -> None:
    command = [sys.executable, "-m", module, *(["demo"] if module == "local" else [])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141
