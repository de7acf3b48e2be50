"""SD 1.5, SDXL and PixArt folders: loaded, steered, saved; the stock pipelines as the measure."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guided.core.objective import BoundLoss, Loss, LossContext, Objective
from guided.core.seeds import Seeds
from guided.errors import CannotDo, CorruptWeights, MissingWeights, ShapeError

from guided.errors import UnsafeWeights, UsageError  # isort: skip
from guided.generators.diffusion import Diffusion, load_diffusion, scheduler_of
from guided.generators.diffusion.pipeline import GuidedPipeline
from guided.guidance.denoise import Denoising
from guided.guidance.denoise_estimates import Cutouts
from guided.guidance.guided_denoiser import Guidance
from guided.losses.clip import Clip
from guided.losses.image_prompt import ImagePrompt
from tests.helpers.small_models import FAMILIES, seeded, stock, tiny_decoder, write_folder

PROMPTS, NEGATIVES = ("red", "a dog"), ("a cat", "a cat")


class ColourScorer:
    """Embeds a picture's mean colour, and a text by how red it is."""

    name, width, scale = "colours", 3, 1.0

    def embed_images(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)), dim=1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        red = [[1.0, 0.1, 0.1] if "red" in text else [0.1, 0.1, 1.0] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(red), dim=1)

    def embed_latents(self, latents: Tensor, noise: Tensor) -> Tensor:
        return torch.nn.functional.normalize(latents[:, :3].mean((2, 3)), dim=1)


@dataclass(frozen=True)
class Contrast(Loss):
    """A smooth loss of the pixels."""

    def bind(self, scene: LossContext) -> BoundLoss:
        return lambda draft: (5 * draft.image).sin().flatten(1).mean(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {family: write_folder(family, root / family) for family in FAMILIES}


def made(
    model: Diffusion, guidance: Guidance | None = None, rows: slice = slice(0, 2), **more: Any
) -> Tensor:
    seeds = Seeds.of(0, 2)[rows]
    cfg = more.pop("cfg", 5.0)
    bound = model.bound(PROMPTS[rows], NEGATIVES[rows], cfg=cfg)
    noise = model.start(seeds)["noise"]
    scheduler = model.scheduler(more.pop("scheduler", ""))
    stream = Denoising(bound, scheduler, noise, seeds, 4, cfg, guidance).steps()
    while True:
        try:
            next(stream)
        except StopIteration as end:
            with torch.no_grad():
                return model.render({"x0": end.value})


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_again_it_makes_the_same_bits(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = load_diffusion(folders[family])
    guidance = Guidance(objective=Objective.of(Contrast()), decode="preview")
    before = made(model, guidance)
    model.pipe.save_pretrained(tmp_path / "saved")
    again = load_diffusion(tmp_path / "saved")
    assert again.pipe.config.preview == model.pipe.config.preview
    for name, part in model.pipe.components.items():
        if isinstance(part, torch.nn.Module):
            kept = again.pipe.components[name].state_dict()
            assert all(torch.equal(value, kept[key]) for key, value in part.state_dict().items())
            assert name in GuidedPipeline.model_cpu_offload_seq.split("->")
    assert torch.equal(before, made(again, guidance))
    assert not torch.equal(before, made(model))


def test_who_watches_sees_the_tiny_decoders_pictures_where_there_is_one(
    folders: dict[str, Path],
) -> None:
    model, x = load_diffusion(folders["sd"]), torch.randn(1, 4, 8, 8)
    bound = model.bound(["red"])
    assert torch.equal(bound.preview(x), model.pipe.decode_latents(x, "preview"))
    model.pipe.register_modules(tiny=seeded(tiny_decoder, 3).eval().requires_grad_(False))
    assert torch.equal(bound.preview(x), model.pipe.decode_latents(x, "tiny"))
    assert not torch.equal(bound.preview(x), model.pipe.decode_latents(x, "preview"))


def test_every_way_to_see_and_steer_runs_and_rows_stay_apart(folders: dict[str, Path]) -> None:
    model = load_diffusion(folders["sd"])
    model.pipe.register_modules(tiny=seeded(tiny_decoder, 3).eval().requires_grad_(False))
    scorer = ColourScorer()
    plain = made(model)
    pictures = [torch.rand(1, 3, 9, 7), torch.rand(1, 3, 4, 4)]
    objective = Clip("red thing | a wall::-0.5") + 0.5 * ImagePrompt((1.0, -0.5))
    for decode in ("vae", "tiny", "preview", "latent"):
        cutouts = Cutouts(2, size=8) if decode == "tiny" else None
        guide = Guidance(
            objective=objective, scorer=scorer, decode=decode, cutouts=cutouts, scale=0.2,
            latent_scorer=scorer if decode == "latent" else None,
            extras={"image_prompts": pictures},
        )  # fmt: skip
        both = made(model, guide)
        assert float((both - plain).abs().max()) > 1e-3
        assert torch.equal(both, made(model, guide))
        alone = made(model, guide, slice(1, 2))
        assert torch.allclose(both[1:], alone, atol=1e-4)


def test_guidance_makes_the_picture_fit_the_words(folders: dict[str, Path]) -> None:
    model, scorer = load_diffusion(folders["pixart"]), ColourScorer()

    def redness(images: Tensor) -> Tensor:
        return scorer.embed_images(images) @ scorer.embed_texts(["red"])[0]

    before = redness(made(model))
    for jacobian in ("stop", "exact"):
        guide = Guidance(objective=Objective.of(Clip("red")), scorer=scorer, jacobian=jacobian,
                         scale=0.3, cutouts=None)  # fmt: skip
        assert bool((redness(made(model, guide)) > before).all()), jacobian


@pytest.mark.parametrize("family", ["sd", "pixart"])
def test_the_exact_gradient_is_that_of_finite_differences(
    family: str, folders: dict[str, Path]
) -> None:
    model = load_diffusion(folders[family])
    cfg, seeds = 3.0, Seeds.of(0, 2)
    bound = model.bound(PROMPTS, NEGATIVES, cfg=cfg)
    words = bound.words
    model.pipe.to(torch.float64)
    object.__setattr__(words, "text", words.text.double())
    noise = model.start(seeds)["noise"].double()
    guide = Guidance(objective=Objective.of(Contrast()), scale=1.0, unit="raw", jacobian="exact")

    def first(guidance: Guidance | None) -> tuple[Tensor, Denoising]:
        loop = Denoising(bound, model.scheduler("ddim"), noise, seeds, 3, cfg, guidance)
        step = next(loop.steps())
        assert step.draft is not None
        return step.draft.latent["x0"], loop

    (guided, loop), (plain, _) = first(guide), first(None)
    level = loop.levels.at(0)
    gradient = (plain - guided) * level.alpha / level.sigma**2
    time = loop.scheduler.timesteps[0]

    @torch.no_grad()
    def loss(given: Tensor) -> Tensor:
        without, with_words = bound.predict(torch.cat([given] * 2), time).chunk(2)
        clean = level.x0_of(given, without + cfg * (with_words - without))
        return (5 * bound.decode_latents(clean, "vae")).sin().flatten(1).mean(1).sum()

    stream = torch.Generator().manual_seed(1)
    for _ in range(2):
        way = torch.randn(noise.shape, generator=stream, dtype=torch.float64)
        slope = (loss(noise + 1e-5 * way) - loss(noise - 1e-5 * way)) / 2e-5
        assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=1e-5, abs=1e-11)


def test_the_preview_of_a_linear_decoder_is_exact(folders: dict[str, Path]) -> None:
    pipe = load_diffusion(folders["sd"]).pipe
    weights = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) / 200

    def decode(latents: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        colours = torch.einsum("bchw,cr->brhw", latents, weights) + 0.1
        return (colours.repeat_interleave(2, 2).repeat_interleave(2, 3),)

    pipe.vae.decode = decode
    assert pipe.fit_preview(pipe._sample_latents()) == pytest.approx(1, abs=1e-5)
    flat = torch.ones(1, 4, 2, 2)
    assert torch.allclose(
        pipe.decode_latents(flat, "preview"), pipe.decode_latents(flat, "vae"), atol=1e-4
    )


def test_sizes_and_schedulers_that_do_not_fit_are_told(folders: dict[str, Path]) -> None:
    model = load_diffusion(folders["pixart"])
    assert model.pipe.latent_shape() == (4, 8, 8)
    assert model.pipe.latent_shape((32, 16)) == (4, 16, 8)
    with pytest.raises(UsageError, match=r"not a multiple of 4.*nearest size that is: 16 x 20"):
        model.pipe.latent_shape((19, 17))
    with pytest.raises(UsageError, match="there are: ddim, ddpm"):
        model.scheduler("ddmi")
    with pytest.raises(CannotDo, match="predicts no flow"):
        model.scheduler("flow")
    import diffusers

    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert scheduler_of(flow, "unipc").config.prediction_type == "flow_prediction"
    assert scheduler_of(flow).config.shift == 3.0
    with pytest.raises(CannotDo, match="Take one of: dpm"):
        scheduler_of(flow, "ddim")
    with pytest.raises(ShapeError, match="leaf 'x0'"):
        model.render({"noise": torch.zeros(1, 4, 8, 8)})
    with pytest.raises(CannotDo, match="no tiny decoder"):
        model.pipe.decode_latents(torch.zeros(1, 4, 8, 8), "tiny")
    with pytest.raises(ShapeError, match="1 negatives"):
        model.bound(PROMPTS, ["one"], cfg=2.0)


def test_a_folder_that_lacks_something_is_told_by_name(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(folders["sd"], tmp_path / name))

    with pytest.raises(MissingWeights, match=r"no model_index\.json"):
        load_diffusion(tmp_path)
    place = broken("unet")
    shutil.rmtree(place / "unet")
    with pytest.raises(MissingWeights, match="lacks its component 'unet'"):
        load_diffusion(place)
    place = broken("weights")
    (weights,) = (place / "vae").glob("*.safetensors")
    weights.unlink()
    with pytest.raises(MissingWeights, match="'vae' has no weights"):
        load_diffusion(place)
    (place / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UnsafeWeights, match="only as a pickle"):
        load_diffusion(place)
    whole = next((folders["sd"] / "vae").glob("*.safetensors")).read_bytes()
    for damaged in (b"", b"\0" * 64, whole[: len(whole) // 2], whole[:-1]):
        weights.write_bytes(damaged)
        with pytest.raises(CorruptWeights, match=f"component 'vae' is damaged: {weights}"):
            load_diffusion(place)
    place = broken("half")
    (weights,) = (place / "text_encoder").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CorruptWeights, match="component 'text_encoder' is damaged"):
        load_diffusion(place)
    place = broken("words")
    (place / "tokenizer" / "tokenizer_config.json").write_text("{", "utf-8")
    with pytest.raises(CorruptWeights, match="component 'tokenizer' is damaged"):
        load_diffusion(place)
    place = broken("shape")
    config = json.loads((place / "unet" / "config.json").read_text("utf-8"))
    config["cross_attention_dim"] = 24
    (place / "unet" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CorruptWeights, match="expected shape") as told:
        load_diffusion(place)
    assert "Copy the whole folder again" in str(told.value)
    assert "low_cpu_mem_usage" not in str(told.value)
    place = broken("config")
    (place / "text_encoder" / "config.json").unlink()
    with pytest.raises(MissingWeights, match=r"'text_encoder' has no config\.json"):
        load_diffusion(place)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"unet": ["os", "system"]}, UnsafeWeights, "wants os.system"),
        ({"scheduler": ["subprocess", "EvilScheduler"]}, UnsafeWeights, "a scheduler of diffusers"),
        ({"vae": ["diffusers", "DiffusionPipeline"]}, UnsafeWeights, "allowed: AutoencoderKL"),
        ({"scheduler": ["diffusers", "NoScheduler"]}, CannotDo, "supported: DDIMScheduler, DDPM"),
        ({"unet": [None, None]}, CannotDo, "must name a unet or a transformer"),
        ({"scheduler": [None, None]}, MissingWeights, "names no 'scheduler'"),
    ],
)
def test_an_index_may_name_known_classes_only(
    change: dict[str, Any], error: type[Exception], told: str, folders: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    place = Path(shutil.copytree(folders["sd"], tmp_path / "model"))
    index = json.loads((place / "model_index.json").read_text(encoding="utf-8"))
    (place / "model_index.json").write_text(json.dumps({**index, **change}), encoding="utf-8")
    with pytest.raises(error, match=told):
        load_diffusion(place)


def test_an_index_that_is_no_table(tmp_path: Path) -> None:
    for text in ("[]", "{", "null"):
        (tmp_path / "model_index.json").write_text(text, encoding="utf-8")
        with pytest.raises(CorruptWeights, match="cannot be read"):
            load_diffusion(tmp_path)


def test_a_pipeline_has_one_denoiser(tmp_path: Path) -> None:
    theirs = stock("sd", tmp_path)
    with pytest.raises(CannotDo, match="a unet or a transformer"):
        GuidedPipeline(vae=theirs.vae, scheduler=theirs.scheduler)
    bare = GuidedPipeline(vae=theirs.vae, scheduler=theirs.scheduler, unet=theirs.unet)
    with pytest.raises(CannotDo, match="no text encoder"):
        bare.encode(["a"], [""], (16, 16))
