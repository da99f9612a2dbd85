"""The OpenAPI document: `python -m web.openapi > docs/openapi.json` after a change of the API."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.settings import Settings
from web.app import create_app
from web.service import ServeOptions, Service


def document() -> str:
    """The document as JSON; its version is not the package's, so that it changes with the API only."""
    with TemporaryDirectory() as folder:
        service = Service(ServeOptions(Path(folder)), Settings())
        app = create_app(service)
        app.version = "v1"
        text = json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False)
        service.close()
    return f"{text}\n"


if __name__ == "__main__":
    sys.stdout.write(document())
