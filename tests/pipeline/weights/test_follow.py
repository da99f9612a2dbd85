"""New weights arrive while a worker scores: it uses them, or continues with the old ones."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import redis
import torch
from structlog.testing import capture_logs

from deploy.local.services import RedisServer
from models.architectures import load_detector
from models.checkpoint import read_checkpoint, save_checkpoint
from pipeline import detectors
from pipeline.contracts import ACTIVE_KEY, CANARY_KEY, CHANGED_CHANNEL, Announcement, GraphFile, Outcome, Verdict
from pipeline.detectors import Detector
from pipeline.faces.create import create_detector
from pipeline.graphs.format import graphs_dir, pack
from pipeline.graphs.make import make_graph
from pipeline.results.store import connect
from pipeline.scan import Scanner
from pipeline.scoring.backend import Backend
from pipeline.scoring.backends import create_backend
from pipeline.scoring.engine import Engine
from pipeline.sources import Source
from pipeline.telemetry import Metrics
from pipeline.video.sampling import Even
from pipeline.video.sandbox import DecodeServer
from pipeline.weights import follow
from pipeline.weights.announced import ActiveWeights
from pipeline.weights.arms import is_in_canary
from pipeline.weights.canary import Canaries
from pipeline.weights.follow import Follower
from pipeline.weights.leases import Scanners
from pipeline.weights.loading import Loaded, Loader, RefusedError, UnavailableError
from pipeline.weights.registry import Registry
from tests.conftest import required_service
from tests.pipeline.quick import QuickNetwork
from tests.pipeline.records import PROVENANCE, record
from tests.pipeline.worker.serving import until
from tests.weights import HEAD_BIAS, shifted, small_weights


class BiasNetwork(QuickNetwork):
    """Scores every crop with the bias of the model's head, so that scores identify their weights."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        real, fake = (float(value) for value in detector.model().state_dict()[HEAD_BIAS])
        self.input_size = detector.input_spec.size
        self.shift = fake - real
        self.log_odds = lambda pixels: np.full(len(pixels), self.shift, np.float32)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Bench:
    """A registry, a Redis, and a follower's parts, as in a worker."""

    folder: Path
    client: redis.Redis
    decode_server: DecodeServer
    cache: Path
    metrics: Metrics = field(default_factory=Metrics)
    clock: Clock = field(default_factory=Clock)
    create: Callable[[Detector], Backend] = BiasNetwork
    shadow_crops: int = 0

    def __post_init__(self) -> None:
        self.registry = Registry(str(self.cache / "registry"), self.cache / "unused")
        self.active = ActiveWeights(self.client)
        self.loader = Loader(self.cache / "weights", lambda detector: self.create(detector), self.registry.uri)

    @property
    def small(self) -> Path:
        return self.folder / "small.safetensors"

    def put(self, shift: float) -> str:
        """Weights of this shift in the registry."""
        path = self.folder / f"shifted-{shift}.safetensors"
        sha256 = shifted(self.small, path, shift)
        self.registry.put(path, sha256, None)
        return sha256

    def announce(self, sha256: str) -> str:
        now = self.active.read()
        uri = self.registry.uri_of(sha256)
        self.active.announce(sha256=sha256, name="n", uri=uri, forced=False, replacing=now)
        return sha256

    def announcement(self, sha256: str) -> Announcement:
        return Announcement(
            sha256=sha256, name="n", uri=self.registry.uri_of(sha256), promoted_at=0, previous=None, forced=False
        )

    def follower(self, load: Callable[[Announcement], Loaded] | None = None, shadow_s: float = 0.0) -> Follower:
        return Follower(
            self.client,
            load or self.loader,
            self.metrics,
            shadow_crops=self.shadow_crops,
            shadow_s=shadow_s,
            clock=self.clock,
        )

    def scanner(self) -> Scanner:
        """Of the weights whose shift is 0."""
        loaded = self.loader(self.announcement(self.put(0)))
        info = loaded.detector.info
        assert info is not None
        loaded.engine.begin(self.metrics.batch_crops.observe)
        return Scanner(
            engine=loaded.engine,
            spec=info.input_spec,
            detector=create_detector("mtcnn"),
            server=self.decode_server,
            sampling=Even(4),
            provenance=PROVENANCE.model_copy(update={"weights_sha256": [loaded.detector.sha256]}),
            calibration=info.calibration,
            portraits=False,
        )

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("unmask_swaps_total", {"result": result}) or 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    small_weights(folder / "small.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is moved here: followers look at it more often, and try a lost Redis again sooner."""
    monkeypatch.setattr(follow, "_TURN_S", 0.02)
    monkeypatch.setattr(follow, "_REDIS_AWAY_S", 0.05)


@pytest.fixture
def bench(folder: Path, announcements: redis.Redis, decode_server: DecodeServer, tmp_path: Path) -> Bench:
    return Bench(folder, announcements, decode_server, tmp_path)


@pytest.fixture
def scanners(bench: Bench) -> Iterator[Scanners]:
    with Scanners(bench.scanner()) as scanners:
        yield scanners


def in_use(scanners: Scanners) -> str:
    return scanners.provenance.weights_sha256[0]


def test_swaps_under_load_lose_no_crop_and_mix_no_weights(bench: Bench, scanners: Scanners, one_face: Path) -> None:
    bench.shadow_crops = 4
    shifts = {in_use(scanners): 0.0}
    verdicts: list[Verdict] = []
    enough = threading.Event()

    def clips(number: int) -> None:
        while not enough.is_set():
            with scanners.current() as scanner:
                report = scanner.scan(Source(str(one_face), f"clip-{number}"))
            assert report is not None
            verdicts.append(report.verdict)

    with bench.follower().following(scanners), ThreadPoolExecutor(2) as pool:
        scanning = [pool.submit(clips, number) for number in range(2)]
        try:
            for count in range(1, 6):
                sha256 = bench.announce(bench.put(count))
                shifts[sha256] = float(count)
                until(lambda count=count: bench.count("swapped") == count)
                assert in_use(scanners) == sha256
            # Two that began with the last weights.
            until(lambda: sum(v.provenance.weights_sha256 == [sha256] for v in list(verdicts)) >= 2)
        finally:
            enough.set()
        for each in scanning:
            each.result(60)
    assert scanners.stats().failed == 0
    assert (bench.count("refused"), bench.count("failed")) == (0, 0)
    base = shift_of(bench.small)
    for verdict in verdicts:
        (sha256,) = verdict.provenance.weights_sha256
        expected = 1 / (1 + np.exp(-(base + shifts[sha256])))
        assert verdict.outcome is Outcome.SCORED
        assert {round(face.probability, 5) for face in verdict.frames} == {round(float(expected), 5)}
    assert len({verdict.provenance.weights_sha256[0] for verdict in verdicts}) >= 2
    values = bench.metrics.registry.get_sample_value
    assert values("unmask_batch_crops_sum") == scanners.stats().crops, "the new engines count their batches too"
    assert values("unmask_weights", {"model": "shifted-5", "sha256": sha256}) == 1


def shift_of(path: Path) -> float:
    real, fake = (float(value) for value in read_checkpoint(path).weights[HEAD_BIAS])
    return fake - real


def _other_bytes(bench: Bench) -> str:
    sha256 = bench.put(11)
    (bench.cache / "registry" / "weights" / f"{sha256}.safetensors").write_bytes(b"other bytes")
    return sha256


def _resaved(bench: Bench, **changes: object) -> str:
    checkpoint = read_checkpoint(bench.small)
    path = bench.cache / "resaved.safetensors"
    sha256 = save_checkpoint(path, weights=checkpoint.weights, info=replace(checkpoint.info, **changes))  # type: ignore[arg-type]
    bench.registry.put(path, sha256, None)
    return sha256


def _other_architecture(bench: Bench) -> str:
    return _resaved(bench, architecture="two_stream")


def _other_shapes(bench: Bench) -> str:
    config = read_checkpoint(bench.small).info.config
    return _resaved(bench, config=config | {"backbone": "test_resnet.r160_in1k"})


def _truncated(bench: Bench) -> str:
    path = bench.cache / "truncated"
    path.write_bytes(bench.small.read_bytes()[:-100])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    bench.registry.put(path, sha256, None)
    return sha256


def _not_finite(bench: Bench) -> str:
    checkpoint = read_checkpoint(bench.small)
    path = bench.cache / "nan.safetensors"
    weights = checkpoint.weights | {HEAD_BIAS: torch.tensor([0.0, torch.nan])}
    sha256 = save_checkpoint(path, weights=weights, info=checkpoint.info)
    bench.registry.put(path, sha256, None)
    return sha256


def test_bad_weights_are_refused_once_and_those_in_use_stay(bench: Bench, scanners: Scanners) -> None:
    before = in_use(scanners)
    spoilt = (_other_bytes, _truncated, _other_architecture, _other_shapes, _not_finite)
    with capture_logs() as logs, bench.follower().following(scanners):
        for count, spoil in enumerate(spoilt, 1):
            bench.announce(spoil(bench))
            until(lambda count=count: bench.count("refused") == count)
        bench.client.set(ACTIVE_KEY, b"nonsense")
        bench.clock.now_s += 31  # no message: it is found when the key is read
        until(lambda: bench.count("refused") == len(spoilt) + 1)
        bench.clock.now_s += 31
        bench.client.delete(ACTIVE_KEY)
        assert in_use(scanners) == before
        good = bench.announce(bench.put(1))
        until(lambda: bench.count("swapped") == 1)
    assert in_use(scanners) == good
    assert (bench.count("refused"), bench.count("failed")) == (len(spoilt) + 1, 0)
    reasons = [line["error"] for line in logs if line["event"] == "weights refused"]
    for reason, part in zip(
        reasons,
        ["nothing was kept", "truncated", "ConfigError", "CheckpointError", "nan", "not an announcement"],
        strict=True,
    ):
        assert part in reason


def test_a_failed_fetch_is_retried_later(bench: Bench, scanners: Scanners) -> None:
    path = bench.cache / "registry" / "weights" / f"{bench.put(1)}.safetensors"
    hidden = path.rename(bench.cache / "hidden")
    tries_s = []

    def load(announcement: Announcement) -> Loaded:
        tries_s.append(bench.clock())
        return bench.loader(announcement)

    with bench.follower(load).following(scanners):
        sha256 = bench.announce(path.stem)
        until(lambda: bench.count("failed") == 1)
        # A message alone does not trigger another try.
        for after_s in (0, 29):
            bench.clock.now_s += after_s
            bench.client.publish(CHANGED_CHANNEL, b"")
        bench.clock.now_s += 2
        until(lambda: bench.count("failed") == 2)
        hidden.rename(path)
        bench.clock.now_s += 61
        until(lambda: bench.count("swapped") == 1)
    assert in_use(scanners) == sha256
    assert tries_s == [0, 31, 92]


def test_a_failed_backend_is_retried(bench: Bench, scanners: Scanners) -> None:
    def no_memory(detector: Detector) -> Backend:
        raise RuntimeError("out of memory")

    with bench.follower().following(scanners):
        bench.create = no_memory
        bench.announce(bench.put(1))
        until(lambda: bench.count("failed") == 1)
        bench.create = BiasNetwork
        bench.clock.now_s += 31
        until(lambda: bench.count("swapped") == 1)


def test_an_ensemble_keeps_its_weights(bench: Bench, scanners: Scanners) -> None:
    with scanners.current() as scanner:
        members = [*scanner.provenance.weights_sha256, "0" * 64]
        ensemble = replace(scanner, provenance=scanner.provenance.model_copy(update={"weights_sha256": members}))
    with Scanners(replace(ensemble, engine=Engine(QuickNetwork()))) as several:
        with capture_logs() as logs, bench.follower().following(several):
            bench.announce(bench.put(1))
            until(lambda: bench.count("refused") == 1)
        assert several.provenance.weights_sha256 == members
    assert any("ensemble of 2 weights" in str(line.get("error")) for line in logs)


def test_a_rollback_is_followed_and_a_lost_message_found(bench: Bench, scanners: Scanners) -> None:
    one, two = bench.put(1), bench.put(2)
    with bench.follower().following(scanners):
        bench.announce(one)
        until(lambda: bench.count("swapped") == 1)
        bench.announce(two)
        until(lambda: bench.count("swapped") == 2)
        bench.active.roll_back()
        until(lambda: bench.count("swapped") == 3)
        assert in_use(scanners) == one
        bench.client.set(ACTIVE_KEY, bench.announcement(two).to_json())

        def found_later() -> bool:
            # The follower may record the time of its last read after any step of the clock.
            bench.clock.now_s += 31
            return bench.count("swapped") == 4

        until(found_later)
    assert in_use(scanners) == two


def test_live_crops_are_compared_before_the_swap(bench: Bench, scanners: Scanners) -> None:
    bench.shadow_crops = 8
    bench.put(1)

    def load(announcement: Announcement) -> Loaded:
        with scanners.current() as scanner:
            # Scored while the new weights are loaded.
            scanner.engine.submit(np.zeros((9, scanner.spec.size, scanner.spec.size, 3), np.uint8)).result(30)
        return bench.loader(announcement)

    with bench.follower(load, shadow_s=30).following(scanners):
        bench.announce(bench.put(1))
        until(lambda: bench.count("swapped") == 1)
    base = shift_of(bench.small)
    apart = 1 / (1 + np.exp(-(base + 1))) - 1 / (1 + np.exp(-base))
    values = bench.metrics.registry.get_sample_value
    assert values("unmask_shadow_crops") == 8
    for stat in ("mean", "p95", "max"):
        assert values("unmask_shadow_difference", {"stat": stat}) == pytest.approx(apart, abs=1e-5)
    # Crops scored for the comparison do not count as clips'.
    assert scanners.stats().crops == 9


def test_no_comparison_without_common_crops(bench: Bench, scanners: Scanners) -> None:
    bench.shadow_crops = 8
    other = bench.folder / "other.safetensors"
    sha256 = small_weights(other, size_px=96)
    bench.registry.put(other, sha256, None)
    with capture_logs() as logs, bench.follower(shadow_s=0).following(scanners):
        bench.announce(bench.put(1))
        until(lambda: bench.count("swapped") == 1)
        bench.announce(sha256)
        until(lambda: bench.count("swapped") == 2)
    reasons = [line["event"] for line in logs if line["event"].startswith("no comparison")]
    assert reasons == [
        "no comparison: no crops were scored in this time",
        "no comparison: the new weights take other crops",
    ]
    with scanners.current() as scanner:
        assert (scanner.spec.size, scanner.engine.backend.input_size) == (96, 96)


def test_a_starting_worker_uses_announced_weights_or_says_why_not(bench: Bench) -> None:
    assert bench.follower().first() is None, "nothing is announced"
    sha256 = bench.announce(bench.put(1))
    loaded = bench.follower().first()
    assert loaded is not None
    assert loaded.detector.sha256 == sha256
    bench.announce(_not_finite(bench))
    with capture_logs() as logs:
        assert bench.follower().first() is None
    assert [line["log_level"] for line in logs] == ["error", "warning"]


def test_following_continues_when_redis_returns(bench: Bench, scanners: Scanners, tmp_path: Path) -> None:
    with required_service(), ExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path / "redis"))
        bench.client = stack.enter_context(connect(server.url))
        bench.active = ActiveWeights(bench.client)
        server.kill()
        follower = bench.follower()
        assert follower.first() is None
        with capture_logs() as logs, follower.following(scanners):
            until(lambda: any(line["event"] == "announcements cannot be received" for line in logs))
            server.start()
            sha256 = bench.announce(bench.put(1))
            until(lambda: bench.count("swapped") == 1)
    assert in_use(scanners) == sha256


def test_without_a_registry_announced_weights_are_refused(bench: Bench, tmp_path: Path) -> None:
    """Who can write to Redis must not choose what a worker fetches."""
    loader = Loader(tmp_path / "cache", bench.create)
    with pytest.raises(RefusedError, match="UNMASK_REGISTRY is not set"):
        loader(bench.announcement(bench.put(1)))
    assert not (tmp_path / "cache").exists()


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "torch_installed", lambda: False)


def with_graph(bench: Bench, sha256: str, packed: bytes) -> Announcement:
    graph = GraphFile(sha256=bench.registry.put_graph(packed), size_bytes=len(packed))
    return bench.announcement(sha256).model_copy(update={"graph": graph})


def openvino(detector: Detector) -> Backend:
    return create_backend(detector, backend="openvino", device="cpu")


def graph_of(bench: Bench, shift: float) -> bytes:
    loaded = load_detector(bench.folder / f"shifted-{shift}.safetensors")
    return pack(make_graph(loaded.model, loaded.sha256))


def test_announced_weights_with_a_graph_need_no_torch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = bench.put(3)
    announced = with_graph(bench, sha256, graph_of(bench, 3))
    without_torch(monkeypatch)
    bench.create = openvino
    with pytest.raises(UnavailableError, match="torch"):
        bench.loader(bench.announcement(sha256))
    loaded = bench.loader(announced)
    assert loaded.detector.sha256 == sha256
    loaded.engine.close()


def test_a_damaged_graph_in_the_registry_is_made_again_with_torch_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "own"))
    sha256 = bench.put(4)
    packed = graph_of(bench, 4)
    announced = with_graph(bench, sha256, packed)
    stored = bench.cache / "registry" / "graphs" / f"{hashlib.sha256(packed).hexdigest()}.graph"
    stored.write_bytes(packed[:1000])
    bench.create = openvino
    loaded = bench.loader(announced)
    loaded.engine.close()
    (bench.cache / "weights").joinpath(f"{sha256}.graph").unlink(missing_ok=True)
    shutil.rmtree(graphs_dir())
    without_torch(monkeypatch)
    with pytest.raises(UnavailableError, match="torch"):
        bench.loader(announced)


def begin_canary(bench: Bench, sha256: str, share: float = 0.5) -> str:
    now = bench.active.read()
    assert now is not None
    uri = bench.registry.uri_of(sha256)
    Canaries(bench.client).begin(
        sha256=sha256, name="n", uri=uri, share=share, tolerance=0.02, beside=now, forced=False
    )
    return sha256


def weights_of(scanners: Scanners, ids: list[str]) -> dict[str, str]:
    found = {}
    for id_ in ids:
        with scanners.of(id_) as scanner:
            (found[id_],) = scanner.provenance.weights_sha256
    return found


def test_a_canary_judges_its_share_until_it_ends(bench: Bench, scanners: Scanners) -> None:
    old, ids = bench.announce(in_use(scanners)), [f"video-{number}" for number in range(40)]
    with bench.follower().following(scanners):
        new = begin_canary(bench, bench.put(3))
        until(lambda: bench.count("canary") == 1)
        found = weights_of(scanners, ids)
        assert found == {id_: new if is_in_canary(id_, new, 0.5) else old for id_ in ids}
        assert set(found.values()) == {old, new}
        assert in_use(scanners) == old, "live streams keep the active weights"
        Canaries(bench.client).end(Canaries(bench.client).read(), "by hand")
        until(lambda: set(weights_of(scanners, ids).values()) == {old})
        begin_canary(bench, new)
        until(lambda: bench.count("canary") == 2)
        third = bench.announce(bench.put(4))
        until(lambda: set(weights_of(scanners, ids).values()) == {third})
        assert bench.count("refused") == bench.count("failed") == 0


def test_a_canary_beside_other_weights_is_not_used(bench: Bench, scanners: Scanners) -> None:
    bench.announce(in_use(scanners))
    begin_canary(bench, bench.put(3))
    with bench.client.pipeline() as pipe:  # as an earlier version announces: the canary's key stays
        pipe.set(ACTIVE_KEY, bench.announcement(bench.put(5)).to_json())
        pipe.publish(CHANGED_CHANNEL, b"")
        pipe.execute()
    with bench.follower().following(scanners):
        until(lambda: bench.count("swapped") == 1)
        bench.client.publish(CHANGED_CHANNEL, b"")
        bench.announce(bench.put(6))
        until(lambda: bench.count("swapped") == 2)
        assert bench.count("canary") == 0


def test_an_unusable_canary_is_refused_once(bench: Bench, scanners: Scanners) -> None:
    old = bench.announce(in_use(scanners))
    with bench.follower().following(scanners):
        begin_canary(bench, _not_finite(bench))
        until(lambda: bench.count("refused") == 1)
        bench.client.set(CANARY_KEY, b"nonsense")
        bench.client.publish(CHANGED_CHANNEL, b"")
        until(lambda: bench.count("refused") == 2)
        assert set(weights_of(scanners, ["a", "b", "c", "d"]).values()) == {old}
        new = begin_canary(bench, bench.put(3))
        until(lambda: bench.count("canary") == 1)
        assert new in weights_of(scanners, [f"{number}" for number in range(40)]).values()


def test_verdicts_of_a_bad_canary_end_it(bench: Bench, scanners: Scanners) -> None:
    old, ids = bench.announce(in_use(scanners)), [f"video-{number}" for number in range(40)]
    follower = bench.follower()
    follower.judged(record(weights_sha256=[old]))  # nothing runs yet
    with follower.following(scanners):
        new = begin_canary(bench, bench.put(3))
        until(lambda: bench.count("canary") == 1)
        for number in range(100):
            follower.judged(record(weights_sha256=[old], label="real"))
            follower.judged(record(weights_sha256=[new], label="fake" if number % 2 else "real"))
        until(lambda: set(weights_of(scanners, ids).values()) == {old})
    assert bench.metrics.registry.get_sample_value("unmask_canary_alarms_total") == 1
    assert bench.client.get(CANARY_KEY) is None
