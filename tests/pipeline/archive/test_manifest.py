"""Manifests: what is read, what is refused with its row, and how rows are cut into parts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.archive.manifest import ManifestError, Row, open_manifest
from pipeline.archive.plan import Bounds, grouped
from pipeline.contracts import clip_id_of

ROWS = [
    {"uri": "s3://bucket/a.mp4", "id": "first", "size_bytes": 5},
    {"uri": "films/\u65e5\u672c, b.mp4", "id": None, "size_bytes": None},
]


def written(path: Path, rows: list[dict[str, object]]) -> str:
    """A manifest in the format of its suffix."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        path.write_text("".join(f"{row['uri']}\n" for row in rows), "utf-8")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".txt"])
def test_each_format_has_the_same_rows(suffix: str, tmp_path: Path) -> None:
    with open_manifest(written(tmp_path / f"clips{suffix}", ROWS)) as manifest:
        assert (manifest.check().rows, manifest.check().has_relative) == (2, True)
        for _ in range(2):
            first, second = manifest.rows()
    plain = suffix == ".txt"
    uri = "s3://bucket/a.mp4"
    assert first == Row(1, clip_id_of(uri) if plain else "first", uri, None if plain else 5)
    # A missing local file takes no time.
    assert second == Row(2, clip_id_of(str(ROWS[1]["uri"])), str(ROWS[1]["uri"]), 0)
    assert second.source.id == second.id


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"uri": "a"}, {"uri": " "}], "row 2: uri is empty"),
        ([{"uri": "a", "id": "x"}, {"uri": "b", "id": "y"}, {"uri": "c", "id": "x"}], "row 3: has the id 'x' of row 1"),
        ([{"uri": "a"}, {"uri": "a"}], "row 2: names 'a' of row 1"),
        ([{"uri": "a", "id": "x y"}], "row 1: id must have"),
        ([{"uri": "a", "size_bytes": "5 MB"}], "row 1: size_bytes must be a whole number"),
        ([{"uri": "a", "size_bytes": -1}], "row 1: size_bytes"),
        ([{"path": "a"}], "uri"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_bad_rows_are_named(suffix: str, rows: list[dict[str, object]], says: str, tmp_path: Path) -> None:
    with open_manifest(written(tmp_path / f"m{suffix}", rows)) as manifest, pytest.raises(ManifestError) as error:
        manifest.check()
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.jsonl", b'{"uri": "a"}\nnot json\n["a"]\n{"uri": "\\ud800"}\n', "row 2: not JSON"),
        ("m.txt", b"a\nb\xff.mp4\n", "row 2: not UTF-8"),
        ("m.csv", b"uri\n\xff\n", "utf-8"),
        ("m.parquet", b"nothing", "not a Parquet file"),
        ("m.txt", b"\n", "has no rows"),
        ("m.xlsx", b"", "must end in one of"),
    ],
)
def test_unreadable_manifests(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (path := tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=says), open_manifest(str(path)) as manifest:
        manifest.check()


@given(
    sizes=st.lists(st.none() | st.integers(0, 1000), max_size=200),
    files=st.integers(1, 20),
    size_bytes=st.integers(1, 2000),
)
def test_each_row_is_in_one_part_of_bounded_size(sizes: list[int | None], files: int, size_bytes: int) -> None:
    rows = [Row(number, f"{number}", f"{number}", size) for number, size in enumerate(sizes, 1)]
    bounds = Bounds(files, size_bytes)
    parts = list(grouped(iter(rows), bounds))
    assert [row for part in parts for row in part] == rows
    assert parts == list(grouped(rows, bounds))
    weights = [sum(bounds.weight(row.size_bytes) for row in part) for part in parts]
    for part, weight in zip(parts, weights, strict=True):
        assert 1 <= len(part) <= files
        assert weight <= size_bytes or len(part) == 1
    # No part could have taken the next one's first file.
    for part, weight, after in zip(parts, weights, parts[1:], strict=False):
        assert len(part) == files or weight + bounds.weight(after[0].size_bytes) > size_bytes


@given(rows=st.integers(1, 2_000_000))
def test_usual_bounds(rows: int) -> None:
    bounds = Bounds.of(rows)
    assert 16 <= bounds.files <= 500
    assert Bounds.of(rows, 3, 7) == Bounds(3, 7)
