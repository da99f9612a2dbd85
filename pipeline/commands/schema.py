"""Print the JSON Schema of a contract."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer


class Contract(StrEnum):
    """Contracts with a schema."""

    VERDICT = "verdict"
    TASK = "task"
    SEGMENT = "segment"


def run(
    contract: Annotated[Contract, typer.Argument(help="Which contract.")] = Contract.VERDICT,
) -> None:
    """Print the JSON Schema of a contract.

    `verdict` is the record of every output, `task` a video submitted through Kafka, `segment` the headers
    of a live stream's message.
    """
    import json

    from pydantic import BaseModel

    from pipeline.contracts import Verdict
    from pipeline.transport.messages import Segment, VideoTask

    # Unmask writes records, with every field; others write tasks, and may omit fields.
    schemas: dict[Contract, tuple[type[BaseModel], Literal["serialization", "validation"]]] = {
        Contract.VERDICT: (Verdict, "serialization"),
        Contract.TASK: (VideoTask, "validation"),
        Contract.SEGMENT: (Segment, "validation"),
    }
    model, mode = schemas[contract]
    typer.echo(json.dumps(model.model_json_schema(by_alias=True, mode=mode), indent=2))
