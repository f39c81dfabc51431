"""Reads the messages of the code from its source, each with ``…`` for the values that are filled in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from local.functions import ROOT

CODE = sorted([*(ROOT / "functions").glob("*.py"), *(ROOT / "shared").glob("*.py")])
MIGRATIONS = "\n".join(path.read_text() for path in sorted((ROOT / "supabase" / "migrations").glob("*.sql")))


@dataclass
class Call:
    """One call in the source.

    Attributes:
        file: such as ``edge.py``.
        called: the last part of the called name, such as ``Refused``.
        arguments: the positional ones, as messages.
    """

    file: str
    called: str
    arguments: list[str] = field(default_factory=list)


def calls(*names: str) -> list[Call]:
    """Every call of one of these names in the deployed code."""
    found = []
    for path in CODE:
        tree = ast.parse(path.read_text())
        constants = dict(_constants(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (called := ast.unparse(node.func).rpartition(".")[2]) in names:
                found.append(Call(path.name, called, [_message(each, constants) for each in node.args]))
    return found


def assigned(path: Path, variable: str) -> set[str]:
    """Every message that a file assigns to a variable of this name."""
    return {
        _message(node.value, {})
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == variable
    }


def returned(path: Path, function: str) -> set[str]:
    """Every message that a function of a file returns, without those that it only passes on."""
    [found] = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    values = [node.value for node in ast.walk(found) if isinstance(node, ast.Return) and node.value]
    return {_message(value, {}) for value in values} - {"…"}


def skips() -> tuple[set[str], set[str]]:
    """The reasons why a job is skipped, and the reasons why a matching object has no job."""
    found: dict[str, set[str]] = {}
    functions = (
        r"create or replace function ittybit\.(\w+)\(.*?(?:as \$\$(.*?)\$\$;|begin atomic(.*?)\nend;|\nreturn (.*?);)"
    )
    for name, *bodies in re.findall(functions, MIGRATIONS, re.DOTALL):
        source = re.sub(r"--.*|->> '\w+'", "", "".join(bodies))
        reasons = set(re.findall(r"(?<!\.)\breason\s*:?=\s*'(\w+)'", source))
        for arguments in re.findall(r"(?:end_content|:= ittybit\.record_job)\((.*?)\);", source, re.DOTALL):
            reasons |= set(re.findall(r"'(\w+)'", arguments))
        if name.startswith("reason"):
            reasons |= set(re.findall(r"(?:then|select|else|return)\s+'(\w+)'", source))
        found[name] = reasons
    unrecorded = found.pop("reasons_to_skip")
    return set().union(*found.values()), unrecorded


def failures() -> set[str]:
    """The reasons with which a report ends a job as failed."""
    return set(re.findall(r"why := (?:coalesce\(why, )?'(\w+)'", MIGRATIONS))


def waits() -> set[str]:
    """The reasons why a start waits without having failed: of many jobs, of one, and of one that is searched for."""
    kept_back = MIGRATIONS.partition("function ittybit.kept_back(")[2].partition("end $$;")[0]
    put_off = MIGRATIONS.partition("verdict as (")[2].partition("end as waits")[0]
    [searched] = re.findall(r"has_not_failed constant boolean := .*?\(why in \((.*?)\)", MIGRATIONS)
    return {*re.findall(r"'(\w+)'", kept_back + searched), *re.findall(r"then '(\w+)'", put_off)} - {"all"}


def states() -> set[str]:
    """The states that a job can have."""
    [allowed] = re.findall(r"create domain ittybit\.job_state as text\s+check \(value in \((.*?)\)\)", MIGRATIONS)
    return set(re.findall(r"'(\w+)'", allowed))


def raised(level: str) -> set[str]:
    """What the migrations raise at a level: ``exception`` or ``warning``."""
    texts = re.findall(rf"raise {level}\s+'((?:[^']|'')*)'", MIGRATIONS)
    if 'rule "%": %' in texts:
        # Its second half is in a list of its own.
        texts.remove('rule "%": %')
        check = MIGRATIONS.partition("function ittybit.check_rule()")[2].partition("$$;")[0]
        found = re.findall(r"then\s+array\[\s*'((?:[^']|'')*)'( \|\|)?", check)
        texts += [f'rule "%": %{text}' + "%" * bool(more) for text, more in found]
    return {text.replace("''", "'").replace("%", "…") for text in texts}


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield ast.unparse(node.targets[0]), node.value.value


def _message(node: ast.expr, constants: dict[str, str]) -> str:
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr(values=parts):
            return "".join(_message(part, constants) for part in parts)
        case ast.Name(id=name) if name in constants:
            return constants[name]
    return "…"
