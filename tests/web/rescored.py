"""`unmask rescore` beside a running service."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from tests.web.served import Served
from web.commands.rescore import app


def rescore(served: Served, *arguments: object) -> Result:
    """The command with these arguments, on the folder of a service."""
    folder = str(served.service.options.folder)
    return CliRunner().invoke(app, [*map(str, arguments), "--folder", folder])


def shown(served: Served, name: str) -> dict[str, Any]:
    """The diff of a run, as JSON. Not from standard output: the service's log of this process goes there, too."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "diff.json"
        done = rescore(served, "diff", name, "--json", file)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(file.read_text())
    return found


def entries(served: Served) -> list[dict[str, Any]]:
    """The last entries of the audit log."""
    found: list[dict[str, Any]] = served.client().get("/v1/audit", params={"limit": 1000}).json()["entries"]
    return found
