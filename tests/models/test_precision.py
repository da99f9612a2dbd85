"""Precision of the device, with each capability forced, and the number of available cores."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import precision
from models.precision import (
    Capability,
    DeviceError,
    DeviceType,
    available_cores,
    available_devices,
    best_device,
    openvino_precision,
    precision_for,
    probe,
)


def capability(device_type: DeviceType, *, bf16: bool = False, fp16: bool = False) -> Capability:
    return Capability(device_type, bf16=bf16, fp16=fp16, reason="forced")


@pytest.mark.parametrize(
    ("device", "bf16", "fp16", "dtype", "scaled"),
    [
        ("cuda", True, True, torch.bfloat16, False),
        ("cuda", False, True, torch.float16, True),
        ("cuda", False, False, None, False),
        ("cpu", True, False, torch.bfloat16, False),
        ("cpu", False, False, None, False),
        ("cpu", False, True, None, False),
        ("mps", False, True, None, False),
    ],
)
def test_dtype_and_scaler_follow_the_capability(
    device: DeviceType, bf16: bool, fp16: bool, dtype: torch.dtype | None, scaled: bool
) -> None:
    chosen = precision_for(device, capability(device, bf16=bf16, fp16=fp16))
    assert chosen.autocast_dtype is dtype
    assert chosen.needs_scaler is scaled
    layout = torch.contiguous_format if device == "mps" else torch.channels_last
    assert chosen.memory_format is layout


@pytest.mark.parametrize(("bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_computes_in_the_chosen_dtype(bf16: bool, dtype: torch.dtype) -> None:
    chosen = precision_for("cpu", capability("cpu", bf16=bf16))
    matrix = torch.ones(4, 4)
    with chosen.autocast():
        assert (matrix @ matrix).dtype is dtype
    with chosen.autocast(enabled=False):
        assert (matrix @ matrix).dtype is torch.float32


def test_scaler_passes_through_if_not_needed() -> None:
    scaler = precision_for("cpu", capability("cpu", bf16=True)).scaler()
    loss = torch.tensor(2.0)
    assert not scaler.is_enabled()
    assert scaler.scale(loss) is loss


@pytest.mark.parametrize("bf16", [True, False])
def test_openvino_uses_bf16_only_if_native(bf16: bool) -> None:
    assert openvino_precision(capability("cpu", bf16=bf16)) == ("bf16" if bf16 else "f32")


@pytest.mark.parametrize(
    ("onednn", "avx512_bf16", "amx", "bf16"),
    [
        (True, True, False, True),
        (True, False, True, True),
        (True, True, True, True),
        (True, False, False, False),  # AVX-512 without bf16: oneDNN reports support and emulates
        (False, True, True, False),  # a torch built without oneDNN's bf16
        (False, False, False, False),  # AVX2
    ],
)
def test_cpu_bf16_needs_both_the_chip_and_the_library(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, avx512_bf16: bool, amx: bool, bf16: bool
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    found = probe("cpu")
    assert (found.device_type, found.bf16, found.fp16) == ("cpu", bf16, False)
    assert found.reason
    assert openvino_precision() == ("bf16" if bf16 else "f32")


@pytest.mark.parametrize(
    ("version", "bf16", "fp16"), [((9, 0), True, True), ((7, 5), False, True), ((6, 1), False, False)]
)
def test_cuda_native_bf16_is_queried_for_the_requested_device(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], bf16: bool, fp16: bool
) -> None:
    current: list[torch.device] = []

    class UseDevice:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(self.device)

        def __exit__(self, *_: object) -> None:
            current.pop()

    def is_bf16_supported(*, including_emulation: bool) -> bool:
        assert current == [torch.device("cuda:1")]
        return including_emulation or bf16

    monkeypatch.setattr(torch.cuda, "device", UseDevice)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Test GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: version)
    found = probe("cuda:1")
    assert (found.device_type, found.bf16, found.fp16) == ("cuda", bf16, fp16)
    assert "Test GPU" in found.reason


def test_probe_refuses_other_kinds_of_device() -> None:
    with pytest.raises(DeviceError, match="cuda, mps, cpu"):
        probe("meta")


def pretend_devices(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "requested", "device"),
    [
        (2, False, "auto", "cuda:0"),
        (2, True, "auto", "cuda:0"),
        (0, True, "auto", "mps"),
        (0, False, "auto", "cpu"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (1, True, "mps", "mps"),
        (1, True, "cpu", "cpu"),
    ],
)
def test_best_device(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, requested: str, device: str) -> None:
    pretend_devices(monkeypatch, cuda, mps)
    assert best_device(requested) == torch.device(device)


@pytest.mark.parametrize("requested", ["cuda:3", "mps", "gpu", "", "cuda:"])
def test_a_missing_device_lists_the_available_ones(monkeypatch: pytest.MonkeyPatch, requested: str) -> None:
    pretend_devices(monkeypatch, cuda=2, mps=False)
    with pytest.raises(DeviceError, match="available: auto, cuda:0, cuda:1, cpu"):
        best_device(requested)


def test_this_machine() -> None:
    device = best_device()
    assert str(device) in available_devices()
    assert probe(device).device_type == device.type
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_computes_in_the_chosen_dtype() -> None:
    chosen = precision_for(best_device("cuda"))
    matrix = torch.ones(64, 64, device=chosen.device)
    with chosen.autocast():
        assert (matrix @ matrix).dtype is (chosen.autocast_dtype or torch.float32)
    scaler = chosen.scaler()
    assert scaler.is_enabled() is chosen.needs_scaler


# Cores: a fake /proc and fake cgroup file systems.


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def mount_v2(root: Path, own_group: str, mounted: str = "/") -> Path:
    write(root / "proc/self/cgroup", f"0::{own_group}\n")
    write(
        root / "proc/self/mountinfo",
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"30 22 0:26 {mounted} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
    )
    return root / "sys/fs/cgroup"


def mount_v1(root: Path, own_group: str, mounted: str = "/") -> Path:
    write(root / "proc/self/cgroup", f"4:cpu,cpuacct:{own_group}\n3:cpuset:/\n1:name=systemd:/x\n")
    write(
        root / "proc/self/mountinfo",
        f"31 30 0:28 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "32 30 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
    )
    return root / "sys/fs/cgroup/cpu,cpuacct"


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


periods = st.integers(1_000, 1_000_000)


@given(
    affinity=st.integers(1, 256),
    quota=st.none() | st.integers(1_000, 100_000_000),
    period=periods,
    v2=st.booleans(),
)
def test_cores_never_exceed_affinity_nor_quota(
    tmp_path_factory: pytest.TempPathFactory, affinity: int, quota: int | None, period: int, v2: bool
) -> None:
    root = tmp_path_factory.mktemp("root")
    if v2:
        write(mount_v2(root, "/job") / "job/cpu.max", f"{'max' if quota is None else quota} {period}\n")
    else:
        group = mount_v1(root, "/job") / "job"
        write(group / "cpu.cfs_quota_us", f"{-1 if quota is None else quota}\n")
        write(group / "cpu.cfs_period_us", f"{period}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision.os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
        cores = available_cores(root)
    limit = math.inf if quota is None else math.ceil(quota / period)
    assert cores == max(1, min(affinity, limit))


@pytest.mark.usefixtures("many_cores")
def test_the_smallest_quota_of_all_parents_applies(tmp_path: Path) -> None:
    top = mount_v2(tmp_path, "/slice/pod/container")
    write(top / "slice/cpu.max", "800000 100000")
    write(top / "slice/pod/cpu.max", "250000 100000")
    write(top / "slice/pod/container/cpu.max", "max 100000")
    assert available_cores(tmp_path) == 3


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("mounted", ["/docker/abc", "/elsewhere"])
def test_a_container_with_the_hosts_group_names(tmp_path: Path, mounted: str) -> None:
    top = mount_v1(tmp_path, "/docker/abc", mounted)
    write(top / "cpu.cfs_quota_us", "150000")
    write(top / "cpu.cfs_period_us", "100000")
    assert available_cores(tmp_path) == 2


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("text", ["", "max", "garbage here", "100000 0", "-5 100000"])
def test_an_unreadable_quota_is_ignored(tmp_path: Path, text: str) -> None:
    write(mount_v2(tmp_path, "/") / "cpu.max", text)
    assert available_cores(tmp_path) == 64


@pytest.mark.usefixtures("many_cores")
def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 64


def test_a_system_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(precision.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(precision.os, "cpu_count", lambda: 10)
    assert available_cores(tmp_path) == 10
