"""Precision of the device, with each capability forced."""

from __future__ import annotations

import pytest
import torch

from models.precision import (
    Capability,
    DeviceError,
    DeviceType,
    available_devices,
    best_device,
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


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_computes_in_the_chosen_dtype() -> None:
    chosen = precision_for(best_device("cuda"))
    matrix = torch.ones(64, 64, device=chosen.device)
    with chosen.autocast():
        assert (matrix @ matrix).dtype is (chosen.autocast_dtype or torch.float32)
    scaler = chosen.scaler()
    assert scaler.is_enabled() is chosen.needs_scaler
