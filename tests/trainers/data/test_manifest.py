from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.manifest import FAKE, Manifest, ManifestError, join

# Without "..", which is outside a manifest's folder and becomes absolute.
names = st.text("abcxyz019_-.", min_size=1, max_size=8).filter(lambda text: text != "..")
rows_of = st.lists(
    st.fixed_dictionaries(
        {
            "path": names,
            "label": st.sampled_from(["real", "fake"]),
            "split": st.sampled_from(["train", "val"]),
            "group": names,
            "source_video": names,
            "method": st.sampled_from(["", "swap, with a comma", 'a "quoted" one']),
            "dataset": names,
            "source_width": st.one_of(st.none(), st.integers(1, 4000)),
            "landmarks": st.one_of(st.none(), st.lists(st.integers(-50, 500), min_size=10, max_size=10)),
            "pair": st.one_of(st.just(""), names),
        }
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@settings(deadline=None, max_examples=40)
@given(rows=rows_of)
def test_a_written_manifest_reads_back(tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    manifest = Manifest.of(rows, folder)
    manifest.write(folder / f"m{suffix}")
    back = Manifest.read(folder / f"m{suffix}")
    for name in ("path", "label", "split", "group", "source_video", "method", "dataset", "pair"):
        assert list(getattr(back, name)) == list(getattr(manifest, name)), name
    np.testing.assert_array_equal(back.source_width, manifest.source_width)
    np.testing.assert_array_equal(back.landmarks, manifest.landmarks)
    assert back.sha256 == manifest.sha256


@settings(deadline=None, max_examples=40)
@given(rows=rows_of, seed=st.integers(0, 1000))
def test_the_hash_depends_on_the_data_not_on_order_or_place(rows: list, seed: int) -> None:
    manifest = Manifest.of(rows, Path("/here"))
    order = np.random.default_rng(seed).permutation(len(rows))
    assert manifest.take(order).sha256 == manifest.sha256
    assert Manifest.of([{**row, "split": "other"} for row in rows], Path("/here")).sha256 != manifest.sha256


@settings(deadline=None, max_examples=40)
@given(rows=rows_of)
def test_halves_share_no_group_and_lose_no_row(rows: list) -> None:
    manifest = Manifest.of(rows, Path())
    selection, report = manifest.halves()
    assert not set(selection.group) & set(report.group)
    assert len(selection) + len(report) == len(manifest)


def test_halves_are_about_equal() -> None:
    row = {"path": "p", "label": "real", "split": "val", "source_video": "", "method": "", "dataset": ""}
    manifest = Manifest.of([{**row, "group": str(i)} for i in range(2000)], Path())
    assert 900 < len(manifest.halves()[0]) < 1100


def test_paths_follow_the_file(tmp_path: Path) -> None:
    row = {"label": "fake", "split": "s", "group": "g", "source_video": "v", "method": "", "dataset": "d"}
    inside = Manifest.of([{**row, "path": "a.tar/x.jpg"}], tmp_path / "deep" / "er")
    outside = Manifest.of([{**row, "path": "/elsewhere/y.jpg"}], tmp_path)
    whole = join([inside, outside], tmp_path)
    assert list(whole.path) == ["deep/er/a.tar/x.jpg", "/elsewhere/y.jpg"]
    whole.write(tmp_path / "deep" / "m.csv")
    assert list(Manifest.read(tmp_path / "deep" / "m.csv").path) == ["er/a.tar/x.jpg", "/elsewhere/y.jpg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "maybe"}, "label must be real or fake, got 'maybe'"),
        ({"path": ""}, "the path is empty"),
        ({"source_width": "wide"}, "source_width must be a number"),
        ({"landmarks": "1 2 3"}, "ten numbers, got 3"),
        ({"landmarks": "a b"}, "ten numbers"),
    ],
)
def test_a_bad_row_is_named(change: dict, message: str) -> None:
    good = {"path": "p", "label": "1", "split": "", "group": "", "source_video": "", "method": "", "dataset": ""}
    assert Manifest.of([good], Path()).label[0] == FAKE
    with pytest.raises(ManifestError, match=f"row 2: .*{message}"):
        Manifest.of([good, {**good, **change}], Path())


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ManifestError, match="column group is missing"):
        Manifest.of(
            [{"path": "p", "label": "real", "split": "", "source_video": "", "method": "", "dataset": ""}], Path()
        )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "cannot be read"),
        ("m.txt", b"path", "end in .parquet or .csv"),
        ("m.csv", b"path,label\n", "has no rows"),
        ("m.csv", b"\xff\xfe\x00", "cannot be read"),
        ("m.parquet", b"not one", "not a Parquet file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        Manifest.read(tmp_path / name)
