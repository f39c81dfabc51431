"""Every reader of an env file reads the same values from one table of lines."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

import deploy.doctor.__main__ as doctor
from deploy.env_file import EnvFileError, keep, read
from local import serve
from tests.deploy.clone import Clone

# Lines, each with its value; None where it sets none.
LINES: list[tuple[str, str | None]] = [
    ("A01=value", "value"),
    ("A02=value # note", "value"),
    ("A03=value#no-note", "value#no-note"),
    ("A04='value # kept'", "value # kept"),
    ('A05="value # kept"', "value # kept"),
    ("A06=${HOME}/a", "${HOME}/a"),
    ('A07="${HOME}"', "${HOME}"),
    ("A08=$HOME `id` $(id)", "$HOME `id` $(id)"),
    ("A09=value  \t", "value"),
    ("A10=  value", "value"),
    ("A11 = value", "value"),
    ("  A12=value", "value"),
    ("export A13=value", "value"),
    ("A14=a=b==", "a=b=="),
    ("A15=it's", "it's"),
    ("A16='it\\'s'", "it's"),
    ('A17="two\\nlines"', "two\nlines"),
    ("A18='two\nlines'", "two\nlines"),
    ("A19=\\n", "\\n"),
    ("A20=é ✓", "é ✓"),
    ("A21=", None),
    ('A22=""', None),
    ("A23=first\nA23=second", "second"),
    ("# A24=value", None),
    ("", None),
    ("A25=value\r", "value"),
    ("A26='value' # note\r", "value"),
    ("A27=-n", "-n"),
]
SAID = {line.removeprefix("export ").split("=")[0].strip(): value for line, value in LINES if value is not None}

Reader = Callable[[Path, Clone, pytest.MonkeyPatch], Mapping[str, str]]


def by_deploy_sh(_: Path, clone: Clone, __: pytest.MonkeyPatch) -> Mapping[str, str]:
    done = clone.bash("load_environment; env -0")
    assert done.returncode == 0, done.stderr
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)


def by_make_serve(file: Path, _: Clone, patch: pytest.MonkeyPatch) -> Mapping[str, str]:
    given: list[Mapping[str, str]] = []

    class Recorded:
        name, url = "on-upload", "http://127.0.0.1:9"

        def __init__(self, _: str, environment: Mapping[str, str], **__: Any) -> None:
            given.append(environment)

        def wait_until_ready(self) -> None:
            """Return at once."""

        check = stop = wait_until_ready

    patch.setattr(serve, "FunctionProcess", Recorded)
    patch.setattr(serve, "_wait", lambda *_: None)
    serve.serve_functions(file)
    return given[0]


def by_the_doctor(file: Path, _: Clone, patch: pytest.MonkeyPatch) -> Mapping[str, str]:
    given: list[Mapping[str, str]] = []

    def examine(environment: Mapping[str, str]) -> Iterator[Any]:
        given.append(environment)
        yield from ()

    patch.setattr(doctor, "examine", examine)
    assert doctor.main(["--env-file", str(file)]) == 0
    return given[0]


READERS: tuple[Reader, ...] = (by_deploy_sh, by_make_serve, by_the_doctor)


def test_every_reader_reads_the_same_values(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a byte-order mark, and with one.
    for start in (b"", b"\xef\xbb\xbf"):
        clone.env_file().write_bytes(start + "\n".join(line for line, _ in LINES).encode())
        for reader in READERS:
            read = {name: value for name, value in reader(clone.env_file(), clone, monkeypatch).items() if name in SAID}
            assert read == SAID, reader
        # And python-dotenv itself: other programs read the same file with it.
        theirs = dotenv_values(clone.env_file(), interpolate=False, encoding="utf-8-sig")
        assert {name: value for name, value in theirs.items() if value} == SAID


def test_the_error_of_a_malformed_line_shows_only_its_number(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for line in (
        "postgresql://postgres:s3cret@db.ref.supabase.co:5432/postgres",
        "postgresql://postgres:s3cret@db.ref.supabase.co:5432/postgres?sslmode=require",
        "s3cret.of.a.wrapped_key",
        "s3cretofawrappedkey==",
        "S3CRET KEY=value",
        "KEY='s3cret",
        'KEY="s3cret" more',
        "=s3cret",
        "s3cret\xff",
        "KEY=s3cret\0",
    ):
        clone.env_file().write_bytes(b"# mine\r\n\r\nA=1\n\n" + line.encode("latin-1") + b"\n")
        done = clone.bash("load_environment; echo went on")
        ended = doctor.main(["--env-file", str(clone.env_file())])
        with pytest.raises(EnvFileError) as refused:
            by_make_serve(clone.env_file(), clone, monkeypatch)
        assert (done.returncode, done.stdout, ended) == (2, "", 2)
        for said in (done.stderr, "".join(capfd.readouterr()), str(refused.value)):
            assert ".env, line 5: not " in said
            assert "s3cret" not in said.lower()


def test_a_kept_value_replaces_every_earlier_line_of_its_name(tmp_path: Path) -> None:
    elsewhere, file = tmp_path / "settings of mine", tmp_path / ".env"
    elsewhere.write_text("# mine\r\n\nexport KEY = old # note\nOTHER='a # b' # kept\n\nKEY='older\nlines'\n# more")
    file.symlink_to(elsewhere)

    keep(file, "KEY", "new")
    keep(file, "THIRD", "3")

    assert file.is_symlink()
    assert elsewhere.read_bytes() == b"# mine\r\n\nKEY=new\nOTHER='a # b' # kept\n# more\nTHIRD=3\n"
    assert read(file) == {"KEY": "new", "OTHER": "a # b", "THIRD": "3"}
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o600


def test_an_interrupted_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("FUNCTIONS_TOKEN=old\n")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep(file, "FUNCTIONS_TOKEN", "new")
    assert [one.name for one in tmp_path.iterdir()] == [".env"]
    assert read(file) == {"FUNCTIONS_TOKEN": "old"}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvFileError, match=rf"\.env cannot be written in {tmp_path}: No space left on device"):
        keep(tmp_path / ".env", "KEY", "value")
    assert list(tmp_path.iterdir()) == []


VERBS = [
    ["functions", "--to", "cloud-run"],
    ["functions", "--to", "knative"],
    ["functions", "--to", "process"],
    ["database"],
    ["connection", "--bucket", "media"],
    ["rule", "add", "r", "--bucket", "media", "--automation", "auto_1"],
    ["rule", "list"],
    ["rotate-secret", "--to", "cloud-run"],
    ["remove"],
    ["doctor"],
]


def test_a_dry_run_needs_no_value_of_the_example(clone: Clone) -> None:
    clone.env_file().write_bytes((clone.root / ".env.example").read_bytes())
    for verb in VERBS:
        done = clone.deploy("--dry-run", *verb)
        assert done.returncode == 0, done.stderr
    assert clone.commands.calls() == []
