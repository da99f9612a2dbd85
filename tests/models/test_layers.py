"""Layers against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import ConfigError
from models.layers.attention import GlobalContext, MultiHeadAttention, PositionEmbedding2d, to_tokens
from models.layers.backbone import Backbone
from models.layers.frequency import FrequencyStream, HighPass, Spectrum
from models.layers.fusion import GatedFusion, ScaleFusion
from models.layers.pooling import AttentionPool, GeMPool, pooling
from models.layers.regularization import Dropout, StochasticDepth, depth_shares, set_drop_path_rate
from models.spec import IMAGENET_MEAN, IMAGENET_STD


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(p=st.floats(0.5, 8.0), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_gem_is_between_mean_and_maximum_for_p_above_one(p: float, seed: int) -> None:
    features = random(2, 3, 4, 5, seed=seed).abs() + 0.01
    pooled = GeMPool(p)(features)
    mean, maximum = features.mean((2, 3)), features.amax((2, 3))
    assert (pooled <= maximum * 1.001).all()
    assert ((pooled >= mean * 0.999) if p >= 1 else (pooled <= mean * 1.001)).all()


def test_gem_at_one_is_the_mean() -> None:
    features = random(2, 3, 4, 5).abs() + 0.01
    torch.testing.assert_close(GeMPool(1.0)(features), features.mean((2, 3)))


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_attention_pooling_weights_positions_and_ignores_their_order(seed: int) -> None:
    torch.manual_seed(seed)
    pool, features = AttentionPool(3), random(2, 3, 4, 5, seed=seed)
    torch.nn.init.normal_(pool.score.weight)
    pooled = pool(features)
    assert (pooled <= features.amax((2, 3)) + 1e-5).all()
    assert (pooled >= features.amin((2, 3)) - 1e-5).all()
    torch.testing.assert_close(pool(features.flip(2, 3)), pooled)


@pytest.mark.parametrize("kind", ["avg", "max", "gem", "attention"])
def test_pooling_of_a_constant_map_is_the_constant(kind: str) -> None:
    pooled = pooling(kind, 3)(torch.full((2, 3, 4, 5), 0.7))  # type: ignore[arg-type]
    torch.testing.assert_close(pooled, torch.full((2, 3), 0.7))


def test_unknown_pooling_is_refused_with_a_list() -> None:
    with pytest.raises(ValueError, match="'sum'; available: avg, max, gem, attention"):
        pooling("sum", 3)  # type: ignore[arg-type]


def test_a_flat_image_has_no_high_frequencies() -> None:
    residual = HighPass(2, std=IMAGENET_STD)(torch.full((1, 3, 32, 32), 1.3))
    torch.testing.assert_close(residual[..., 1:-1, 1:-1], torch.zeros(1, 1, 14, 14), atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_high_pass_undoes_the_normalisation(factor: int) -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    residuals = []
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3)):
        shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        residuals.append(HighPass(factor, std=std)((pixels - shift) / scale)[..., 1:-1, 1:-1])
    assert residuals[0].shape[-1] == 32 // factor - 2
    torch.testing.assert_close(residuals[0], residuals[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("side", [56, 74, 75])
@pytest.mark.parametrize(("cycles_down", "cycles_right"), [(0, 9), (12, 0), (7, 5), (-7, 5)])
def test_a_wave_is_a_peak_at_its_frequency_with_its_phase(side: int, cycles_down: int, cycles_right: int) -> None:
    rows, columns = torch.arange(side).view(-1, 1) / side, torch.arange(side) / side
    phase = 0.6
    wave = 0.1 * torch.cos(2 * math.pi * (cycles_down * rows + cycles_right * columns) + phase)
    log_amplitude, cosine, sine, radius = Spectrum()(wave.view(1, 1, side, side))[0]
    assert log_amplitude.shape == (side, side // 2 + 1)
    row, column = divmod(int(log_amplitude.argmax()), side // 2 + 1)
    if cycles_right == 0:  # the first column holds both halves of the plane
        row = side // 2 + abs(row - side // 2)
    assert (row, column) == (side // 2 + cycles_down, cycles_right)
    assert math.atan2(sine[row, column], cosine[row, column]) == pytest.approx(phase, abs=1e-3)
    assert radius[row, column].item() == pytest.approx(math.hypot(cycles_down, cycles_right) / (side / 2))


def test_the_phase_of_rounding_noise_counts_little() -> None:
    noise = random(1, 1, 64, 64) * 1e-5
    log_amplitude, cosine, sine, _ = Spectrum()(noise)[0]
    assert log_amplitude.abs().max() < 0.01
    assert (cosine.square() + sine.square()).max() < 0.01


def test_tiles_of_all_scales_have_the_same_side() -> None:
    stream = FrequencyStream((1, 2, 4), 8, std=IMAGENET_STD).eval()
    shapes = []
    for module in stream.modules():
        if isinstance(module, Spectrum):
            module.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    assert stream(random(2, 3, 299, 299)).shape == (2, 24)
    assert shapes == [(2 * 16, 1, 74, 74), (2 * 4, 1, 74, 74), (2, 1, 74, 74)]


def test_scale_fusion_adds_on_the_middle_grid_with_weights_that_sum_to_one() -> None:
    fusion = ScaleFusion([3, 4, 5], 2).eval()
    for scale in fusion.scales:
        torch.nn.init.zeros_(scale.get_parameter("0.weight"))
        torch.nn.init.ones_(scale.get_parameter("1.bias"))
    fused = fusion([random(1, 3, 37, 37), random(1, 4, 19, 19), random(1, 5, 10, 10)])
    torch.testing.assert_close(fused, torch.ones(1, 2, 19, 19), atol=1e-3, rtol=0)


def test_gates_weight_sources_and_sum_to_one() -> None:
    fusion = GatedFusion(3, 4)
    torch.nn.init.normal_(fusion.gates.weight)
    vectors = [random(2, 4, seed=i) for i in range(3)]
    fused, stacked = fusion(vectors), torch.stack(vectors)
    assert (fused <= stacked.amax(0)).all()
    assert (fused >= stacked.amin(0)).all()
    torch.testing.assert_close(fusion([vectors[0]] * 3), vectors[0])


def test_position_embeddings_are_exact_on_their_grid_and_smooth_on_others() -> None:
    position = PositionEmbedding2d(224, 32, 8)
    torch.testing.assert_close(position(7, 7), to_tokens(position.embedding))
    with torch.no_grad():
        position.embedding.copy_(torch.linspace(-1, 1, 7).view(1, 1, 7, 1).expand(1, 8, 7, 7))
    finer = position(14, 14).view(14, 14, 8)
    assert (finer[1:-1].diff(dim=0) > 0).all()
    torch.testing.assert_close(finer.mean((0, 1)), torch.zeros(8), atol=1e-5, rtol=0)
    position.set_input_size(448)
    torch.testing.assert_close(position(14, 14).view(14, 14, 8), finer)


def test_attention_does_not_depend_on_the_order_of_its_context() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2)
    tokens, context = random(2, 5, 8), random(2, 6, 8, seed=1)
    assert attention(tokens, context).shape == (2, 5, 8)
    torch.testing.assert_close(attention(tokens, context.flip(1)), attention(tokens, context))


def test_global_context_is_one_vector() -> None:
    assert GlobalContext(12, 16)(random(2, 12, 5, 4)).shape == (2, 16)


@given(depth=st.integers(2, 24), rate=st.floats(0.0, 0.9))
def test_stochastic_depth_rises_linearly_to_its_rate(depth: int, rate: float) -> None:
    branches = torch.nn.Sequential(*(StochasticDepth(share, 0.0) for share in depth_shares(depth)))
    set_drop_path_rate(branches, rate)
    rates = [branch.rate for branch in branches]
    assert rates[0] == 0.0
    assert rates[-1] == rate
    assert rates == pytest.approx([rate * i / (depth - 1) for i in range(depth)])


@given(rate=st.floats(0.0, 0.9), per_image=st.booleans(), seed=st.integers(0, 99))
def test_dropout_keeps_the_mean_and_drops_its_share(rate: float, per_image: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer = StochasticDepth(1.0, rate) if per_image else Dropout(rate)
    found = layer(torch.ones(4000, 5, 2))
    images = found[:, 0, 0] if per_image else found
    assert not per_image or torch.equal(found, found[:, :1, :1].expand_as(found)), "an image is dropped as a whole"
    assert float((images == 0).float().mean()) == pytest.approx(rate, abs=0.05)
    assert float(images.mean()) == pytest.approx(1.0, abs=0.2 if per_image else 0.05)
    assert torch.equal(layer.eval()(torch.ones(2, 2)), torch.ones(2, 2))


def test_a_schedule_of_rates_does_not_compile_a_network_again() -> None:
    layers = torch.nn.Sequential(Dropout(0.5), torch.nn.Linear(4, 4), StochasticDepth(0.5, 0.2))
    compiled = torch.compile(layers, backend="eager", fullgraph=True)
    compiled(torch.ones(3, 4))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(1, 10):
            layers[0].set_rate(0.05 * step)
            set_drop_path_rate(layers, 0.1 * step)
            compiled(torch.ones(3, 4))
    layers[0].set_rate(1 - 1e-7)
    assert not compiled(torch.ones(3, 4)).isnan().any()


def test_a_backbone_with_too_few_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match="test_resnet yields 5 levels of features, 7 are needed"):
        Backbone("test_resnet", levels=7, input_size=64)


@pytest.mark.parametrize(
    "name", ["test_resnet", "mobilenetv3_small_050", "tf_efficientnet_lite0", "test_convnext", "test_vit"]
)
def test_a_backbone_yields_its_declared_shapes(name: str) -> None:
    backbone = Backbone(name, levels=3, input_size=96).eval()
    features = backbone(random(1, 3, 96, 96))
    assert [f.shape[1] for f in features] == backbone.channels
    assert [96 // f.shape[-1] for f in features] == backbone.reductions
    assert backbone.layer_ids().keys() == {n for n, _ in backbone.named_parameters()}


def test_residual_branches_of_a_resnet_do_not_start_at_zero() -> None:
    backbone = Backbone("resnet18", levels=1, input_size=64)
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(norm.weight.any() for norm in norms)


def test_stochastic_depth_of_a_backbone_rises_with_depth() -> None:
    backbone = Backbone("swin_tiny_patch4_window7_224", levels=4, input_size=64, drop_path_rate=0.2)
    rates: list[float] = [m.rate for m in backbone.modules() if isinstance(m, StochasticDepth)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.2)
