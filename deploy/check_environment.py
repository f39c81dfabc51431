"""The check of the variables that ./deploy.sh gives to functions: ``python -m deploy.check_environment``.

It is the functions' own check (shared/settings.py), but ignores missing settings: each verb checks those it needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from shared import settings


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Print the settings that would keep a function from starting; return 1 if there are any."""
    try:
        given = settings.load(environment)
    except SystemExit as stopped:
        faults = [line.strip() for line in str(stopped).splitlines()[1:]]
        malformed = [fault for fault in faults if not fault.endswith(" is missing")]
        print("\n  ".join(malformed))
        return 1 if malformed else 0
    if given.is_out_of_reach:
        print(settings.OUT_OF_REACH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
