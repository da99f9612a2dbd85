"""What a machine computes on, without torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from models import device_choice
from models.device_choice import choose_device
from models.devices import DeviceError, cpu_flags, cpu_name, has_gpu_driver, openvino_precision

# An excerpt of /proc/cpuinfo for two CPUs.
CPUINFO = """\
processor\t: 0
model name\t: Fast CPU 9000
flags\t\t: fpu sse2 avx2 avx512f {}

processor\t: 1
model name\t: Fast CPU 9000
flags\t\t: fpu sse2 avx2 avx512f {}
"""


@pytest.mark.parametrize(
    ("feature", "precision"),
    [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx512_bf16x", "f32"), ("avx512_vnni", "f32")],
)
def test_openvino_uses_bf16_only_if_native(tmp_path: Path, feature: str, precision: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(CPUINFO.format(feature, feature))
    flags = cpu_flags(cpuinfo)
    assert {"avx2", feature} <= flags
    assert openvino_precision(flags) == precision
    assert cpu_name(cpuinfo) == "Fast CPU 9000"


def test_a_system_that_lists_no_features_computes_in_fp32(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "nowhere") == frozenset()
    assert openvino_precision(cpu_flags(tmp_path / "nowhere")) == "f32"
    assert cpu_name(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform == "darwin", reason="Apple's GPUs have no device file")
def test_a_gpu_driver_is_seen_by_its_device(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    assert not has_gpu_driver(tmp_path)
    (tmp_path / "dev/nvidiactl").touch()
    assert has_gpu_driver(tmp_path)


def test_without_a_driver_the_cpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_choice, "has_gpu_driver", lambda: False)
    assert choose_device() == choose_device("cpu") == "cpu"


def test_without_torch_there_is_only_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_choice, "torch_installed", lambda: False)
    monkeypatch.setattr(device_choice, "has_gpu_driver", lambda: True)
    assert choose_device() == "cpu"
    with pytest.raises(DeviceError, match="torch is not installed"):
        choose_device("cuda")


def test_an_absent_device_is_an_error() -> None:
    with pytest.raises(DeviceError, match="available: auto"):
        choose_device("cuda:7")
