"""The embedded stack's commands: ``python -m local demo``, ``serve``, ``sql`` and ``faults``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import httpx
import psycopg

from deploy.env_file import EnvFileError
from deploy.output import while_read
from local import demo, serve
from local.disk_space import DiskSpaceError
from local.fault_run import command as fault_run
from local.functions import FunctionError
from local.postgres import StartError
from local.threads import ThreadDiedError
from shared.ittybit import GENERATIONS

# The messages of these errors tell the user what is wrong.
_EXPECTED = (
    *(demo.DemoError, EnvFileError, FunctionError, DiskSpaceError, StartError, ThreadDiedError),
    *(httpx.HTTPError, psycopg.Error),
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 1 when it failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m local", description="The embedded stack, on this machine only.")
    commands = parser.add_subparsers(dest="command", required=True)
    once = commands.add_parser("demo", help="process one clip, from the upload to its results")
    once.add_argument("file", nargs="?", type=Path, help="a video of yours; by default one is made")
    once.add_argument("--api", choices=GENERATIONS, default="automations", help="the API that ittybit speaks")
    once.add_argument("--open", action="store_true", help="show the results in a browser")
    stay = commands.add_parser("serve", help="keep the stack running")
    stay.add_argument("--api", choices=GENERATIONS, default="automations", help="the API that the local ittybit speaks")
    stay.add_argument("--env", type=Path, help="run only the functions, with the services that this file names")
    stay.add_argument("--ittybit", choices=["local"], help="with --env: the stand-in ittybit as well")
    ask = commands.add_parser("sql", help="psql on the database that `serve` runs")
    ask.add_argument("statement", nargs="?", help="run only this statement")
    commands.add_parser("faults", add_help=False, help="the stack under load and faults; see faults --help")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "faults":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "serve" and options.ittybit and not options.env:
        stay.error("--ittybit local needs --env; without --env the whole stack is local")

    # SIGTERM stops everything in order, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.command == "demo":
            demo.run(options.file, options.api, opens=options.open)
        elif options.command == "faults":
            return fault_run.main(rest)
        elif options.command == "sql":
            serve.run_psql(options.statement)
        elif options.env and options.ittybit:
            serve.serve_beside(options.env, options.api)
        elif options.env:
            serve.serve_functions(options.env)
        else:
            serve.serve(options.api)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        # The error as text would begin with its number.
        named = error.filename and error.strerror
        return _failed(options.command, f"{error.filename}: {error.strerror}" if named else str(error))
    except _EXPECTED as error:
        return _failed(options.command, str(error))
    return 0


def _failed(command: str, why: str) -> int:
    print(f"\n{command}: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(while_read(main))
