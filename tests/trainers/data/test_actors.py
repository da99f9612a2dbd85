"""Actors: original videos of one person are found, and validation can get people that training lacks."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from trainers.commands.data import app
from trainers.data.actors import PUT_ASIDE, cluster, put_aside, report, unseen, with_actors
from trainers.data.check import check
from trainers.data.face_embedding import _STRIDES
from trainers.data.manifest import FAKE, REAL, Manifest


def manifest_of(people: list[tuple[str, str]], root: Path = Path()) -> Manifest:
    """One original video, real and fake, for each (person, split)."""
    rows: list[dict[str, Any]] = []
    for number, (person, split) in enumerate(people):
        for label, method in (("real", ""), ("fake", "swap")):
            rows.append(
                {"path": f"{number}-{label}.png", "label": label, "split": split, "group": str(number)}
                | {"source_video": f"{number}-{label}", "method": method, "dataset": "made", "actor": person}
            )
    return Manifest.of(rows, root)


people_and_splits = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["train", "train", "val"])), min_size=1, max_size=30
)


def test_videos_of_one_person_are_found_among_others() -> None:
    rng = np.random.default_rng(0)
    persons = np.repeat(np.arange(12), 5)
    faces = rng.normal(size=(12, 64))[persons] + 0.5 * rng.normal(size=(60, 64))
    # All faces share most features.
    vectors = faces + 6 * rng.normal(size=64)
    found = cluster((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    assert len(set(found.tolist())) == 12
    assert all(len(set(found[persons == person].tolist())) == 1 for person in range(12))


def test_a_single_video_is_one_person() -> None:
    assert cluster(np.ones((1, 4), np.float32)).tolist() == [0]


@given(people=people_and_splits, rows=st.integers(0, 8))
def test_putting_rows_aside_makes_people_unseen_and_loses_no_row(people: list[tuple[str, str]], rows: int) -> None:
    manifest = manifest_of(people)
    changed = put_aside(manifest, rows)
    assert changed.path.tolist() == manifest.path.tolist()
    moved = changed.split != manifest.split
    assert set(manifest.split[moved].tolist()) <= {"train"}
    assert set(changed.split[moved].tolist()) <= {PUT_ASIDE}
    validation = changed.take(unseen(changed, changed) & (changed.split == "val"))
    assert not set(validation.actor.tolist()) & set(changed.actor[changed.split == "train"].tolist())
    available = min(int(((manifest.split == "val") & (manifest.label == label)).sum()) for label in (REAL, FAKE))
    wanted = min(rows, available)
    assert int((validation.label == REAL).sum()) >= wanted
    assert int((validation.label == FAKE).sum()) >= wanted


def test_the_cheapest_people_are_put_aside_first() -> None:
    manifest = manifest_of([("a", "val"), *[("a", "train")] * 5, ("b", "val"), ("b", "train"), ("c", "train")])
    changed = put_aside(manifest, 1)
    assert set(changed.actor[changed.split == PUT_ASIDE].tolist()) == {"b"}
    counts = report(changed, groups=9)
    assert (counts.actors, counts.shared, counts.unseen, counts.put_aside) == (3, 1, (1, 1), 2)


def test_rows_without_a_known_person_stay_and_are_never_unseen() -> None:
    manifest = manifest_of([("", "val"), ("", "train")])
    assert not unseen(manifest, manifest).any()
    assert put_aside(manifest, 5).split.tolist() == manifest.split.tolist()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_actors_are_written_and_read(tmp_path: Path, suffix: str) -> None:
    manifest_of([("a", "train"), ("", "val")]).write(tmp_path / f"m{suffix}")
    assert Manifest.read(tmp_path / f"m{suffix}").actor.tolist() == ["a", "a", "", ""]


def test_actors_of_other_datasets_keep_their_names() -> None:
    manifest = manifest_of([("x", "train"), ("y", "train")])
    named = with_actors(manifest, "other", np.array(["0"]), np.array([7]))
    assert named.actor.tolist() == manifest.actor.tolist()
    assert with_actors(manifest, "made", np.array(["0"]), np.array([7])).actor.tolist() == [
        "made-0007",
        "made-0007",
        "y",
        "y",
    ]


def test_a_shared_actor_is_a_warning_until_rows_are_put_aside() -> None:
    manifest = manifest_of([("a", "train"), ("a", "val")])
    found = check(manifest, images=False)
    assert found.passed
    assert [finding.kind for finding in found.warnings] == ["actor_in_two_splits"]
    assert check(put_aside(manifest, 1), images=False).warnings == ()


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of faceres-deep's shape with random weights: only equal pictures get equal embeddings."""
    folder = tmp_path_factory.mktemp("embedding")
    rng = np.random.default_rng(0)
    widths = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    arrays: dict[str, npt.NDArray[np.float32]] = {}

    def put(name: str, *shape: int, fan: int = 1) -> None:
        arrays[name] = (rng.normal(size=shape) * np.sqrt(2 / fan)).astype(np.float32)

    put("conv1/convolution/merged_input", 3, 3, 3, 32, fan=27 * 3000)
    put("conv1_bn/batchnorm_1/sub", 32, fan=100)
    for i, (before, after) in enumerate(pairwise(widths), 1):
        put(f"conv_dw_{i}/depthwise_kernel", 3, 3, before, 1, fan=9)
        arrays[f"conv_dw_{i}_bn/batchnorm_1/mul"] = np.ones(before, np.float32)
        put(f"conv_dw_{i}_bn/batchnorm_1/sub", before, fan=100)
        put(f"conv_pw_{i}/convolution/merged_input", 1, 1, before, after, fan=before)
        put(f"conv_pw_{i}_bn/batchnorm_1/sub", after, fan=100)
    assert len(_STRIDES) == len(widths) - 1
    (folder / "net.bin").write_bytes(b"".join(array.tobytes() for array in arrays.values()))
    entries = [{"name": name, "shape": list(array.shape), "dtype": "float32"} for name, array in arrays.items()]
    graph = {"weightsManifest": [{"paths": ["net.bin"], "weights": entries}]}
    (folder / "net.json").write_text(json.dumps(graph))
    return folder / "net.json"


def test_the_command_names_people_and_puts_rows_aside(tmp_path: Path, embedding: Path) -> None:
    rng = np.random.default_rng(1)
    persons = [0, 0, 1, 1, 2, 2]
    faces = [cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (64, 64)) for _ in range(3)]
    for number, person in enumerate(persons):
        picture = np.clip(faces[person].astype(int) + rng.integers(-4, 5, (64, 64, 3)), 0, 255).astype(np.uint8)
        for label in ("real", "fake"):
            cv2.imwrite(str(tmp_path / f"{number}-{label}.png"), picture)
    splits = ("train", "val", "train", "train", "train", "val")
    manifest_of([("", split) for split in splits], tmp_path).write(tmp_path / "m.csv")
    arguments = ["actors", str(tmp_path / "m.csv"), str(tmp_path / "out.csv"), "--embedding", str(embedding)]
    result = CliRunner().invoke(app, [*arguments, "--dataset", "made", "--unseen", "1"])
    assert result.exit_code == 0, result.output
    assert "6 original videos of 3 people; 1 people are in training" in " ".join(result.output.split())
    named = Manifest.read(tmp_path / "out.csv")
    assert [named.actor[2 * i] == named.actor[0] for i in range(6)] == [True, True, False, False, False, False]
    assert (named.split == PUT_ASIDE).sum() == 2
    missing = CliRunner().invoke(app, [*arguments[:3], "--embedding", str(tmp_path / "none.json")])
    assert missing.exit_code == 2
    assert "not a face embedding" in missing.output
    empty = CliRunner().invoke(app, [*arguments, "--dataset", "absent"])
    assert empty.exit_code == 2
    assert "no reals of the dataset 'absent'" in empty.output


def test_joined_manifests_keep_the_paths_of_their_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        manifest_of([(name, "train")], tmp_path / name).write(tmp_path / name / "m.csv")
    files = [str(tmp_path / name / "m.csv") for name in ("a", "b")]
    result = CliRunner().invoke(app, ["join", *files, "--out", str(tmp_path / "all.parquet")])
    assert result.exit_code == 0, result.output
    assert Manifest.read(tmp_path / "all.parquet").path.tolist() == [
        f"{name}/0-{label}.png" for name in ("a", "b") for label in ("real", "fake")
    ]
    assert CliRunner().invoke(app, ["join", "missing.csv", "--out", str(tmp_path / "x.csv")]).exit_code == 2
