"""Print the JSON Schema of a contract."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Contract(StrEnum):
    """Contracts with a schema."""

    VERDICT = "verdict"


def run(
    contract: Annotated[Contract, typer.Argument(help="Which contract.")] = Contract.VERDICT,
) -> None:
    """Print the JSON Schema of a contract: `verdict` is the record that every output carries."""
    import json

    from pipeline.contracts import Verdict

    schemas = {Contract.VERDICT: Verdict}
    typer.echo(json.dumps(schemas[contract].model_json_schema(by_alias=True, mode="serialization"), indent=2))
