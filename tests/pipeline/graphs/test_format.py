"""Graph files: what they hold, and that damage is noticed."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import BoxMargin, InputSpec
from pipeline.graphs.format import (
    SHAPES,
    Graph,
    GraphError,
    GraphInfo,
    Network,
    find_graphs,
    pack,
    read_graph,
    read_graph_info,
    why_unfit,
    write_graph,
)

WEIGHTS = "ab" * 32
SPEC = InputSpec(96)


def graph(weights: str = WEIGHTS, spec: InputSpec | None = SPEC, **changes: object) -> Graph:
    info = {"shapes": SHAPES, "precision": "f16", "converter": {"openvino": "2026.4.1"}} | changes
    return Graph(GraphInfo(weights, spec, **info), {"detector": Network(b"<net/>", bytes(range(256)))})  # type: ignore[arg-type]


@given(
    networks=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.tuples(st.binary(), st.binary()), min_size=1
    ),
    size=st.integers(16, 500),
    precision=st.sampled_from(["f16", "f32"]),
    shapes=st.lists(st.integers(1, 64), max_size=4),
)
def test_what_was_written_is_read(
    networks: dict[str, tuple[bytes, bytes]],
    size: int,
    precision: str,
    shapes: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    info = GraphInfo(WEIGHTS, InputSpec(size), tuple(shapes), precision, {"b": "2", "a": "1"})
    written = Graph(info, {name: Network(*parts) for name, parts in networks.items()})
    path = tmp_path_factory.mktemp("graph") / "a.graph"
    write_graph(path, written)
    found = read_graph(path)
    assert found == written
    assert read_graph_info(path) == info
    assert pack(found) == path.read_bytes()


@pytest.mark.parametrize("at", [0.05, 0.5, 0.95])
def test_a_changed_byte_of_a_network_is_noticed(tmp_path: Path, at: float) -> None:
    path = tmp_path / "a.graph"
    write_graph(path, graph())
    data = bytearray(path.read_bytes())
    start = data.index(bytes(range(256)))
    data[start + int(at * 255)] ^= 1
    path.write_bytes(data)
    with pytest.raises(GraphError, match=r"a\.graph.*damaged"):
        read_graph(path)


@pytest.mark.parametrize(
    "content", [b"", b"no zip", b"PK\x03\x04" + bytes(50), pack(graph())[:-40], pack(graph())[:300]]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.graph"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"a\.graph"):
        read_graph(path)
    assert why_unfit(path, WEIGHTS, SPEC) is not None


@given(st.integers(0, len(pack(graph())) - 1), st.integers(1, 255))
def test_damage_anywhere_is_noticed_or_harmless(tmp_path_factory: pytest.TempPathFactory, at: int, by: int) -> None:
    data = bytearray(pack(graph()))
    data[at] ^= by
    path = tmp_path_factory.getbasetemp() / "damaged.graph"
    path.write_bytes(data)
    with suppress(GraphError):
        found = read_graph(path)
        # Dates and attributes of entries are not looked at.
        assert found.networks == graph().networks


def test_an_archive_for_later_readers_is_damaged(tmp_path: Path) -> None:
    data = bytearray(pack(graph()))
    data[data.index(b"PK\x01\x02") + 6] = 148
    (tmp_path / "a.graph").write_bytes(data)
    with pytest.raises(GraphError, match=r"a\.graph: not a graph, or damaged"):
        read_graph(tmp_path / "a.graph")


def test_a_deeply_nested_description_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.graph", "w") as archive:
        archive.writestr("graph.json", "[" * 200_000)
    with pytest.raises(GraphError, match=r"a\.graph: not a graph, or damaged"):
        read_graph(tmp_path / "a.graph")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="cannot be read"):
        read_graph(tmp_path / "nowhere.graph")


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    """They could inflate to any size."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pack(graph()))) as source, zipfile.ZipFile(packed, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
    path = tmp_path / "a.graph"
    path.write_bytes(packed.getvalue())
    with pytest.raises(GraphError, match="compressed"):
        read_graph(path)


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    data = pack(graph())
    path = tmp_path / "a.graph"
    with zipfile.ZipFile(path, "w") as target, zipfile.ZipFile(io.BytesIO(data)) as source:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(GraphError, match="format 2, and this version of Unmask reads 1"):
        read_graph(path)


def test_the_graph_of_the_weights_is_found(tmp_path: Path) -> None:
    others = [graph("cd" * 32), graph(spec=InputSpec(128)), graph(shapes=(8,)), graph(maker=0)]
    for other in others:
        write_graph(tmp_path / other.info.filename, other)
    (tmp_path / f"{WEIGHTS}-0000.graph").write_bytes(b"damaged")
    assert find_graphs(WEIGHTS, SPEC, [tmp_path]) == []
    wanted = graph(converter={"openvino": "2025.1.0"})
    write_graph(tmp_path / wanted.info.filename, wanted)
    assert find_graphs(WEIGHTS, SPEC, [tmp_path / "nowhere", tmp_path]) == [tmp_path / wanted.info.filename]


def test_graphs_of_different_kinds_have_different_names() -> None:
    kinds = [
        graph(),
        graph("cd" * 32),
        graph(spec=InputSpec(96, geometry=BoxMargin())),
        graph(shapes=(1,)),
        graph(precision="f32"),
        graph(converter={"openvino": "2026.4.2"}),
    ]
    assert len({kind.info.filename for kind in kinds}) == len(kinds)
