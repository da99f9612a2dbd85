"""Creating face detectors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from models.zoo import ZooError
from pipeline.faces import create
from pipeline.faces.create import create_detector
from pipeline.faces.detector import DetectorError, FaceDetector


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "haar"}, "mtcnn, yunet"),
        ({"backend": "tensorrt"}, "auto, openvino, torch"),
        ({"min_face_px": 5}, "at least 12"),
        ({"threads": 0}, "at least 1"),
        ({"streams": 0}, "at least 1"),
        ({"backend": "openvino", "device": "cuda"}, "backend 'torch'"),
        ({"name": "yunet", "backend": "torch"}, "mtcnn runs on both"),
        ({"weights": "pnet.pt"}, "facenet-pytorch"),
    ],
)
def test_bad_settings_say_what_is_expected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_detector(**options)


def test_missing_or_wrong_weights_are_errors(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DetectorError, match=r"yunet_n_dynamic\.onnx"):
        create_detector("yunet", weights=tmp_path / "none.onnx")
    other = tmp_path / "other.onnx"
    other.write_bytes(b"not a network")
    with pytest.raises(DetectorError, match="not YuNet's weights"):
        create_detector("yunet", weights=other)
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ZooError, match="pull yunet"):
        create_detector("yunet")


def test_without_openvino_torch_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = create.importlib.util.find_spec
    monkeypatch.setattr(
        create.importlib.util, "find_spec", lambda name: None if name == "openvino" else installed(name)
    )
    assert "backend=torch" in create_detector().name
    with pytest.raises(DetectorError, match="pip install openvino"):
        create_detector(backend="openvino")


def test_without_facenet_pytorch_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = create.importlib.util.find_spec
    monkeypatch.setattr(
        create.importlib.util, "find_spec", lambda name: None if name == "facenet_pytorch" else installed(name)
    )
    with pytest.raises(DetectorError, match=r"facenet-pytorch.*2\.5\.3"):
        create_detector(backend="torch")
    assert "backend=openvino" in create_detector().name


def test_the_name_has_the_settings_that_change_results(mtcnn: FaceDetector) -> None:
    assert mtcnn.name.startswith("mtcnn min_face_px=40 ")
    assert "weights=743721dfef3c9612" in mtcnn.name  # sha256 over pnet.pt, rnet.pt and onet.pt of facenet-pytorch 2.5.3
    assert create_detector(min_face_px=64, backend="torch").name != mtcnn.name


def test_openvino_comes_without_its_telemetry() -> None:
    check = (
        "import sys\n"
        "from pipeline.faces.create import create_detector\n"
        "create_detector('mtcnn')\n"
        "assert 'openvino' in sys.modules\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)


def test_a_signal_after_detectors_were_dropped_is_harmless() -> None:
    """With a core for each network, the thread's signal stack is gone by then, and the signal kills the process."""
    check = (
        "import faulthandler, gc, os, signal\n"
        "from pipeline.faces.create import create_detector\n"
        "faulthandler.enable()\n"  # it makes the first signal stack
        "signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True))\n"
        "first, second = create_detector('mtcnn'), create_detector('mtcnn')\n"
        "del first\n"
        "gc.collect()\n"
        "del second\n"
        "gc.collect()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
