"""The Parquet file of a part, and its marker of completion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.archive.manifest import Row
from pipeline.archive.output import OutFolder, digest_of, scratch
from pipeline.archive.plan import part_name
from pipeline.contracts import Verdict
from pipeline.scan_start import RETRIED

# Rows of a row group end with either: a reader decompresses at most one group at a time.
_GROUP_ROWS: Final = 256
_GROUP_BYTES: Final = 16 << 20
COLUMNS: Final = {
    "id": "string",
    "uri": "string",
    "outcome": "string",
    "label": "string",
    "probability": "double",
    "likelihood_ratio": "double",
    "error": "string",
    "duration_s": "double",
    "people": "int32",
    "source_sha256": "string",
    "weights": "string",
    "elapsed_s": "double",
    "record": "string",
}


class Marker(BaseModel):
    """`part-00012.done`: that part's Parquet file is complete."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_: Literal[1] = Field(default=1, alias="schema")
    part: int
    rows: int
    sha256: str = Field(description="of the Parquet file")
    size_bytes: int
    outcomes: dict[str, int]
    labels: dict[str, int]

    @property
    def retryable(self) -> int:
        """Files whose outcome another try may change."""
        return sum(self.outcomes.get(outcome, 0) for outcome in RETRIED)


def columns_of(row: Row, verdict: Verdict, record: str) -> dict[str, Any]:
    """A row of the table, by `COLUMNS`."""
    return {
        "id": row.id,
        "uri": row.uri,
        "outcome": str(verdict.outcome),
        "label": None if verdict.label is None else str(verdict.label),
        "probability": verdict.probability,
        "likelihood_ratio": verdict.likelihood_ratio,
        "error": verdict.error,
        "duration_s": verdict.duration_s,
        "people": len(verdict.people),
        "source_sha256": verdict.provenance.source_sha256,
        "weights": ",".join(verdict.provenance.weights_sha256),
        "elapsed_s": verdict.elapsed_s,
        "record": record,
    }


def write_part(out: OutFolder, part: int, rows: Iterable[Row], record_of: Callable[[int], str]) -> Marker:
    """Write a part's Parquet file; its rows are in the order of the manifest. The marker is not written.

    Args:
        out: the output.
        part: number of the part.
        rows: of the part.
        record_of: the record of a row by its number.

    Raises:
        NotWrittenError: the file cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, pyarrow.type_for_alias(of)) for name, of in COLUMNS.items()])
    outcomes: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    with scratch() as file:
        with parquet.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=["outcome", "label", "weights"]
        ) as writer:
            for group in _groups(rows, record_of):
                outcomes.update(each["outcome"] for each in group)
                labels.update(each["label"] for each in group if each["label"] is not None)
                writer.write_table(pyarrow.Table.from_pylist(group, schema), row_group_size=len(group))
        size_bytes = file.seek(0, 2)
        sha256 = digest_of(file)
        out.write(part_name(part, "parquet"), file)
    return Marker(
        part=part,
        rows=outcomes.total(),
        sha256=sha256,
        size_bytes=size_bytes,
        outcomes=dict(sorted(outcomes.items())),
        labels=dict(sorted(labels.items())),
    )


def _groups(rows: Iterable[Row], record_of: Callable[[int], str]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size_bytes = 0
    for row in rows:
        record = record_of(row.number)
        group.append(columns_of(row, Verdict.model_validate_json(record), record))
        size_bytes += len(record)
        if len(group) >= _GROUP_ROWS or size_bytes >= _GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def read_rows(file: BinaryIO, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a part's file, some columns of them; one row group is in memory at a time."""
    from pyarrow import parquet

    opened = parquet.ParquetFile(file)
    for number in range(opened.num_row_groups):
        yield from opened.read_row_group(number, columns=columns).to_pylist()


def write_marker(out: OutFolder, marker: Marker, suffix: str = "done") -> None:
    """Write a marker: of a part that is done, or with another suffix of one that is to be looked at again.

    Raises:
        NotWrittenError: it cannot be written.
    """
    text = marker.model_dump_json(by_alias=True)
    out.write(part_name(marker.part, suffix), f"{text}\n".encode())


def read_marker(out: OutFolder, part: int, suffix: str = "done") -> Marker | None:
    """The marker of a part; None if it does not exist or is damaged.

    Raises:
        NotReadError: it cannot be read.
    """
    text = out.read(part_name(part, suffix))
    if text is None:
        return None
    try:
        return Marker.model_validate_json(text)
    except ValidationError:
        return None
