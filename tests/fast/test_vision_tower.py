from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from guided.core.device import Device
from guided.core.seeds import Seeds
from guided.errors import CannotDo, UsageError
from guided.fast.linear import Affine, Bf16, Int8, Plain, Span, balanced, in_levels, to_levels
from guided.fast.vision_tower import Weights, bf16_tower, int8_tower, plain_tower, spans
from guided.retrieval.store import open_store
from guided.scorers import fast_tower as fast
from guided.scorers.attention import patch_attention
from guided.scorers.clip import ClipScorer, load_clip
from guided.scorers.fast_tower import bulk_kind, calibration, fast_tower, read_tower, textures
from guided.scorers.preprocess import Preprocess
from guided.tasks import index
from tests.tasks.scoring import paint, perform

VNNI = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="a CPU without int8 products")
BF16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU without bf16 products"
)
SIZE = (64, 64)
VISION = {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}


def vit(quick_gelu: bool = False, **vision: object) -> Any:
    """A random tower whose norms, scales and biases are not trivial."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=32, vision_cfg={**VISION, **vision}, text_cfg=TEXT, quick_gelu=quick_gelu
    ).eval()
    with torch.no_grad():
        for name, value in model.visual.named_parameters():
            if name.endswith(("bias", "gamma")) or ".ln_" in name or name.startswith("ln_"):
                value.add_(0.3 * torch.randn_like(value))
    return model.requires_grad_(False)


def settings() -> Preprocess:
    return Preprocess(SIZE, (0.5, 0.4, 0.3), (0.3, 0.25, 0.2))


def model_way(model: Any, pixels: Tensor) -> Tensor:
    return functional.normalize(model.encode_image(settings().normalize(pixels / 255.0)), dim=1)


def cosines(rows: Tensor, expected: Tensor) -> Tensor:
    return (functional.normalize(rows, dim=1) * expected).sum(1)


class Tokens:
    """The same few ids for every text."""

    context_length = 8

    def __call__(self, texts: Any, context_length: int | None = None) -> Tensor:
        return torch.tensor([[1, 2, 31, 0, 0, 0, 0, 0] for _ in texts])


KINDS: list[dict[str, Any]] = [
    {},
    {"quick_gelu": True},
    {"act_kwargs": {"approximate": "tanh"}},
    {"pool_type": "avg"},
    {"pool_type": "avg", "final_ln_after_pool": True},
    {"ls_init_value": 0.5},
    {"no_ln_pre": True},
    {"final_ln_after_pool": True, "layers": 1},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_matrices_are_the_model(kind: dict[str, Any]) -> None:
    model = vit(**kind)
    pixels = textures(Seeds.of(3, 5), SIZE)
    rows = functional.normalize(plain_tower(read_tower(model.visual, settings()))(pixels), dim=1)
    torch.testing.assert_close(rows, model_way(model, pixels), rtol=0, atol=2e-6)


@VNNI
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_int8_is_near_the_model(kind: dict[str, Any]) -> None:
    model = vit(**kind)
    weights = read_tower(model.visual, settings())
    pixels = textures(Seeds.of(50, 12), SIZE)
    tower = int8_tower(weights, spans(weights, calibration(SIZE)))
    assert float(cosines(tower(pixels), model_way(model, pixels)).min()) > 0.9995


@BF16
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bf16_is_near_the_model(kind: dict[str, Any]) -> None:
    model = vit(**kind)
    pixels = textures(Seeds.of(50, 12), SIZE)
    tower = bf16_tower(read_tower(model.visual, settings()))
    assert float(cosines(tower(pixels), model_way(model, pixels)).min()) > 0.9995


def test_attention_that_was_replaced_reads_the_same() -> None:
    model = vit()
    before = read_tower(model.visual, settings())
    patch_attention(model)
    after = read_tower(model.visual, settings())
    assert torch.equal(before.blocks[1].query.weight, after.blocks[1].query.weight)


def test_the_last_block_computes_one_token_where_one_is_pooled() -> None:
    single, mean = (read_tower(vit(pool_type=p).visual, settings()) for p in ("tok", "avg"))
    assert [block.keys is None for block in single.blocks] == [True, True, False]
    assert [block.keys is None for block in mean.blocks] == [True, True, True]


@VNNI
def test_a_channel_far_from_the_others_costs_no_accuracy() -> None:
    model = vit()
    with torch.no_grad():
        model.visual.transformer.resblocks[0].mlp.c_proj.bias[7] += 40
    weights = read_tower(model.visual, settings())
    pixels = textures(Seeds.of(50, 12), SIZE)
    tower = int8_tower(weights, spans(weights, calibration(SIZE)))
    assert float(cosines(tower(pixels), model_way(model, pixels)).min()) > 0.9995


@VNNI
def test_rows_do_not_depend_on_the_batch() -> None:
    weights = read_tower(vit().visual, settings())
    tower = int8_tower(weights, spans(weights, calibration(SIZE)))
    pixels = textures(Seeds.of(0, 100), SIZE)
    assert tower.frame.chunk < 100
    whole = tower(pixels)
    alone = torch.cat([tower(row[None]) for row in pixels[[0, 1, 99]]])
    assert float(cosines(alone, functional.normalize(whole[[0, 1, 99]], dim=1)).min()) > 0.99999
    assert torch.equal(whole, tower(pixels))


def layer_inputs() -> tuple[Affine, Tensor]:
    dice = torch.Generator().manual_seed(1)
    weight = torch.randn(24, 32, generator=dice) * torch.linspace(0.1, 4, 32)
    x = torch.randn(200, 32, generator=dice) / torch.linspace(0.1, 4, 32) + 2
    return Affine(weight, torch.randn(24, generator=dice)), x


def test_levels_are_another_way_to_write_the_same_product() -> None:
    affine, x = layer_inputs()
    grid = balanced(Span(x.amin(0), x.amax(0)), affine.weight, 1.0)
    levels = (x - grid.center) / grid.step
    assert float(levels.abs().max()) == pytest.approx(127, rel=1e-5)
    there = Plain(in_levels(affine, grid))(levels)
    torch.testing.assert_close(there, Plain(affine)(x), rtol=1e-4, atol=1e-4)
    back = Affine(torch.eye(32), torch.zeros(32))
    out = Plain(to_levels(back, grid, slice(0, 32)))(x)
    torch.testing.assert_close(out, levels, rtol=1e-4, atol=1e-3)


@VNNI
@pytest.mark.parametrize("act", ["none", "gelu", "gelu_tanh", "silu"])
def test_an_int8_layer_is_near_its_float_layer(act: Any) -> None:
    affine, x = layer_inputs()
    grid = balanced(Span(x.amin(0), x.amax(0)), affine.weight, 1.0)
    layer = Int8(replace(in_levels(affine, grid), act=act), 200, dtype=torch.float32)
    expected = Plain(replace(affine, act=act))(x)
    error = layer((x - grid.center) / grid.step) - expected
    assert float(error.std() / expected.std()) < 0.02
    if act == "none":
        onto = torch.ones(200, 24)
        summed = layer((x - grid.center) / grid.step, onto)
        torch.testing.assert_close(summed - error - expected, torch.ones(200, 24))


@BF16
def test_a_bf16_layer_adds() -> None:
    affine, x = layer_inputs()
    onto = torch.ones(200, 24)
    found = Bf16(affine, 200)(x, onto.bfloat16()).float()
    expected = Plain(affine)(x, onto)
    assert float((found - expected).std() / expected.std()) < 0.01


def test_a_layer_that_watched_nothing_says_so() -> None:
    with pytest.raises(CannotDo, match="not watched"):
        Plain(layer_inputs()[0]).seen()


@VNNI
def test_a_scorer_uses_int8_for_pictures_alone() -> None:
    model = vit()
    model.visual.preprocess_cfg = {"size": SIZE, "mean": (0.5, 0.4, 0.3), "std": (0.3, 0.25, 0.2)}
    exact = ClipScorer(model, Tokens(), name="exact")
    fast = ClipScorer(model, Tokens(), name="fast", bulk="int8")
    assert fast.bulk_precision == "fp32"
    pixels = textures(Seeds.of(7, 9), SIZE)
    rows, expected = fast.embed_pixels(pixels), exact.embed_pixels(pixels)
    assert (fast.bulk_precision, exact.bulk_precision) == ("int8", "fp32")
    assert 0.9995 < fast.bulk_cosine < 1
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(9))
    assert 0 < float((rows - expected).abs().max()) < 0.02
    images = pixels / 255.0
    assert torch.equal(fast.embed_images(images), exact.embed_images(images))
    assert torch.equal(fast.embed_texts(["a"]), exact.embed_texts(["a"]))
    assert fast.fingerprint == exact.fingerprint


@BF16
def test_a_bf16_scorer_has_a_tower_of_its_own(bundle: Any) -> None:
    fast = load_clip(f"local-dir:{bundle}", bulk="bf16")
    exact = load_clip(f"local-dir:{bundle}")
    pixels = textures(Seeds.of(7, 9), (32, 32))
    found = fast.embed_pixels(pixels)
    assert float(cosines(found, exact.embed_pixels(pixels)).min()) > 0.999
    assert fast.bulk_precision == "bf16"
    assert 0.999 < fast.bulk_cosine < 1


def test_another_tower_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    config = {**VISION, "layers": (1, 1, 1, 1), "width": 16}
    model = open_clip.CLIP(embed_dim=32, vision_cfg=config, text_cfg=TEXT).eval()
    model.visual.preprocess_cfg = {"size": SIZE, "mean": 0.5, "std": 0.5}
    pixels = textures(Seeds.of(7, 3), SIZE)
    with caplog.at_level(logging.WARNING):
        fast = ClipScorer(model, Tokens(), name="stem", bulk="int8")
        rows = fast.embed_pixels(pixels)
        fast.embed_pixels(pixels)
    assert torch.equal(rows, ClipScorer(model, Tokens(), name="same").embed_pixels(pixels))
    assert fast.bulk_precision == "fp32"
    (message,) = [r.getMessage() for r in caplog.records if r.name == "guided.scorers.clip"]
    assert "stem: pictures are embedded in fp32" in message
    if torch.cpu._is_vnni_supported():
        assert "ModifiedResNet" in message


@VNNI
def test_a_tower_far_from_its_model_is_refused() -> None:
    model, other = vit(), vit()
    with torch.no_grad():
        other.visual.proj.add_(torch.randn_like(other.visual.proj))

    def embed(pixels: Tensor) -> Tensor:
        return model_way(other, pixels)

    sample = torch.zeros(0, 3, *SIZE, dtype=torch.uint8)
    with pytest.raises(CannotDo, match=r"too far from the model: cosine .*allowed is 0\.998"):
        fast_tower(model, settings(), "int8", embed, sample)


@VNNI
def test_the_pictures_at_hand_take_part_in_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vit()
    seen: list[Tensor] = []

    def embed(pixels: Tensor) -> Tensor:
        seen.append(pixels)
        return model_way(model, pixels)

    sample = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    made = fast_tower(model, settings(), "int8", embed, sample)
    assert torch.equal(seen[0][-2:], sample)
    assert made.cosine < 1
    monkeypatch.setattr(fast, "calibration", lambda size: torch.zeros(2, 3, *size).byte() + 128)
    with pytest.raises(CannotDo, match="too far"):
        fast_tower(model, settings(), "int8", embed, sample)


def test_parts_that_are_not_known_are_named() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"attentional_pool": True}, "pools by attention"),
        ({"output_tokens": True}, "gives tokens"),
        ({"qk_norm": True, "block_type": "custom"}, "blocks of another kind, CustomResidual"),
    ]
    for vision, message in cases:
        with pytest.raises(CannotDo, match=message):
            read_tower(vit(**vision).visual, settings())
    model = vit()
    model.visual.transformer.resblocks[1].mlp.gelu = nn.ReLU()
    with pytest.raises(CannotDo, match="activation is ReLU"):
        read_tower(model.visual, settings())
    model.visual.ln_post = nn.BatchNorm1d(64)
    with pytest.raises(CannotDo, match="normalises with BatchNorm1d"):
        read_tower(model.visual, settings())


def test_int8_is_for_a_cpu_in_fp32() -> None:
    assert bulk_kind("int8", Device()) == "int8"
    assert bulk_kind("same", Device()) is None
    assert bulk_kind("same", Device("cuda", "bf16")) is None
    assert bulk_kind("bf16", Device()) == "bf16"
    assert bulk_kind("bf16", Device("cpu", "bf16")) == "bf16"
    assert bulk_kind("bf16", Device("cuda", "bf16")) is None
    for device in (Device("cuda"), Device("cuda", "bf16"), Device("cpu", "bf16")):
        with pytest.raises(UsageError, match="int8 pictures are for a CPU and a model in fp32"):
            bulk_kind("int8", device)
    with pytest.raises(UsageError, match="bf16 pictures are for a CPU, not cuda in fp32"):
        bulk_kind("bf16", Device("cuda"))


def test_a_processor_without_the_products_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(CannotDo, match="VNNI"):
        fast_tower(vit(), settings(), "int8", lambda p: p, torch.zeros(0))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(CannotDo, match="oneDNN"):
        fast_tower(vit(), settings(), "bf16", lambda p: p, torch.zeros(0))


def test_calibration_pictures_are_many_kinds_and_always_the_same() -> None:
    pixels = calibration((48, 40))
    assert pixels.shape == (24, 3, 48, 40)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, calibration((48, 40)))
    deviations = pixels.float().flatten(1).std(1)
    assert float(deviations.min()) == 0
    assert float(deviations.max()) > 120


def test_read_tower_copies() -> None:
    model = vit()
    weights: Weights = read_tower(model.visual, settings())
    before = weights.blocks[0].out.weight.clone()
    with torch.no_grad():
        model.visual.transformer.resblocks[0].attn.out_proj.weight.zero_()
    assert torch.equal(weights.blocks[0].out.weight, before)


@VNNI
def test_a_folder_is_indexed_in_int8(bundle: Any, tmp_path: Path) -> None:
    files = paint(tmp_path / "pictures", 6)
    keys = {"folder": str(tmp_path / "pictures")}
    made = []
    for precision in ("fp32", "int8", "bf16"):
        place = str(tmp_path / precision)
        answer, _ = perform(index, bundle, index=place, precision=precision, **keys)
        assert answer.answer["added"] == len(files)
        with open_store(Path(place)) as store:
            made.append(store.snapshot().vectors.float())
    assert float((made[0] * made[1]).sum(1).min()) > 0.998
    assert not torch.equal(made[0], made[1])
    assert float((made[0] * made[2]).sum(1).min()) > 0.998
