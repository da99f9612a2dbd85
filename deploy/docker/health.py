#!/usr/bin/env python3
"""Check that the worker of this container answers with success: exit code 0, else 1 and the reason.

health.py [PATH]    default: /healthz
"""

from __future__ import annotations

import http.client
import os
import sys
import urllib.request

# Docker's own timeout for the check is 5 s.
TIMEOUT_S = 4.0


def main() -> int:
    """Ask once."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    url = f"http://127.0.0.1:{os.environ.get('UNMASK_HTTP_PORT', '8080')}{path}"
    # No proxy: Docker sets HTTP_PROXY in every container if it has one configured.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=TIMEOUT_S).close()
    except (OSError, http.client.HTTPException) as error:
        print(f"{url}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
