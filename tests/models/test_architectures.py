"""Properties of every architecture in the registry."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from models.architectures import get_model, list_architectures, register
from models.config import ConfigError
from models.layers.frequency import HighPass, Spectrum
from models.spec import LandmarkTemplate
from tests.models.conftest import SMALL, BuildSmall, images_for

every_architecture = pytest.mark.parametrize("architecture", sorted(SMALL))


def test_registry_lists_all_architectures() -> None:
    assert list_architectures() == sorted(SMALL)


def test_an_unknown_architecture_is_refused_with_a_list() -> None:
    with pytest.raises(ConfigError, match=r"'resnet'.*clip_vit, cnn_transformer, .*xception"):
        get_model("resnet")


@every_architecture
def test_an_unknown_option_is_refused_with_a_list(architecture: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown option depht; available: backbone='.*num_classes=2.*"):
        get_model(architecture, pretrained=False, depht=3)


def test_an_unknown_backbone_is_refused_with_similar_names() -> None:
    with pytest.raises(ConfigError, match=r"no weights 'bogus'; available: resnet50\.a1_in1k, "):
        get_model("two_stream", pretrained=False, backbone="resnet50.bogus")
    with pytest.raises(ConfigError, match=r"'resnt50'.*resnet50"):
        get_model("two_stream", pretrained=False, backbone="resnt50")


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("xception", {"pooling": "sum"}, "pooling must be one of 'avg', 'max', 'gem', 'attention', got 'sum'"),
        ("xception", {"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1"),
        ("xception", {"drop_path_rate": 0.1}, "legacy_xception has no stochastic depth"),
        ("xception", {"num_classes": True}, "num_classes must be of type int"),
        ("xception", {"neck_width": "wide"}, "neck_width must be of type int"),
        ("clip_vit", {"tuned": "head"}, "tuned must be one of 'norms', 'all', got 'head'"),
        ("clip_vit", {"block_width": 0}, "block_width must be at least 1"),
        ("swin_transformer", {"input_size": 100}, "a multiple of 32 px"),
        ("two_stream", {"frequency_scales": (1, 3, 4)}, "divide the largest"),
        ("two_stream", {"frequency_scales": ()}, "a tuple of ints"),
        ("two_stream", {"frequency_scales": (1, 32)}, "at least 16 px for each of 32 tiles"),
        ("cnn_transformer", {"width": 100, "heads": 8}, "a multiple of heads=8"),
        ("cross_attention", {"depth": 0}, "depth must be at least 1"),
    ],
)
def test_an_invalid_option_is_refused(architecture: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_model(architecture, pretrained=False, **options)


def test_a_name_is_registered_once() -> None:
    existing = type(get_model("xception", pretrained=False, **SMALL["xception"]))
    with pytest.raises(ValueError, match="already registered"):
        register("xception", existing.Config)(existing)


@every_architecture
def test_default_options_start_near_chance(architecture: str) -> None:
    torch.manual_seed(0)
    model = get_model(architecture, pretrained=False).eval()
    spec = model.input_spec
    assert spec.size == (299 if architecture == "xception" else 224)
    assert spec.geometry == LandmarkTemplate()
    assert (spec.mean, spec.std) == (model.backbone.mean, model.backbone.std)
    batch = {"images": images_for(model), "labels": torch.tensor([0, 1])}
    # A head with large initial weights would start far above the loss of a random guess.
    assert model.validation_step(batch)["loss"].item() == pytest.approx(math.log(2), abs=0.7)


@every_architecture
@pytest.mark.parametrize("size", [64, 160])
def test_shapes_at_two_sizes(small: BuildSmall, architecture: str, size: int) -> None:
    model = small(architecture, input_size=size, num_classes=3)
    features = model.forward_features(images_for(model))
    assert features.shape == (2, model.num_features)
    assert model.forward_head(features).shape == (2, 3)
    assert model(images_for(model)).shape == (2, 3)


@every_architecture
def test_input_size_can_change_after_construction(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    model.set_input_size(128)
    assert model.input_spec.size == model.config.input_size == 128
    rebuilt = small(architecture, input_size=128)
    rebuilt.load_weights(model.state_dict(), "the resized model")
    assert torch.equal(rebuilt(images_for(model)), model(images_for(model)))


@every_architecture
def test_gradients_reach_every_parameter(small: BuildSmall, architecture: str) -> None:
    model = small(architecture).train()
    model.set_drop_rates(dropout=0.0, drop_path=0.0)
    batch = {"images": images_for(model, 4), "labels": torch.tensor([0, 1, 1, 0])}
    model.training_step(batch)["loss"].backward()  # type: ignore[no-untyped-call]
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    # Only `clip_vit` freezes pretrained weights.
    assert bool(frozen) == (architecture == "clip_vit")
    assert all(n.startswith("backbone.") and "norm" not in n for n in frozen)


@every_architecture
def test_removing_any_part_changes_the_logits(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    images = images_for(model)
    with torch.no_grad():
        whole = model(images)
        for part in model.parts():
            with model.without(part):
                change = (model(images) - whole).abs().max().item()
            assert change > 1e-6, part
        assert torch.equal(model(images), whole)


@pytest.mark.parametrize(
    ("architecture", "parts"),
    [
        ("clip_vit", {"block_0", "block_3"}),
        ("swin_transformer", {"stage_0", "stage_3"}),
        ("two_stream", {"rgb_stream", "frequency_stream", "frequency_scale_0", "frequency_scale_2"}),
        ("xception", {"neck", "last_stage", "stage_0", "stage_2"}),
        ("cnn_transformer", {"fine_level", "coarse_position", "coarse_to_fine_attention_1"}),
        ("cross_attention", {"global_context", "fine_scale", "middle_position", "coarse_attention_0"}),
    ],
)
def test_named_parts(small: BuildSmall, architecture: str, parts: set[str]) -> None:
    model = small(architecture)
    assert parts <= model.parts().keys()
    with pytest.raises(KeyError, match=f"no part nose; available: {next(iter(model.parts()))}"), model.without("nose"):
        pass


@every_architecture
def test_bf16_autocast_is_close_to_fp32(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    images = images_for(model)
    with torch.inference_mode():
        exact = model(images).softmax(1)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.softmax(1), exact, atol=0.02, rtol=0)


@pytest.mark.parametrize("size", [224, 299])
@pytest.mark.parametrize("tiles", [1, 4])
def test_the_spectrum_is_fp32_under_autocast(size: int, tiles: int) -> None:
    high_pass, spectrum = HighPass(4 // tiles, std=(0.2, 0.2, 0.2)), Spectrum()
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))

    def transform() -> torch.Tensor:
        side = high_pass(images).shape[-1] // tiles
        spectra: torch.Tensor = spectrum(high_pass(images)[..., :side, :side])
        return spectra

    exact = transform()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transform(), exact)


@every_architecture
def test_an_image_scores_the_same_in_any_batch(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    images = images_for(model, 5)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, atol=1e-5, rtol=1e-4)


@every_architecture
def test_dropout_is_off_in_eval_and_on_in_training(small: BuildSmall, architecture: str) -> None:
    model = small(architecture)
    images = images_for(model)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        assert not torch.equal(model(images), model(images))
        model.set_drop_rates(dropout=0.0, drop_path=0.0)
        assert torch.equal(model(images), model(images))


@every_architecture
def test_a_few_steps_lower_the_loss(small: BuildSmall, architecture: str) -> None:
    model = small(architecture).train()
    model.set_drop_rates(dropout=0.0, drop_path=0.0)
    batch = {"images": images_for(model, 4), "labels": torch.tensor([0, 1, 1, 0])}
    optimizer = model.configure_optimizer(lr=1e-3)
    losses = []
    for _ in range(6):
        loss = model.training_step(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.cuda
@every_architecture
def test_cuda_autocast(small: BuildSmall, architecture: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = get_model(architecture, pretrained=False).eval()
    images = images_for(model)
    with torch.inference_mode():
        exact = model(images).softmax(1)
    model = model.cuda().to(memory_format=torch.channels_last)
    model.mixed_precision = True
    with torch.inference_mode():
        rough = model(images.to("cuda", memory_format=torch.channels_last)).softmax(1).cpu()
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0)
    batch = {"images": images.cuda(), "labels": torch.tensor([0, 1], device="cuda")}
    model.train().training_step(batch)["loss"].backward()  # type: ignore[no-untyped-call]
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
