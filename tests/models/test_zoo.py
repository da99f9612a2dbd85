"""The zoo: pinned files from a local server, and clear errors if they are not available."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from models import zoo
from models.architectures import get_model, list_architectures, load_detector
from models.bases import find_base
from models.checkpoint import CheckpointError
from models.difference import read_difference
from models.zoo import (
    ZooEntry,
    ZooError,
    default_detector,
    find_entry,
    list_entries,
    locate,
    pull,
    resolve,
    split_names,
    weights_dir,
)

CONTENTS = bytes(range(256)) * 4000
ENTRY = ZooEntry(
    name="tiny",
    kind="face_detector",
    uri="",
    filename="tiny.onnx",
    sha256=hashlib.sha256(CONTENTS).hexdigest(),
    size_bytes=len(CONTENTS),
    licence="Apache-2.0",
    card="https://example.org/tiny",
    description="made for this test",
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        bodies = {
            "/good": CONTENTS,
            "/wrong": CONTENTS[::-1],
            "/long": CONTENTS + b"more",
            "/cut": CONTENTS,
            "/empty": b"",
        }
        if self.path not in bodies:
            self.send_error(404)
            return
        body = bodies[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # "cut" announces the full length and closes the connection half-way.
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        """No log output."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNMASK_OFFLINE", raising=False)
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache" / "weights"


def offer(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    entry = replace(ENTRY, uri=uri)
    monkeypatch.setattr(zoo, "list_entries", lambda: (entry,))


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("page", ["good", "moved"])
def test_pull_fetches_checks_and_reports(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    offer(monkeypatch, f"{server}/{page}")
    seen: list[tuple[int, int]] = []
    path = pull("tiny", progress=lambda received, expected: seen.append((received, expected)))
    assert path == cache / "tiny.onnx"
    assert path.read_bytes() == CONTENTS
    assert files(cache) == ["tiny.onnx"]
    assert [received for received, _ in seen] == sorted({received for received, _ in seen})
    assert seen[-1] == (len(CONTENTS), len(CONTENTS))
    assert resolve("tiny") == path


def test_pull_of_an_existing_file_sends_no_request(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, f"{server}/good")
    path = pull("tiny")
    offer(monkeypatch, f"{server}/gone")
    assert pull("tiny") == path


def test_pull_replaces_a_damaged_file(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, f"{server}/good")
    cache.mkdir(parents=True)
    (cache / "tiny.onnx").write_bytes(b"damaged")
    with pytest.raises(ZooError, match="has sha256"):
        resolve("tiny")
    assert pull("tiny").read_bytes() == CONTENTS


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("wrong", "nothing was kept"),
        ("long", "nothing was kept"),
        ("cut", "ended after|cannot be fetched"),
        ("empty", "ended after 0"),
        ("gone", "the server answered 404"),
    ],
)
def test_a_failed_pull_leaves_no_file(
    server: str, cache: Path, monkeypatch: pytest.MonkeyPatch, page: str, message: str
) -> None:
    offer(monkeypatch, f"{server}/{page}")
    with pytest.raises(ZooError, match=message):
        pull("tiny")
    assert files(cache) == []


def test_a_failed_pull_keeps_the_existing_file(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, f"{server}/cut")
    cache.mkdir(parents=True)
    (cache / "tiny.onnx").write_bytes(b"an older version")
    with pytest.raises(ZooError):
        pull("tiny")
    assert (cache / "tiny.onnx").read_bytes() == b"an older version"
    assert files(cache) == ["tiny.onnx"]


def test_an_interrupted_pull_leaves_no_file(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, f"{server}/good")

    def interrupt(received: int, expected: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", progress=interrupt)
    assert files(cache) == []


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9/x", "http://[::1/x", "http://127.0.0.1:port/x"])
def test_an_unreachable_source_names_the_place_for_the_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    offer(monkeypatch, uri)
    with pytest.raises(ZooError) as error:
        pull("tiny")
    for needed in ("cannot be fetched", str(cache / "tiny.onnx"), ENTRY.sha256, "unmask models pull tiny --from"):
        assert needed in str(error.value)


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_uses_no_network(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    offer(monkeypatch, f"{server}/good")
    monkeypatch.setenv("UNMASK_OFFLINE", value)
    with pytest.raises(ZooError, match="UNMASK_OFFLINE is set") as error:
        pull("tiny")
    assert str(cache / "tiny.onnx") in str(error.value)
    assert files(cache) == []


def test_pull_from_a_file_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "http://127.0.0.1:9/x")
    monkeypatch.setenv("UNMASK_OFFLINE", "1")
    placed = tmp_path / "brought along.onnx"
    placed.write_bytes(CONTENTS)
    assert pull("tiny", source=placed).read_bytes() == CONTENTS


def test_pull_from_a_file_uri_and_another_server(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "http://127.0.0.1:9/x")
    placed = tmp_path / "placed.onnx"
    placed.write_bytes(CONTENTS)
    assert pull("tiny", source=placed.as_uri()).read_bytes() == CONTENTS
    weights_dir().joinpath("tiny.onnx").unlink()
    assert pull("tiny", source=f"{server}/good").read_bytes() == CONTENTS


@pytest.mark.parametrize(
    ("source", "message"),
    [("missing.onnx", "cannot be fetched"), (".", "cannot be fetched"), ("ftp://h/x", "cannot fetch over 'ftp'")],
)
def test_pull_from_an_invalid_source_is_refused(monkeypatch: pytest.MonkeyPatch, source: str, message: str) -> None:
    offer(monkeypatch, "http://127.0.0.1:9/x")
    with pytest.raises(ZooError, match=message):
        pull("tiny", source=source)


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "http://127.0.0.1:9/x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_bytes(b"another file that happens to have the name")
    assert resolve("./tiny") == Path("tiny")
    assert resolve(tmp_path / "tiny") == tmp_path / "tiny"
    with pytest.raises(ZooError) as error:
        resolve("tiny")
    for needed in ("unmask models pull tiny", ENTRY.sha256, str(weights_dir() / "tiny.onnx")):
        assert needed in str(error.value)
    with pytest.raises(ZooError, match=r"nowhere\.pth: no such file, and no weights of that name.*: tiny"):
        resolve("nowhere.pth")


def test_unknown_names_list_what_exists() -> None:
    for call in (find_entry, pull):
        with pytest.raises(ZooError, match=r"no weights named 'yumet'; available: .*yunet"):
            call("yumet")


def test_the_default_cache_is_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMASK_CACHE")
    assert weights_dir() == Path.home() / ".cache/unmask/weights"


def test_entries_are_complete() -> None:
    entries = list_entries()
    names = [name for entry in entries for name in entry.names]
    assert len(set(names)) == len(names)
    assert len({entry.filename for entry in entries}) == len(entries)
    for entry in entries:
        if entry.uri or entry.delivery != "built":
            assert entry.uri.startswith("package:" if entry.packaged else "https://")
            assert entry.uri.endswith(f"/{entry.filename}")
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.size_bytes > 0
        assert entry.licence
        assert entry.description
        assert (locate(entry) is not None) == entry.packaged, "the cache is empty"


@pytest.mark.data
def test_yunet_matches_its_zoo_entry(data_dir: Path) -> None:
    entry = find_entry("yunet")
    path = pull("yunet", source=data_dir / "weights" / entry.filename)
    assert path.stat().st_size == entry.size_bytes
    assert resolve("yunet") == path


DETECTORS = [entry for entry in list_entries() if entry.kind == "detector"]
PACKAGED = [entry for entry in DETECTORS if entry.packaged]
BUILT = [entry for entry in DETECTORS if entry.difference is not None]
MAX_FILE_BYTES = 16 << 20  # of one file in the package


@pytest.mark.parametrize("entry", PACKAGED, ids=lambda entry: entry.name)
def test_packaged_weights_exist_are_small_and_match_the_pin(entry: ZooEntry) -> None:
    path = locate(entry)  # raises if the sha256 differs
    assert path is not None
    assert path.parent == zoo.packaged_dir()
    assert path.stat().st_size == entry.size_bytes <= MAX_FILE_BYTES
    assert pull(entry.name) == path


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.name)
def test_differences_exist_are_small_and_give_the_pinned_file(entry: ZooEntry) -> None:
    path = zoo.packaged_dir() / str(entry.difference)
    assert path.stat().st_size <= MAX_FILE_BYTES
    found = read_difference(path)
    base = find_base(found.base_name)
    assert (found.sha256, found.base_sha256) == (entry.sha256, base.sha256)
    assert found.info.architecture in list_architectures()
    assert entry.install == base.install


@pytest.mark.parametrize("entry", DETECTORS, ids=lambda entry: entry.name)
def test_every_detector_has_a_model_card(entry: ZooEntry) -> None:
    card = Path(__file__).parents[2] / entry.card
    assert card.is_file()
    assert entry.name in card.read_text()


@pytest.mark.parametrize("entry", PACKAGED, ids=lambda entry: entry.name)
def test_packaged_weights_load_offline_by_name(entry: ZooEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_OFFLINE", "1")
    loaded = load_detector(entry.name)
    assert loaded.sha256 == entry.sha256
    assert loaded.info.name == entry.name
    model = get_model(loaded.info.architecture, pretrained=entry.name).eval()
    images = torch.rand(2, 3, model.input_spec.size, model.input_spec.size)
    with torch.inference_mode():
        scores = model(images)
        assert torch.equal(scores, loaded.model(images))
    assert scores.isfinite().all()
    for other in set(list_architectures()) - {loaded.info.architecture}:
        with pytest.raises(CheckpointError, match=f"not a {other}"):
            get_model(other, pretrained=entry.name)


@pytest.mark.parametrize("architecture", sorted(set(list_architectures()) - {"clip_vit"}))
def test_every_small_architecture_has_packaged_weights_of_its_name(architecture: str) -> None:
    name = f"unmask-{architecture.replace('_', '-')}"
    assert find_entry(name) in PACKAGED
    assert get_model(architecture, pretrained=name).architecture == architecture
    assert resolve(name).parent == zoo.packaged_dir()


def test_aliases_are_named_wherever_names_are_listed() -> None:
    small = find_entry("unmask-small")
    assert find_entry("unmask-xception") is small
    assert resolve("unmask-xception") == resolve("unmask-small")
    for call in (find_entry, resolve):
        with pytest.raises(ZooError, match=r"unmask-small, unmask-xception"):
            call("unmask-smal")


def test_an_added_copy_of_packaged_weights_is_replaced_if_it_is_damaged(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image that does not hold them."""
    entry = find_entry("unmask-two-stream")
    source = zoo.packaged_dir() / entry.filename
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(zoo, "packaged_dir", lambda: tmp_path / "package")
    with pytest.raises(ZooError, match="models pull unmask-two-stream --from FILE"):
        resolve(entry.name)
    added = pull(entry.name, source=source)
    assert added.parent == cache
    assert resolve(entry.name) == added
    with added.open("ab") as file:
        file.write(b"!")
    with pytest.raises(ZooError, match="models pull unmask-two-stream --from FILE` replaces it"):
        resolve(entry.name)
    assert pull(entry.name, source=source).read_bytes() == source.read_bytes()


def test_the_default_detector_is_packaged() -> None:
    assert find_entry(default_detector()) in PACKAGED


def test_missing_packaged_weights_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(find_entry(default_detector()), filename="absent.safetensors")
    monkeypatch.setattr(zoo, "list_entries", lambda: (entry,))
    for ask in (pull, resolve):
        with pytest.raises(ZooError, match="not in this installation") as error:
            ask(entry.name)
        assert str(weights_dir() / entry.filename) in str(error.value)


@pytest.mark.parametrize("entry", PACKAGED, ids=lambda entry: entry.name)
def test_packaged_weights_were_trained_and_calibrated(entry: ZooEntry) -> None:
    loaded = load_detector(entry.name)
    assert loaded.info.thresholds is not None
    assert loaded.info.data_manifest_sha256 is not None
    assert loaded.info.step > 0
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("text", "names"),
    [("unmask-small", ("unmask-small",)), ("a, b,c.safetensors", ("a", "b", "c.safetensors"))],
)
def test_ensemble_members_are_separated_by_commas(text: str, names: tuple[str, ...]) -> None:
    assert split_names(text) == names
    assert split_names(Path(text)) == (Path(text),)


@pytest.mark.parametrize("text", [",", "a,", ",a", "a,,b"])
def test_a_member_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(ZooError, match="single commas"):
        split_names(text)
