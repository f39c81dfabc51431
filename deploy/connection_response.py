"""Print create-connection's answer in words. It takes the answer on stdin, its HTTP status and the env file's name."""

from __future__ import annotations

import json
import sys
from typing import Any

from deploy.output import on_a_line

OUTCOMES = {
    "created": "registered at ittybit",
    "unchanged": "already registered at ittybit, unchanged",
    "replaced": "the keys had changed; the new ones are registered at ittybit",
}


def main(status: str, env_file: str) -> int:
    """Print the outcome; return 0 if the connection exists, else 2."""
    try:
        answer = json.load(sys.stdin)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        _fail(f"the HTTP {status} from CREATE_CONNECTION_URL is not create-connection's", _at_the_host(status))
        return 2
    if status != "200":
        _fail(*_problem(status, answer, env_file))
        return 2
    connection = answer["connection"]
    print(on_a_line(f"{connection['name']} ({connection['id']}): {OUTCOMES[answer['outcome']]}"))
    print(on_a_line(f"  endpoint {connection['endpoint']}, region {connection['region']}"))
    return 0


def _at_the_host(status: str) -> str:
    """The remedy when the host answered instead of the function."""
    if status.startswith("3"):
        return "It redirects: set the final https address, as a redirected POST loses its body."
    if status in {"401", "403"}:
        return "The host requires callers to sign in: run ./deploy.sh functions, which switches that off."
    return "./deploy.sh functions says where create-connection is; its log says why it does not start."


def _problem(status: str, problem: dict[str, Any], env_file: str) -> tuple[str, str]:
    """The problem and its remedy."""
    faults = [f"{fault.get('field')}: {fault.get('message')}" for fault in problem.get("errors") or []]
    messages = [str(problem.get("detail") or problem.get("title") or f"it answers {status}"), *faults]
    what = "\n  ".join(map(on_a_line, messages))
    if status == "401":
        return (
            what,
            f"FUNCTIONS_TOKEN in {env_file} is not the function's: ./deploy.sh functions gives it this one.",
        )
    if status == "503":
        return what, "Run the command again in a minute."
    return what, on_a_line(f"Fix that, then run the command again. It is in the function's log as {problem.get('id')}.")


def _fail(what: str, remedy: str) -> None:
    print(f"deploy.sh: {what}\n  {remedy}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
