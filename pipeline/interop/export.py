"""Write a detector as safetensors, ONNX or OpenVINO, and check that the file scores like it.

ONNX and OpenVINO files hold the same graph that the engine runs: uint8 [batch, size, size, 3] RGB in, normalisation
inside, log-odds of fake out. The file also has the metadata that a program needs: see `describe`.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.architectures import LoadedDetector
from models.atomic import atomic_write, durable_rename
from models.calibration import Calibration
from models.checkpoint import halved, library_versions, save_checkpoint
from models.errors import UnmaskError
from pipeline import quiet_openvino
from pipeline.graphs.make import ScoringGraph, convert
from pipeline.interop import Format
from pipeline.interop.check import Check, checked
from pipeline.types import Image

if TYPE_CHECKING:
    import onnx

# In log-odds, absolute up to 1 and relative beyond. fp32 graphs of trained networks differ by some 1e-5 from torch's;
# weights rounded to fp16 move P(fake) by 0.01 at most where the bound is reached.
TOLERANCE_FP32 = 1e-3
TOLERANCE_FP16 = 0.04

# Old enough for current runtimes, new enough for all operators here.
_OPSET = 18
# Only bounds the exporter's assumptions about a free batch.
_MAX_BATCH = 4096
_INPUT, _OUTPUT = "crops", "logit"


class ExportError(UnmaskError, RuntimeError):
    """A detector cannot be written this way; the message says what to do."""


class CheckFailedError(ExportError):
    """The written file scored differently from the detector, and was not kept."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    Attributes:
        files: its paths, the one to open first.
        size_bytes: of all files.
        check: comparison of the written files with the detector in torch.
    """

    files: tuple[Path, ...]
    size_bytes: int
    check: Check


def export(
    detector: LoadedDetector, target: Format, out: Path, crops: Image, *, fp16: bool = False, batch: int | None = None
) -> Exported:
    """Write a detector and check the file; `out` is only replaced if it passes.

    Args:
        detector: as `load_detector` returns it.
        target: the format.
        out: the file; for OpenVINO the .xml, with the .bin next to it.
        crops: uint8 [N, size, size, 3] to check on, N >= 2.
        fp16: store weights in half the bytes. All formats compute in fp32 unless their runtime is configured otherwise.
        batch: the only number of crops that the graph takes; None: any number.

    Raises:
        ExportError: an option does not fit the format, or a package is missing.
        CheckFailedError: log-odds further from torch's than the tolerance.
        OSError: `out` cannot be written.
    """
    _refuse_unfit(detector, target, out, batch)
    tolerance = TOLERANCE_FP16 if fp16 else TOLERANCE_FP32
    out.parent.mkdir(parents=True, exist_ok=True)
    with _in_fp32(detector), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        draft = Path(folder) / out.name
        if target is Format.SAFETENSORS:
            _write_safetensors(detector, draft, fp16=fp16)
        elif target is Format.ONNX:
            _write_onnx(detector, draft, fp16=fp16, batch=batch)
        else:
            _write_openvino(detector, draft, fp16=fp16, batch=batch)
        check = checked(detector.model, target, draft, crops, batch=batch, tolerance=tolerance)
        if not check.passed:
            raise CheckFailedError(
                f"{out} was not written: its log-odds differ by up to {check.difference:.3g} from torch's "
                f"({check.reader}, {check.crops} crops), where {check.tolerance:.3g} is the tolerance"
                + ("; try it without fp16" if fp16 else "")
            )
        # The weights of a pair come first, so that an .xml always has its .bin.
        drafts = sorted(Path(folder).iterdir())
        files = [out.with_name(path.name) for path in drafts]
        for path, file in zip(drafts, files, strict=True):
            durable_rename(path, file)
    files.sort(key=lambda file: file != out)
    return Exported(tuple(files), sum(file.stat().st_size for file in files), check)


def describe(detector: LoadedDetector) -> dict[str, str]:
    """The metadata of an exported graph: ONNX has it in `metadata_props` as `unmask.NAME`, OpenVINO in rt_info.

    `input_spec`, `calibration`, `thresholds` and `versions` are JSON, as in a checkpoint's header.
    """
    info, spec = detector.info, detector.model.input_spec
    return {
        "name": info.name,
        "architecture": info.architecture,
        "weights_sha256": detector.sha256,
        "input": f"{_INPUT}: uint8 [batch, {spec.size}, {spec.size}, 3], RGB, normalised inside",
        "output": f"{_OUTPUT}: float32 [batch], log-odds of fake; {_formula(info.calibration)}",
        "input_spec": json.dumps(spec.to_dict()),
        "input_spec_hash": spec.hash,
        "calibration": json.dumps(info.calibration.to_dict()),
        "thresholds": json.dumps(None if info.thresholds is None else asdict(info.thresholds)),
        "versions": json.dumps(library_versions()),
    }


def _formula(calibration: Calibration) -> str:
    """The formula from the graph's output to a probability."""
    line = "interpolation of the logit in the calibration's curve" if calibration.curve else "scale x logit + bias"
    if calibration.quality:
        return f"P(fake) = sigmoid(trust x ({line})), trust by interpolation of the face's quality, calibration"
    return f"P(fake) = sigmoid({line}), calibration"


def _refuse_unfit(detector: LoadedDetector, target: Format, out: Path, batch: int | None) -> None:
    classes = detector.model.config.num_classes
    if classes != 2:
        raise ExportError(f"log-odds of fake need two classes, real and fake; this detector has {classes}")
    if target is Format.SAFETENSORS and batch is not None:
        raise ExportError("safetensors holds weights, not a graph: leave the batch dynamic")
    if batch is not None and batch < 1:
        raise ExportError(f"the batch must hold at least 1 crop, got {batch}")
    if target is Format.OPENVINO and out.suffix != ".xml":
        raise ExportError(f"OpenVINO's graph is an .xml with its weights in a .bin next to it: got {out.name}")
    if target is Format.ONNX and find_spec("onnxscript") is None:
        raise ExportError("torch needs onnxscript to export to ONNX: `pip install onnxscript`")
    if target is Format.OPENVINO and find_spec("openvino") is None:
        raise ExportError("OpenVINO is not installed: `pip install openvino`")


@contextmanager
def _in_fp32(detector: LoadedDetector) -> Iterator[None]:
    """After training a detector has autocast on, which must be off in a graph and its check."""
    model = detector.model.eval()
    mixed, model.mixed_precision = model.mixed_precision, False
    try:
        yield
    finally:
        model.mixed_precision = mixed


def _write_safetensors(detector: LoadedDetector, path: Path, *, fp16: bool) -> None:
    weights: Mapping[str, Tensor] = detector.model.state_dict()
    if fp16:
        weights = {name: halved(tensor) for name, tensor in weights.items()}
    save_checkpoint(path, weights=weights, info=detector.info)


def _write_onnx(detector: LoadedDetector, path: Path, *, fp16: bool, batch: int | None) -> None:
    import onnx

    size = detector.model.input_spec.size
    example = torch.zeros(2 if batch is None else batch, size, size, 3, dtype=torch.uint8)
    free = ({0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)},)
    with torch.inference_mode(), warnings.catch_warnings():
        # Warnings of torch's internals, which call functions by deprecated names.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ScoringGraph(detector.model).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_shapes=free if batch is None else None,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned nothing; see its log")
    proto: onnx.ModelProto = program.model_proto
    if fp16:
        _store_in_fp16(proto)
    onnx.helper.set_model_props(proto, {f"unmask.{key}": value for key, value in describe(detector).items()})
    onnx.checker.check_model(proto)
    with atomic_write(path) as file:
        file.write(proto.SerializeToString(deterministic=True))


def _store_in_fp16(proto: onnx.ModelProto) -> None:
    """Store matrices in fp16 and cast them back to fp32 in the graph, which a runtime does once, at loading."""
    import onnx

    casts = []
    for weight in proto.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        values = onnx.numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.fp16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _write_openvino(detector: LoadedDetector, path: Path, *, fp16: bool, batch: int | None) -> None:
    graph: Any = convert(detector.model)
    if batch is not None:
        size = detector.model.input_spec.size
        graph.reshape([batch, size, size, 3])
    graph.input(0).get_tensor().set_names({_INPUT})
    graph.output(0).get_tensor().set_names({_OUTPUT})
    for key, value in describe(detector).items():
        graph.set_rt_info(value, ["unmask", key])
    quiet_openvino.load().save_model(graph, path, compress_to_fp16=fp16)
