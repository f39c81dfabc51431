"""All functions behind one address, each at its own path, in one process and with one set of variables.

Called by   the callers of the functions; each function authenticates its callers
Takes       /on-upload, /push-back, /create-connection: what the function of that name takes
Answers     as that function does; at any other path 404 as application/problem+json
Deployed    ./deploy.sh stage together; target together
"""

from __future__ import annotations

import functions_framework

from functions.create_connection import create_connection
from functions.on_upload import on_upload
from functions.push_back import push_back
from shared import settings
from shared.edge import by_path

together = functions_framework.http(
    by_path(
        settings.load(),
        {"/on-upload": on_upload, "/push-back": push_back, "/create-connection": create_connection},
    )
)
