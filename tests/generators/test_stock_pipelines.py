"""Folders as diffusers' own pipelines run them: loaded apart, the same bits come out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from guided.core.objective import BoundLoss, Loss, LossContext, Objective
from guided.core.seeds import Seeds
from guided.errors import CannotDo
from guided.generators.diffusion import Diffusion, load_diffusion, quiet
from guided.generators.diffusion.pipeline import GuidedPipeline
from guided.guidance.denoise import Denoising
from guided.guidance.guided_denoiser import Guidance
from tests.helpers.small_models import pixart, seeded, stock, write_folder

PROMPTS, NEGATIVES = ("red", "A dog"), ("a cat", "a cat")
FAMILIES = ("sd", "sdxl", "pixart", "sigma")
#: Each scheduler once; prediction, cfg and negatives vary so that every value meets several.
CASES: tuple[tuple[str, str, float, Sequence[str]], ...] = (
    ("", "epsilon", 5.0, ()),
    ("ddim", "v_prediction", 5.0, NEGATIVES),
    ("ddpm", "epsilon", 5.0, NEGATIVES),
    ("dpm++", "v_prediction", 1.0, ()),
    ("euler", "sample", 5.0, ()),
    ("euler-a", "v_prediction", 5.0, ("", "a cat")),
    ("heun", "epsilon", 3.0, NEGATIVES),
    ("lms", "v_prediction", 5.0, ()),
    ("pndm", "epsilon", 1.0, ()),
    ("unipc", "sample", 5.0, NEGATIVES),
)


class Nothing(Loss):
    """A loss that nobody asks, since it steers by 0."""

    def bind(self, scene: LossContext) -> BoundLoss:
        raise AssertionError("a scale of 0 binds nothing")


class Both(NamedTuple):
    """A folder as this package loads it, and as the stock pipeline of its kind does."""

    ours: Diffusion
    theirs: Any


def opened(folder: Path) -> Both:
    import diffusers

    name = json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"]
    more = {"add_watermarker": False} if "XL" in name else {}
    if name == "StableDiffusionPipeline":
        more = {"safety_checker": None, "requires_safety_checker": False}
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(diffusers, name).from_pretrained(folder, **more)
    theirs.set_progress_bar_config(disable=True)
    for part in theirs.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)  # torch rounds a product otherwise where weights can learn
    return Both(load_diffusion(folder), theirs)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Both]:
    root = tmp_path_factory.mktemp("stock")
    return {family: opened(write_folder(family, root / family)) for family in FAMILIES}


def made(
    model: Diffusion, plan: Any, prompts: Sequence[str], negatives: Sequence[str], cfg: float,
    size: tuple[int, int] | None = None, guidance: Guidance | None = None,
) -> Tensor:  # fmt: skip
    seeds = Seeds.of(3, len(prompts))
    bound = model.bound(prompts, negatives, cfg=cfg, size=size)
    noise = model.start(seeds, size=size)["noise"]
    moves = Denoising(bound, plan, noise, seeds, 3, cfg, guidance).steps()
    while True:
        try:
            next(moves)
        except StopIteration as end:
            with torch.no_grad():
                return model.render({"x0": end.value})


def wanted(
    both: Both, plan: Any, prompts: Sequence[str], negatives: Sequence[str], cfg: float,
    size: tuple[int, int] | None = None, **more: Any,
) -> Tensor:  # fmt: skip
    seeds, theirs = Seeds.of(3, len(prompts)), both.theirs
    given: dict[str, Any] = {"latents": both.ours.start(seeds, size=size)["noise"],
                             "generator": list(seeds.streams("denoise/noise")), **more}  # fmt: skip
    if "PixArt" in type(theirs).__name__:
        given["use_resolution_binning"] = False
    if negatives:
        given["negative_prompt"] = list(negatives)
    if size:
        given["height"], given["width"] = size
    theirs.scheduler = plan
    found: Tensor = theirs(
        prompt=list(prompts), num_inference_steps=3, guidance_scale=cfg, output_type="pt", **given
    ).images
    return found


def plan_of(model: Diffusion, name: str, predicts: str) -> Any:
    plan = model.scheduler(name)
    plan.register_to_config(prediction_type=predicts)
    return plan


@pytest.mark.parametrize("family", FAMILIES)
def test_unguided_the_bits_are_the_stock_pipelines(family: str, pairs: dict[str, Both]) -> None:
    both = pairs[family]
    for name, predicts, cfg, negatives in CASES:
        ask = (PROMPTS, negatives, cfg)
        theirs = wanted(both, plan_of(both.ours, name, predicts), *ask)
        ours = made(both.ours, plan_of(both.ours, name, predicts), *ask)
        assert torch.equal(ours, theirs), (name, predicts, cfg, negatives)
        assert len({float(row.mean()) for row in ours}) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_scale_0_one_row_and_another_size_are_stock_too(
    family: str, pairs: dict[str, Both]
) -> None:
    both = pairs[family]
    still = Guidance(objective=Objective.of(Nothing()), scale=0.0)
    for size in (None, (24, 16)):
        ask = (PROMPTS[1:], NEGATIVES[1:], 4.0, size)
        ours = made(both.ours, both.ours.scheduler("ddim"), *ask, guidance=still)
        assert torch.equal(ours, wanted(both, both.ours.scheduler("ddim"), *ask))


def test_the_same_generators_draw_the_same_noise(pairs: dict[str, Both]) -> None:
    both, seeds = pairs["pixart"], Seeds.of(3, 2)
    drawn = list(seeds.streams("diffusion/noise"))
    theirs = wanted(both, both.ours.scheduler(), PROMPTS, (), 4.0, latents=None, generator=drawn)
    assert torch.equal(made(both.ours, both.ours.scheduler(), PROMPTS, (), 4.0), theirs)


def test_a_sigma_folder_reads_long_prompts_and_keeps_doing_so(
    pairs: dict[str, Both], tmp_path: Path
) -> None:
    both = pairs["sigma"]
    long = ("red " * 60 + "dog", "red " * 60 + "cat")
    ours = made(both.ours, both.ours.scheduler(), long, (), 4.0)
    assert torch.equal(ours, wanted(both, both.ours.scheduler(), long, (), 4.0))
    both.ours.pipe.save_pretrained(tmp_path / "saved")
    again = load_diffusion(tmp_path / "saved")
    assert again.bound(long).words.text.shape[1] == 300
    assert pairs["pixart"].ours.bound(long).words.text.shape[1] == 120
    assert torch.equal(made(again, again.scheduler(), long, (), 4.0), ours)


def test_a_transformer_that_is_told_sizes_is_told_stocks(tmp_path: Path) -> None:
    theirs = stock("pixart", tmp_path)
    transformer = seeded(lambda: pixart(sample=128, sized=True), 5).eval()
    theirs.register_modules(transformer=transformer)
    theirs.save_pretrained(tmp_path / "model")
    both = opened(tmp_path / "model")
    for cfg in (4.0, 1.0):
        ask = (PROMPTS, (), cfg, (24, 16))
        ours = made(both.ours, both.ours.scheduler(), *ask)
        assert torch.equal(ours, wanted(both, both.ours.scheduler(), *ask))
    other = made(both.ours, both.ours.scheduler(), PROMPTS, (), 1.0, (16, 24))
    assert not torch.equal(other.transpose(2, 3), ours)


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_without_a_negative_prompt(zeros: bool, tmp_path: Path) -> None:
    theirs = stock("sdxl", tmp_path)
    theirs.register_to_config(force_zeros_for_empty_prompt=zeros)
    theirs.save_pretrained(tmp_path / "model")
    both = opened(tmp_path / "model")
    ours = made(both.ours, both.ours.scheduler(), PROMPTS, (), 4.0)
    assert torch.equal(ours, wanted(both, both.ours.scheduler(), PROMPTS, (), 4.0))
    assert bool(both.ours.bound(PROMPTS, cfg=2.0).words.text[0].any()) != zeros


@pytest.mark.parametrize("stated", [True, False])
def test_outdated_settings_of_old_folders_are_set_right_once(stated: bool, tmp_path: Path) -> None:
    folder = write_folder("sd", tmp_path)
    plan, unet = folder / "scheduler/scheduler_config.json", folder / "unet/config.json"
    table = json.loads(plan.read_text("utf-8"))
    old = {"steps_offset": 0, "clip_sample": True} if stated else {}
    kept = {
        key: value for key, value in table.items() if key not in ("steps_offset", "clip_sample")
    }
    plan.write_text(json.dumps(kept | old), "utf-8")
    table = json.loads(unet.read_text("utf-8"))
    unet.write_text(json.dumps({**table, "_diffusers_version": "0.6.0"}), "utf-8")
    both = opened(folder)
    before = dict(both.ours.scheduler().config)
    assert (before["steps_offset"], before["clip_sample"]) == (1, False)
    assert both.ours.pipe.latent_shape() == (4, 64, 64)
    assert both.theirs.unet.config.sample_size == 64
    ask = (PROMPTS[:1], (), 3.0, (16, 16))
    ours = made(both.ours, both.ours.scheduler(), *ask)
    assert torch.equal(ours, wanted(both, both.theirs.scheduler, *ask))
    assert dict(both.ours.scheduler().config) == before


def test_denoisers_that_ask_for_more_are_refused(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    theirs = stock("sd", tmp_path)
    for changes, told in (
        ({"time_cond_proj_dim": 8}, "told the strength of guidance"),
        ({"in_channels": 9}, "reads 9 channels .*latents have 4 .*made for inpainting"),
    ):
        known = {k: v for k, v in theirs.unet.config.items() if k != "_use_default_values"}
        unet = UNet2DConditionModel.from_config({**known, **changes})
        with pytest.raises(CannotDo, match=told):
            GuidedPipeline(vae=theirs.vae, scheduler=theirs.scheduler, unet=unet)
        whole = stock("sd", tmp_path)
        whole.register_modules(unet=unet)
        whole.save_pretrained(tmp_path / "model")
        with pytest.raises(CannotDo, match=told):
            load_diffusion(tmp_path / "model")
