"""The parser of DATABASE_URL, the same for psql and for the doctor.

./deploy.sh runs ``python -m deploy.database_address``. It prints the variables that psql reads: each name and value
followed by a NUL, and an empty name at the end. An empty value means that the variable must be unset.
"""

from __future__ import annotations

import os
import re
import sys
from urllib.parse import unquote

# The parameters that an address may have, with libpq's variable for each (libpq, "Environment Variables").
_VARIABLES = {"dbname": "PGDATABASE"} | {
    name: f"PG{name.upper()}"
    for name in (
        *("host", "port", "user", "password", "options", "connect_timeout"),
        *("sslmode", "sslrootcert", "sslcert", "sslkey"),
    )
}
# Variables that could select another database and that no address sets: they are unset.
_OTHERS = ("PGHOSTADDR", "PGSERVICE", "PGTARGETSESSIONATTRS")
# Parameters for other programs.
_IGNORED = ("application_name", "pgbouncer", "connection_limit", "pool_timeout")
_ADDRESS = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:]*?)(?::(?P<password>.*))?@)?(?P<hosts>[^/?@]*)"
    r"(?:/(?P<dbname>[^?]*))?(?:\?(?P<query>.*))?"
)
_HOST = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d*))?")
REMEDY = (
    "It looks like postgresql://postgres:…@db.<ref>.supabase.co:5432/postgres: Dashboard > Connect. "
    "In the password write % as %25, @ as %40, / as %2F, ? as %3F."
)


class AddressError(Exception):
    """DATABASE_URL cannot be read. The message does not repeat it, because it holds the password."""


def read(url: str) -> dict[str, str]:
    """Return libpq's parameters of an address such as ``postgresql://postgres:…@host:5432/postgres``.

    A password needs percent-encoding only if it has a %. Without an sslmode, TLS is required, except for this machine
    and containers on it.

    Raises:
        AddressError: it cannot be read.
    """
    parts = _ADDRESS.fullmatch(url)
    if parts is None or "[YOUR-PASSWORD]" in url:
        raise AddressError(f"DATABASE_URL {'still says [YOUR-PASSWORD]' if parts else 'is not an address'}")
    given = {name: parts[name] or "" for name in ("user", "password", "dbname")}
    if parts["hosts"]:
        hosts = [_HOST.fullmatch(one) for one in parts["hosts"].split(",")]
        given["host"] = ",".join(one[1] or one[2] for one in hosts if one)
        given["port"] = ",".join(one[3] or "5432" for one in hosts if one)
        if None in hosts:
            raise AddressError("DATABASE_URL has a port that is not a number")
    for pair in filter(None, (parts["query"] or "").split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            # The ? may also be part of a password.
            raise AddressError("DATABASE_URL has a ? that begins no parameters")
        if name in _VARIABLES:
            given[name] = value
        elif name not in _IGNORED:
            raise AddressError(f"DATABASE_URL has a parameter that is not known here, leave it out: {name}")
    if re.search("%(?![0-9A-Fa-f]{2})", "\n".join(given.values())):
        raise AddressError("DATABASE_URL has a % that encodes nothing")
    given = {"dbname": "postgres"} | {name: unquote(value) for name, value in given.items() if value}
    if "sslmode" not in given and not all(map(_is_near, given.get("host", "").split(","))):
        given["sslmode"] = "require"
    return given


def _is_near(host: str) -> bool:
    if host.startswith(("/", "@")) or host in ("", "localhost", "127.0.0.1"):
        return True
    from shared.settings import is_local  # noqa: PLC0415 - importing it takes longer than all the rest

    return is_local(host)


def main() -> int:
    """Print the variables for DATABASE_URL; return 0, or 2 after saying what is wrong with it."""
    try:
        given = {"connect_timeout": "15"} | read(os.environ["DATABASE_URL"])
    except AddressError as error:
        print(f"deploy.sh: {error}\n  {REMEDY}", file=sys.stderr)
        return 2
    variables = {variable: given.get(name, "") for name, variable in _VARIABLES.items()} | dict.fromkeys(_OTHERS, "")
    print("".join(f"{name}\0{value}\0" for name, value in variables.items()), end="\0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
