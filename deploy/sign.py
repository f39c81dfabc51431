"""Print the headers of a call signed with FUNCTIONS_SECRET, for curl: sign.py BODY, with the secret on stdin.

Standard Webhooks 1.0.0: HMAC-SHA256 over "id.timestamp.body".
"""

from __future__ import annotations

import base64
import hmac
import os
import sys
import time


def headers(secret: str, body: str) -> dict[str, str]:
    """Return the three headers for ``body``, signed now; ``secret`` is ``whsec_`` and base64."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    call, stamp = f"deploy_{os.urandom(16).hex()}", str(int(time.time()))
    signature = base64.b64encode(hmac.digest(key, f"{call}.{stamp}.{body}".encode(), "sha256")).decode()
    return {"webhook-id": call, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}


if __name__ == "__main__":
    for name, value in headers(sys.stdin.read().strip(), sys.argv[1]).items():
        print(f"{name}: {value}")
