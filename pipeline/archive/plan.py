"""Which file is in which part, and what all parts have in common; written before anything is judged."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import UnmaskError
from pipeline.archive.manifest import Manifest, Row
from pipeline.archive.output import OutFolder, scratch
from pipeline.contracts import Provenance

PLAN: Final = "plan.json"
ROWS: Final = "plan.parquet"
# A part is lost as a whole with the disk of its machine: minutes of work. Files of it are held open one at a time.
MOST_FILES: Final = 500
MOST_BYTES: Final = 8 << 30
# Small archives are cut into about so many parts, so that all processes have work to the end.
_PARTS: Final = 64
_FEWEST_FILES: Final = 16


class PlanError(UnmaskError, ValueError):
    """The output folder holds something else, or another archive; the message says what differs."""


class Asked(BaseModel):
    """What a run was asked for, and what changes its results: equal in all runs of a folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    manifest_sha256: str
    weights_sha256: tuple[str, ...]
    sampling: str
    part: str | None = Field(description="only this part of each clip is judged")
    face_detector: str
    looks: str
    min_coverage: float
    part_files: int | None
    part_bytes: int | None
    working_folder: str | None = Field(description="where relative paths of the manifest start; null: it has none")


class Judged(BaseModel):
    """How a scanner judges, as records have it."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model: str
    weights_sha256: tuple[str, ...]
    input_spec: str
    detector: str
    sampling: str

    @classmethod
    def of(cls, provenance: Provenance) -> Judged:
        """The fields of a scanner's provenance."""
        return cls.model_validate(provenance.model_dump(include=set(cls.model_fields)))


class PartSize(BaseModel):
    """How much a part holds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: int
    weight_bytes: int = Field(description="sizes, and for files of unknown size a share of `part_bytes`")


class Plan(BaseModel):
    """`plan.json`. The rows of each part are in `plan.parquet`, in a row group of their own."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    id: str = Field(default_factory=lambda: secrets.token_hex(16), description="names this archive's journals")
    manifest: str = Field(description="as given")
    asked: Asked
    judged: Judged | None = Field(default=None, description="null until the first scanner is ready")
    software: str | None = Field(default=None, description="of the first scanner; each record names its own")
    parts: tuple[PartSize, ...]

    @property
    def files(self) -> int:
        """In all parts."""
        return sum(part.files for part in self.parts)

    def by_size(self) -> list[int]:
        """Numbers of the parts, the largest first, so that none is begun at the end that takes long."""
        return sorted(range(len(self.parts)), key=lambda i: (-self.parts[i].weight_bytes, -self.parts[i].files, i))


def part_name(number: int, suffix: str) -> str:
    """Name of a file of a part: `part-00012.parquet`."""
    return f"part-{number:05d}.{suffix}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a part may be.

    Attributes:
        files: at most.
        size_bytes: at most, but for a part that is a single larger file. A file of unknown size counts as
            `size_bytes` / `files`.
    """

    files: int
    size_bytes: int

    @classmethod
    def of(cls, rows: int, files: int | None = None, size_bytes: int | None = None) -> Bounds:
        """The bounds that were asked for; None: by the number of rows."""
        usual = min(MOST_FILES, max(_FEWEST_FILES, -(-rows // _PARTS)))
        return cls(files or usual, size_bytes or MOST_BYTES)

    def weight(self, size_bytes: int | None) -> int:
        """What a file counts, in bytes."""
        return max(1, self.size_bytes // self.files) if size_bytes is None else size_bytes


def grouped(rows: Iterable[Row], bounds: Bounds) -> Iterator[list[Row]]:
    """The rows of each part, in the order of the manifest: a part ends where the next file would exceed its bounds.

    Depends on its arguments alone. One part is in memory at a time.
    """
    group: list[Row] = []
    weight_bytes = 0
    for row in rows:
        weight = bounds.weight(row.size_bytes)
        if group and (len(group) >= bounds.files or weight_bytes + weight > bounds.size_bytes):
            yield group
            group, weight_bytes = [], 0
        group.append(row)
        weight_bytes += weight
    if group:
        yield group


def write_rows(out: OutFolder, manifest: Manifest, bounds: Bounds) -> list[PartSize]:
    """Write `plan.parquet`: part, row, id, uri, size_bytes.

    Raises:
        ManifestError: a row is bad.
        NotWrittenError: the file cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    types = {"part": "int32", "row": "int64", "id": "string", "uri": "string", "size_bytes": "int64"}
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(of)) for name, of in types.items()])
    sizes: list[PartSize] = []
    with scratch() as file:
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for number, group in enumerate(grouped(manifest.rows(), bounds)):
                columns: dict[str, list[Any]] = {
                    "part": [number] * len(group),
                    "row": [row.number for row in group],
                    "id": [row.id for row in group],
                    "uri": [row.uri for row in group],
                    "size_bytes": [row.size_bytes for row in group],
                }
                writer.write_table(pyarrow.Table.from_pydict(columns, schema), row_group_size=len(group))
                weight = sum(bounds.weight(row.size_bytes) for row in group)
                sizes.append(PartSize(files=len(group), weight_bytes=weight))
        out.write(ROWS, file)
    return sizes


class PlannedRows:
    """The rows of `plan.parquet`, part by part.

    Raises:
        PlanError: the file does not belong to this plan.
    """

    def __init__(self, file: Any, plan: Plan) -> None:
        from pyarrow import ArrowException, parquet

        try:
            self._file = parquet.ParquetFile(file)
        except ArrowException as error:
            raise PlanError(f"{ROWS} is damaged: {error}; begin again in another folder") from error
        if self._file.num_row_groups != len(plan.parts) or self._file.metadata.num_rows != plan.files:
            raise PlanError(f"{ROWS} is not that of {PLAN}; begin again in another folder")

    def of(self, part: int) -> list[Row]:
        """The rows of a part."""
        table = self._file.read_row_group(part, columns=["row", "id", "uri", "size_bytes"])
        return [Row(each["row"], each["id"], each["uri"], each["size_bytes"]) for each in table.to_pylist()]


def write_plan(out: OutFolder, plan: Plan) -> None:
    """Write `plan.json`: from then on the folder is this archive's.

    Raises:
        NotWrittenError: it cannot be written.
    """
    out.write(PLAN, (plan.model_dump_json(by_alias=True, indent=1) + "\n").encode())


def read_plan(out: OutFolder) -> Plan | None:
    """The plan of a folder; None: it has none yet, and holds nothing else.

    Raises:
        PlanError: the folder holds something else, or the plan of another version.
        NotReadError: it cannot be read.
    """
    text = out.read(PLAN)
    if text is None:
        if others := sorted(name for name in out.names() if name != ROWS and not name.startswith(".")):
            raise PlanError(f"{out.shown}: is not empty, and not an archive of unmask: it holds {others[0]}")
        return None
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        raise PlanError(f"{out.shown}/{PLAN}: not a plan of this version: {error.errors()[0]['msg']}") from error


def check_same(out: OutFolder, was: Asked | Judged, now: Asked | Judged) -> None:
    """Return if both are equal.

    Raises:
        PlanError: they are not; the message says what differs.
    """
    before, after = was.model_dump(), now.model_dump()
    differing = [
        f"{name} was {_text(before[name])}, now {_text(after[name])}" for name in before if before[name] != after[name]
    ]
    if differing:
        raise PlanError(
            f"{out.shown} holds an archive that was begun otherwise: {'; '.join(differing)}. "
            "Run it with what it was begun with, or name another folder"
        )


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, Sequence) and not isinstance(value, str) else json.dumps(value)
