#!/usr/bin/env python3
"""Whether the worker of this container answers with a success: exit code 0, else 1 and why.

health.py [PATH]    /healthz without one
"""

from __future__ import annotations

import http.client
import os
import sys
import urllib.request

# The engine gives the check itself 5 s.
TIMEOUT_S = 4.0


def main() -> int:
    """Ask once."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    url = f"http://127.0.0.1:{os.environ.get('UNMASK_HTTP_PORT', '8080')}{path}"
    # No proxy: an engine that has one configured sets HTTP_PROXY in every container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=TIMEOUT_S).close()
    except (OSError, http.client.HTTPException) as error:
        print(f"{url}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
